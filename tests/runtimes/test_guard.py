"""The door of the coordinator: everything but the calls of admitted nodes and our own API is shut."""

from __future__ import annotations

import base64
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.node_pb2 import Node as ProtoNode
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from ahh_federated.identity import Key, pem
from ahh_federated.runtimes.flower import guard
from ahh_federated.runtimes.flower.binding import DOMAIN, HEADER, mark, spelled
from ahh_federated.runtimes.flower.private_link import KEY_HEADER, TIME_HEADER
from tests.runtimes.certificates import make_authority
from tests.runtimes.federation import open_link
from tests.runtimes.knocking import activate, client, raw_request, signed

HOLD = 1.0  # seconds, for the guard's five


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def authority(folder):
    return make_authority(folder)


@pytest.fixture(scope="module")
def link(authority, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard, "HOLD", HOLD)
        link = open_link(authority, folder)
        link.start()
        yield link
        link.stop()


@pytest.fixture
def key(link, tmp_path):
    """Of the partner `a`, admitted."""
    key = Key.create(tmp_path / "a.key")
    link.admit("a", key.public)
    return key


@pytest.fixture
def other(tmp_path):
    """Of nobody who was admitted."""
    return Key.create(tmp_path / "other.key")


SHUT = [
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    "/v1/control/start-run",
    "/v1/control/list-runs",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/push-messages",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/get-fab",
    "/v1/fleet/get-run",
    "/V1/fleet/pull-messages",
    "/v1/fleet/Pull-Messages",
    "//v1/fleet/pull-messages",
    "/v1//fleet/pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/./pull-messages",
    "/v1/fleet/x/../pull-messages",
    "/v1/fleet/%70ull-messages",
    "/v1/fleet%2fpull-messages",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/..%2fcontrol/start-run",
    "/v1/fleet/pull-messages?x=1",
    "/v1/fleet/pull-messages;x",
    "/ahh/v1",
    "/ahh/v1/../../v1/control/start-run",
    "/ahh/v1/%2e%2e/%2e%2e/v1/control/start-run",
    "/ahh/v1//v1/control/start-run",
    "/AHH/v1/about",
]


@pytest.mark.parametrize("target", SHUT)
def test_all_but_the_fleet_calls_and_our_own_api_is_shut(link, authority, key, target):
    for method in ("POST", "GET"):
        assert raw_request(authority, link.port, target, method, signed(key)) == 403


def test_our_own_api_is_reached(link, authority):
    with client(authority, link.port) as http:
        assert http.get("/ahh/v1/about?x=1").text == "own /ahh/v1/about"


def test_a_websocket_is_refused(link, authority):
    upgrade = {"upgrade": "websocket", "sec-websocket-key": "x" * 16, "sec-websocket-version": "13"}
    assert raw_request(authority, link.port, "/v1/control/start-run", "GET", upgrade) == 403


FLEET = ["activate-node", "pull-messages", "push-messages", "pull-object", "push-object", "send-node-heartbeat"]


@pytest.mark.parametrize("call", FLEET)
def test_only_a_fresh_signature_of_an_admitted_key_gets_in(link, authority, key, other, call):
    now = datetime.now(UTC)
    wrong = {
        "anonymous": {"content-type": PROTOBUF_MEDIA_TYPE},
        "an unknown key": signed(other),
        "a member's key, signed by another": signed(other, claimed=key),
        "no signature": signed(key, signature=b"x"),
        "an old signature": signed(key, time=now - timedelta(seconds=400)),
        "a signature of the future": signed(key, time=now + timedelta(seconds=60)),
        "no time zone": signed(key, time=now.replace(tzinfo=None)),
        "a broken key": signed(key) | {KEY_HEADER: "%%%"},
    }
    with client(authority, link.port) as http:
        url = f"/v1/fleet/{call}"
        statuses = {why: http.post(url, headers=headers, content=b"x").status_code for why, headers in wrong.items()}
        twice = [*signed(key).items(), (KEY_HEADER, base64.b64encode(pem(other.public)).decode())]
        statuses["two keys"] = http.post(url, headers=twice, content=b"x").status_code
    assert set(statuses.values()) == {401}, statuses


