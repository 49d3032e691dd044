"""Nothing sent to the coordinator's API breaks it: endless bodies, strange addresses, and garbage of every kind."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import pytest

from ahh_federated.audit import Audit, verify_audit
from ahh_federated.coordinator import api as module
from ahh_federated.coordinator import throttle
from ahh_federated.errors import Misuse
from ahh_federated.identity import Key
from ahh_federated.study import LARGEST
from tests.coordinator.clients import JOIN, STUDIES, Client, asked, welcomed
from tests.coordinator.coordinators import desk as made_desk
from tests.coordinator.coordinators import done, join_body, study


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
