"""The coordinator's API: who may do what, and that nothing sent to it breaks it."""

from __future__ import annotations

import asyncio
import json
import random
import threading

import httpx
import pytest

from ahh_federated.audit import Audit, verify_audit
from ahh_federated.coordinator import api as module
from ahh_federated.coordinator import roster as roster_module
from ahh_federated.coordinator import throttle
from ahh_federated.coordinator.queue import State
from ahh_federated.coordinator.throttle import MOST_PER_ADDRESS
from ahh_federated.errors import Misuse
from ahh_federated.identity import Key
from ahh_federated.study import LARGEST, canonical
from ahh_federated.version import VERSION
from tests.coordinator.coordinators import desk as made_desk
from tests.coordinator.coordinators import done, join_body, study
from tests.study.samples import small

JOIN, STUDIES = "/ahh/v1/join", "/ahh/v1/studies"


@pytest.fixture
def desk(tmp_path):
    with made_desk(tmp_path) as desk:
        yield desk


class Client:
    """Asks the application without a network, from any thread."""

    def __init__(self, app) -> None:
        self._app = app

    def request(self, method: str, path: str, **given) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://localhost:8443") as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())

    def get(self, path: str, **given) -> httpx.Response:
        return self.request("GET", path, **given)

    def post(self, path: str, **given) -> httpx.Response:
        return self.request("POST", path, **given)


@pytest.fixture
def client(desk):
    return Client(desk.app)


@pytest.fixture
def key(tmp_path):
    return Key.create(tmp_path / "node.key")


@pytest.fixture
def an(desk):
    return {"Authorization": f"Bearer {desk.roster.welcome('an-peeters')}"}


@pytest.fixture
def tom(desk):
    return {"Authorization": f"Bearer {desk.roster.welcome('tom-claes')}"}


def submitted(client, headers, version=1):
    answer = client.post(STUDIES, content=study(version), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["digest"]


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


def sent_in_parts(app, path, parts, headers):
    """A body of unknown length, part by part; what was answered, and how many parts were taken."""
    taken = 0

    async def body():
        nonlocal taken
        for part in parts:
            taken += 1
            yield part

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://x") as client:
            return await client.post(path, content=body(), headers=headers)

    return asyncio.run(ask()), taken


def test_a_body_is_counted_while_it_arrives(desk, an):
    endless = (b"x" * 65_536 for _ in range(10_000))
    answer, taken = sent_in_parts(desk.app, STUDIES, endless, an)
    assert answer.status_code == 413 and answer.headers["connection"] == "close"
    assert taken <= LARGEST // 65_536 + 2
    answer, taken = sent_in_parts(desk.app, JOIN, (b"x" * 1000 for _ in range(10_000)), {})
    assert answer.status_code == 413 and taken <= 20


def test_an_announced_length_is_not_believed(desk, an):
    for announced in ("1", "0"):
        headers = {**an, "Content-Length": announced}
        answer, _ = sent_in_parts(desk.app, STUDIES, (b"x" * 65_536 for _ in range(10_000)), headers)
        assert answer.status_code == 413


def test_nothing_is_read_from_somebody_unknown(desk):
    answer, taken = sent_in_parts(desk.app, STUDIES, (b"x" * 65_536 for _ in range(10)), {"Authorization": "Bearer x"})
    assert answer.status_code == 401 and taken == 0


def test_a_body_that_does_not_end_is_given_up(desk, an, monkeypatch):
    monkeypatch.setattr(module, "_BODY_SECONDS", 0.05)

    async def ask():
        async def never():
            await asyncio.Event().wait()

        sent = []

        async def send(message):
            sent.append(message)

        headers = [(name.lower().encode(), value.encode()) for name, value in an.items()]
        scope = {
            "type": "http", "method": "POST", "path": STUDIES, "raw_path": STUDIES.encode(), "headers": headers,
            "query_string": b"", "client": ("10.0.0.1", 1), "server": ("x", 1), "scheme": "https", "http_version": "1.1",
        }  # fmt: skip
        await desk.app(scope, never, send)
        return sent[0]["status"]

    assert asyncio.run(ask()) == 408


def test_a_caller_that_hangs_up_is_no_fault(desk, an):
    async def ask():
        sent = []

        async def gone():
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        headers = [(name.lower().encode(), value.encode()) for name, value in an.items()]
        scope = {
            "type": "http", "method": "POST", "path": STUDIES, "raw_path": STUDIES.encode(), "headers": headers,
            "query_string": b"", "client": None, "server": ("x", 1), "scheme": "https", "http_version": "1.1",
        }  # fmt: skip
        await desk.app(scope, gone, send)
        return sent[0]["status"]

    assert asyncio.run(ask()) == 400


def test_faults_of_the_coordinator_tell_no_more_than_that(client, desk, an, monkeypatch):
    def full(self, event, **facts):
        raise Misuse(f"{desk.home.audit.path} cannot be written (No space left on device): free some")

    monkeypatch.setattr(Audit, "write", full)
    answer = client.post(STUDIES, content=study(), headers=an)
    assert answer.status_code == 503 and str(desk.home.path) not in answer.text
    monkeypatch.undo()
    desk.queue.close()
    answer = client.get(STUDIES, headers=an)
    assert answer.status_code == 503 and "sqlite" not in answer.text.lower()
    monkeypatch.setattr(module._Desk, "_shown", lambda *_: 1 / 0)
    monkeypatch.setattr(type(desk.queue), "studies", lambda self: [None])
    monkeypatch.setattr(type(desk.queue), "order", lambda self: [])
    answer = client.get(STUDIES, headers=an)
    assert answer.status_code == 500 and "ZeroDivision" not in answer.text and "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/", "/ahh/v1", "/ahh/v1/", "/ahh/v1/studies/", "/ahh/v2/about", "/v1/control/x", "//", "/%00"])