def test_a_node_cannot_act_for_another(link, authority, key, other):
    link.admit("thief", other.public)
    with client(authority, link.port) as http:
        victim, thief = activate(http, key), activate(http, other)

        def work(carrier):
            ticket = carrier.send("a", b"?")
            pull = PullMessagesRequest(node=ProtoNode(node_id=victim)).SerializeToString()
            assert http.post("/v1/fleet/pull-messages", headers=signed(other), content=pull).status_code == 401
            call = Message(RecordDict({"ahh": ConfigRecord({"bytes": b""})}), victim, "query.ahh")
            call.metadata.__dict__["_message_id"] = ticket
            forged = Message(RecordDict({"ahh": ConfigRecord({"bytes": b"forged"})}), reply_to=call)
            forged.metadata.__dict__["_message_id"] = forged.object_id
            for sender, status in ((thief, 403), (victim, 403)):
                push = PushMessagesRequest(node=ProtoNode(node_id=sender), messages_list=[message_to_proto(forged)])
                answer = http.post("/v1/fleet/push-messages", headers=signed(other), content=push.SerializeToString())
                assert answer.status_code == status
            assert carrier.collect([ticket]) == {}

        link.run(work)


PULL = "/v1/fleet/pull-messages"


@pytest.mark.parametrize(
    ("authority_of", "path", "body", "status"),
    [
        ("this", PULL, None, 200),
        ("another", PULL, None, 401),
        ("this", "/v1/fleet/deactivate-node", None, 401),
        ("this", PULL, b"another body", 401),
    ],
)
def test_a_request_is_for_one_coordinator_one_call_and_one_body(link, authority, key, authority_of, path, body, status):
    """Flower's own header would do at every coordinator that the node belongs to."""
    whose = mark(authority.ca.read_bytes()) if authority_of == "this" else bytes(32)
    with client(authority, link.port) as http:
        content = PullMessagesRequest(node=ProtoNode(node_id=activate(http, key))).SerializeToString()
        headers = signed(key)
        spelling = spelled(whose, path.encode(), headers[TIME_HEADER].encode(), content if body is None else body)
        answer = http.post(PULL, headers=headers | {HEADER: key.sign(DOMAIN, spelling)}, content=content)
        assert answer.status_code == status
        without = http.post(PULL, headers=headers | {HEADER: ""}, content=content)
        assert without.status_code == 401


@pytest.mark.parametrize("call", ["pull-messages", "push-messages", "push-object"])
def test_a_body_beyond_its_size_is_refused(link, authority, key, call):
    size = (66 << 20) if call == "push-object" else (2 << 20)
    headers = signed(key) | {"content-length": str(size)}
    with client(authority, link.port) as http:
        answer = http.post(f"/v1/fleet/{call}", headers=headers, content=(b"x" * (1 << 20) for _ in range(size >> 20)))
    assert answer.status_code == 413


@pytest.mark.parametrize("body", [b"", b"x", b"\xff" * 1000, b"\x0a\x00" * 500])
@pytest.mark.parametrize("call", FLEET)
def test_nonsense_from_a_member_is_refused_and_does_no_harm(link, authority, key, call, body):
    with client(authority, link.port) as http:
        answer = http.post(f"/v1/fleet/{call}", headers=signed(key), content=body)
        assert 400 <= answer.status_code < 600
        assert "Traceback" not in answer.text
        activate(http, key)


def pull(http, key, node, timeout=30.0) -> bytes:
    request = PullMessagesRequest(node=ProtoNode(node_id=node)).SerializeToString()
    answer = http.post("/v1/fleet/pull-messages", headers=signed(key), content=request, timeout=timeout)
    assert answer.status_code == 200
    return answer.content


def test_a_pull_waits_for_a_message_and_no_longer(link, authority, key):
    with client(authority, link.port) as http:
        node = activate(http, key)
        pull(http, key, node)  # at once: there might have been something left over
        start = time.monotonic()
        assert pull(http, key, node) == b""
        assert time.monotonic() - start >= HOLD * 0.9


def test_a_message_ends_the_wait(link, authority, key):
    with client(authority, link.port) as http, client(authority, link.port) as held:
        node = activate(http, key)
        pull(http, key, node)
        got = []
        waiting = threading.Thread(target=lambda: got.append(pull(held, key, node)))

        def work(carrier):
            waiting.start()
            carrier.send("a", b"?")
            waiting.join()

        link.run(work)
    assert len(got[0]) > 0


def test_a_message_is_not_lost_to_a_node_that_hung_up(link, authority, key):
    with client(authority, link.port) as http:
        node = activate(http, key)
        pull(http, key, node)

        def work(carrier):
            with client(authority, link.port) as short, pytest.raises(httpx.ReadTimeout):
                pull(short, key, node, timeout=0.2)
            carrier.send("a", b"?")
            assert pull(http, key, node)

        link.run(work)
