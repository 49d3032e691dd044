"""The coordinator's API: who may do what, and what is logged of it."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from ahh_federated.audit import verify_audit
from ahh_federated.coordinator import api as module
from ahh_federated.coordinator import roster as roster_module
from ahh_federated.coordinator.queue import State
from ahh_federated.coordinator.throttle import MOST_PER_ADDRESS
from ahh_federated.identity import Key
from ahh_federated.study import canonical
from ahh_federated.version import VERSION
from tests.coordinator.clients import JOIN, STUDIES, Client, asked, submitted, welcomed
from tests.coordinator.coordinators import desk as made_desk
from tests.coordinator.coordinators import done, join_body, study
from tests.study.samples import small


@pytest.fixture
def desk(tmp_path):
    with made_desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def client(desk):
    return Client(desk.app)


@pytest.fixture
def key(tmp_path):
    return Key.create(tmp_path / "node.key")


@pytest.fixture
def an(desk):
    return welcomed(desk, "an-peeters")


@pytest.fixture
def tom(desk):
    return welcomed(desk, "tom-claes")


def test_about_is_for_anybody_and_says_little(client):
    answer = client.get("/ahh/v1/about")
    assert answer.json() == {"name": "antwerp", "version": VERSION}
    assert answer.headers["ahh-version"] == VERSION and answer.headers["cache-control"] == "no-store"


def test_an_invited_node_joins(client, desk, key):
    answer = client.post(JOIN, content=join_body(desk.roster.invite("hospital-zas"), key))
    assert answer.status_code == 200
    assert answer.json() == {
        "consortium": "antwerp",
        "partner": "hospital-zas",
        "roster": {"hospital-zas": key.fingerprint},
    }
    assert [partner.fingerprint for partner in desk.admitted] == [key.fingerprint]
    assert desk.events()[-1] == "join"


def test_an_invitation_is_spent(client, desk, key, tmp_path):
    token = desk.roster.invite("hospital-zas")
    assert client.post(JOIN, content=join_body(token, key)).status_code == 200
    answer = client.post(JOIN, content=join_body(token, Key.create(tmp_path / "other.key")))
    assert answer.status_code == 403 and "used by another key" in answer.json()["error"]
    assert len(desk.admitted) == 1 and desk.events()[-1] == "join refused"


def test_of_many_joins_at_once_exactly_one_wins(client, desk, tmp_path):
    token = desk.roster.invite("hospital-zas")
    bodies = [join_body(token, Key.create(tmp_path / f"{k}.key")) for k in range(8)]
    codes: list[int] = []
    threads = [threading.Thread(target=lambda b=body: codes.append(client.post(JOIN, content=b).status_code)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [403] * 7
    assert len(desk.admitted) == 1


def test_a_key_must_be_held_to_join(client, desk, key, tmp_path):
    token, thief = desk.roster.invite("hospital-zas"), Key.create(tmp_path / "thief.key")
    forged = [
        join_body(token, thief, public=key.public),  # somebody else's key
        join_body(token, key, signature=key.sign(module.JOIN, b"another token")),
        join_body(token, key, signature=key.sign("ahh-receipt/1", token.encode())),  # signed for another use
        join_body(token, key, signature="AAAA"),
    ]
    for body in forged:
        assert client.post(JOIN, content=body).status_code == 403
    assert desk.roster.partners() == [] and desk.admitted == []
    assert client.post(JOIN, content=join_body(token, key)).status_code == 200  # none of it spent the token


def test_an_expired_withdrawn_or_revoked_one_is_refused(client, desk, key, monkeypatch):
    token = desk.roster.invite("hospital-zas", hours=1)
    with monkeypatch.context() as later:
        later.setattr(roster_module, "now", lambda: "9999-01-01T00:00:00.000+00:00")
        assert "expired" in client.post(JOIN, content=join_body(token, key)).json()["error"]
    fresh = desk.roster.invite("hospital-zas")
    assert "withdrawn" in client.post(JOIN, content=join_body(token, key)).json()["error"]
    client.post(JOIN, content=join_body(fresh, key))
    desk.roster.revoke("hospital-zas")
    again = client.post(JOIN, content=join_body(desk.roster.invite("hospital-zas"), key))
    assert again.status_code == 403 and "was revoked" in again.json()["error"]


def test_a_join_whose_admission_failed_can_be_repeated(client, desk, key):
    def fail(partner):
        raise RuntimeError("secret detail")

    desk.admit, body = fail, join_body(desk.roster.invite("hospital-zas"), key)
    answer = client.post(JOIN, content=body)
    assert answer.status_code == 500 and "secret detail" not in answer.text
    desk.admit = None
    assert client.post(JOIN, content=body).status_code == 200
    assert len(desk.roster.partners()) == 1


def test_submit_follow_cancel(client, desk, an):
    digest = submitted(client, an)
    desk.queue.note(digest, {"ask": "model", "step": 2, "of": 9})
    shown = client.get(f"{STUDIES}/{digest}", headers=an).json()
    assert (shown["id"], shown["state"], shown["position"], shown["by"]) == ("growth", "queued", 1, "an-peeters")
    assert shown["progress"] == {"ask": "model", "step": 2, "of": 9}
    for _ in range(2):  # once more changes nothing
        answer = client.post(f"{STUDIES}/{digest}/cancel", headers=an)
        assert answer.status_code == 200 and answer.json()["state"] == "cancelled"
    assert desk.events()[1:] == ["submit", "cancel"]


def test_a_study_of_another_consortium_is_refused(client, desk, an):
    """No node would take it through this coordinator."""
    answer = client.post(STUDIES, content=canonical(small().content), headers=an)
    assert answer.status_code == 400
    assert "the study growth is of the consortium harbour, and this is antwerp" in answer.json()["error"]
    assert desk.queue.studies() == [] and "submit" not in desk.events()


def test_positions_count_what_waits(client, desk, an, tom):
    digests = [submitted(client, who, version) for version, who in ((1, an), (2, tom), (3, an))]
    desk.queue.set(digests[0], "running")
    listed = client.get(STUDIES, headers=an).json()["studies"]
    assert [each["position"] for each in listed] == [None, 1, 2]
    assert [each["digest"] for each in listed] == digests


def test_of_others_one_sees_that_they_are_there(client, desk, an, tom):
    digest = submitted(client, an)
    few = {"digest", "id", "state", "position"}
    assert set(client.get(f"{STUDIES}/{digest}", headers=tom).json()) == few
    assert [set(each) for each in client.get(STUDIES, headers=tom).json()["studies"]] == [few]
    done(desk, digest, b"{}\n")
    for method, path in (("POST", "cancel"), ("GET", "transcript")):
        answer = client.request(method, f"{STUDIES}/{digest}/{path}", headers=tom)
        assert answer.status_code == 403 and "another researcher" in answer.json()["error"]
    found = desk.queue.get(digest)
    assert found is not None and found.state is State.DONE


def test_a_transcript_is_had_when_the_study_is_done(client, desk, an):
    digest = submitted(client, an)
    path = desk.home.transcript(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"half": 1}\n')
    for state in ("queued", "waiting", "running"):
        desk.queue.set(digest, state)
        answer = client.get(f"{STUDIES}/{digest}/transcript", headers=an)
        assert answer.status_code == 409 and state in answer.json()["error"]
    content = b'{"line": 1}\n' * 200_000
    done(desk, digest, content)
    answer = client.get(f"{STUDIES}/{digest}/transcript", headers=an)
    assert answer.status_code == 200 and answer.content == content
    assert desk.events()[-1] == "fetch"
    assert client.post(f"{STUDIES}/{digest}/cancel", headers=an).status_code == 409
    path.unlink()
    assert client.get(f"{STUDIES}/{digest}/transcript", headers=an).status_code == 409


@pytest.mark.parametrize("digest", ["0" * 64, "growth", "..", "%2e%2e%2f%2e%2e", "a%00b", "é"])
def test_what_is_not_there(client, an, digest):
    for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/transcript")):
        assert client.request(method, f"{STUDIES}/{digest}{path}", headers=an).status_code == 404


GUARDED = [("POST", STUDIES), ("GET", STUDIES), *((m, f"{STUDIES}/{'0' * 64}{p}") for m, p in (("GET", ""), ("POST", "/cancel")))]
WRONG = ["", "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "bearer" * 1000, "Bearer \xff", "Bearer " + "a" * 43]


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("header", WRONG)
def test_without_a_token_nothing(client, desk, method, path, header):
    answer = client.request(method, path, headers={"Authorization": header.encode("latin-1")}, content=study())
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert desk.queue.studies() == [] and desk.events()[1:] == ["login refused"]


def test_a_dismissed_researcher_has_no_access(client, desk, an):
    digest = submitted(client, an)
    desk.roster.dismiss("an-peeters")
    assert client.get(f"{STUDIES}/{digest}", headers=an).status_code == 401


def test_guessing_is_limited_and_locks_nobody_out(client, desk, an, key):
    codes = [client.get(STUDIES, headers={"Authorization": "Bearer guess"}).status_code for _ in range(50)]
    assert codes == [401] * MOST_PER_ADDRESS + [429] * (50 - MOST_PER_ADDRESS)
    assert desk.events().count("login refused") == MOST_PER_ADDRESS
    bad = client.post(JOIN, content=join_body("guess", key))
    assert bad.status_code == 429 and bad.headers["retry-after"] == "60"
    assert client.get(STUDIES, headers=an).status_code == 200  # from the very same address
    assert client.post(JOIN, content=join_body(desk.roster.invite("hospital-zas"), key)).status_code == 200


def test_how_much_was_not_logged_is_logged(client, desk):
    for _ in range(MOST_PER_ADDRESS + 5):
        client.get(STUDIES)

    async def elsewhere():
        one = {"method": "GET", "path": STUDIES, "headers": [], "body": b"", "query": b"", "client": ("10.9.9.9", 1)}
        return await asked(client._app, one)

    assert asyncio.run(elsewhere())[0] == 401
    last = list(desk.home.audit.entries())[-1]
    assert (last["event"], last["address"], last["not_logged_before"]) == ("login refused", "10.9.9.9", 5)


def test_no_token_and_no_signature_is_logged(client, desk, key, an):
    token = desk.roster.invite("hospital-zas")
    body = join_body(token, key)
    client.post(JOIN, content=join_body("a-guessed-token", key))
    client.post(JOIN, content=body)
    client.get(STUDIES, headers={"Authorization": "Bearer a-wrong-token"})
    submitted(client, an)
    log = desk.home.audit.path.read_text()
    for secret in (token, an["Authorization"][7:], "a-guessed-token", "a-wrong-token", json.loads(body)["signature"]):
        assert secret not in log
    assert verify_audit(desk.home.audit.path)[0]