def test_other_addresses(client, an, path):
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = client.request(method, path, headers=an)
        assert answer.status_code in (404, 405) and set(answer.json()) == {"error"}, (method, path, answer.text)


def garbage(rng: random.Random, token: str, good: list[bytes], digest: str) -> dict:
    """One request of any kind: method, path, headers and body, some of it nearly right."""
    pool = ["/ahh/v1/studies", "join", "about", "cancel", "transcript", "..", "%", "%2f", "\x00", "é", "?", "#", "\\", "0", ""]
    paths = [
        *[JOIN] * 4,
        STUDIES,
        f"{STUDIES}/{digest}/transcript",
        f"{STUDIES}/{'0' * 64}",
        f"{STUDIES}/x/cancel",
        f"{STUDIES}/{rng.choice(pool)}/transcript",
        "/ahh/v1/about",
    ]
    path = rng.choice([*paths, "/" + "/".join(rng.choices(pool, k=rng.randint(1, 4)))])
    headers = [
        (b"authorization", rng.choice([b"Bearer " + token.encode()] * 3 + [b"", b"Bearer \xff", rng.randbytes(8).hex().encode()]))
    ]
    extra = [b"content-type", b"content-length", b"range", b"expect", b"host", b"transfer-encoding", b"if-none-match", b"x"]
    values = [b"0", b"-1", b"bytes=0-", b"bytes=5-2,9-,,-", b"chunked", b"\xff\xfe", b"application/json", b"*", b"a" * 3000]
    headers += [(rng.choice(extra), rng.choice(values)) for _ in range(rng.randint(0, 3))]
    body = bytearray(rng.choice([*good, rng.randbytes(rng.randint(0, 300)), b"[" * rng.randint(1, 5000), b"{}", b""]))
    for _ in range(rng.choice([0, 0, 1, 3, 30])):
        if body:
            place = rng.randrange(len(body))
            body[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    method = rng.choice(["GET", "POST", "POST", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
    about = {"query": rng.randbytes(rng.choice([0, 0, 20])), "client": (f"10.0.0.{rng.randint(1, 15)}", 1)}
    return {"method": method, "path": path, "headers": headers, "body": bytes(body), **about}


async def asked(app, one: dict) -> tuple[int, bytes]:
    """Straight at the application, where no client library forbids anything."""
    sent: list[dict] = []
    parts = [{"type": "http.request", "body": one["body"], "more_body": False}, {"type": "http.disconnect"}]

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": one["method"], "path": one["path"], "raw_path": one["path"].encode(), "headers": one["headers"],
        "query_string": one["query"], "client": one["client"], "server": ("localhost", 8443), "scheme": "https",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_two_thousand_requests_of_every_kind(desk, key, monkeypatch):
    monkeypatch.setattr(throttle, "MOST_TOGETHER", 10**6)
    token = desk.roster.welcome("an-peeters")
    good = [study(), join_body(desk.roster.invite("hospital-zas"), key), *[join_body("wrong", key)] * 3, b"null", b'{"token":1}']
    rng, app, seen = random.Random(2026), desk.app, set()
    digest = desk.queue.submit(study(2), "an-peeters").digest
    done(desk, digest, b"{}\n")

    async def all_of_them():
        for number in range(2_000):
            one = garbage(rng, token, good, digest)
            status, body = await asked(app, one)
            assert status < 500, (number, one, status)
            assert b"Traceback" not in body and str(desk.home.path).encode() not in body
            if status >= 400 and one["method"] != "HEAD":
                assert set(json.loads(body)) == {"error"}, (one, body)
            seen.add(status)

    asyncio.run(all_of_them())
    assert {200, 400, 401, 403, 404, 405, 429} <= seen  # it went everywhere
    assert verify_audit(desk.home.audit.path)[0]
    assert all(partner.fingerprint == key.fingerprint for partner in desk.roster.partners())
