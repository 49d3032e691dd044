"""The door of the coordinator: which requests reach Flower or this project's own API, and from whom.

Flower's application serves three APIs on one port and trusts whoever reaches it with two of them.  Here only the calls a
node needs get through, signed by the key of a partner that was admitted, within a size; all else is refused before its
body is read.  A path counts only as it is spelled, so that what is checked is what is routed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.concurrency import run_in_threadpool

from ahh_federated.errors import Breach
from ahh_federated.identity import verify
from ahh_federated.runtimes.flower.apps import HOLD
from ahh_federated.runtimes.flower.binding import DOMAIN, HEADER, spelled
from ahh_federated.runtimes.flower.private_link import (
    EARLIEST,
    KEY_HEADER,
    LATEST,
    SIGNATURE_HEADER,
    TIME_HEADER,
    is_from,
)

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

OWN = "/ahh/v1/"
_SMALL, _LARGE = 1 << 20, 65 << 20  # bytes of a body
_ACTIVATE, _DEACTIVATE, _PULL = "/v1/fleet/activate-node", "/v1/fleet/deactivate-node", "/v1/fleet/pull-messages"
_PUSH, _PUSH_PART = "/v1/fleet/push-messages", "/v1/fleet/push-object"
_CALLS = {
    _ACTIVATE: _SMALL,
    _DEACTIVATE: _SMALL,
    "/v1/fleet/send-node-heartbeat": _SMALL,
    _PULL: _SMALL,
    "/v1/fleet/pull-object": _SMALL,
    "/v1/fleet/confirm-message-received": _SMALL,
    _PUSH: _SMALL,
    _PUSH_PART: _LARGE,
}


@dataclass(frozen=True, slots=True)
class Member:
    """A partner's node: the only key it comes with, as an OpenSSH line and in PEM, and its id at Flower."""

    name: str
    public: str
    pem: bytes
    node_id: int


@final
class Members:
    """The keys that may come in, in the memory of this process only: what nobody has admitted stays out."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Member] = {}

    def add(self, member: Member) -> None:
        self._by_key = {each.pem: each for each in (*self, member) if each.name != member.name or each is member}

    def remove(self, name: str) -> list[Member]:
        gone = [each for each in self if each.name == name]
        self._by_key = {each.pem: each for each in self if each.name != name}
        return gone

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_key.values())

    def sender(self, scope: Scope) -> Member | None:
        """Whose key signed this request just now; None when it is not a member's."""
        try:
            pem, signature = (base64.b64decode(_only(scope, name), validate=True) for name in (KEY_HEADER, SIGNATURE_HEADER))
            time = _only(scope, TIME_HEADER)
            age = (datetime.now(UTC) - datetime.fromisoformat(time.decode("ascii"))).total_seconds()
            member = self._by_key.get(pem)
            key = serialization.load_pem_public_key(pem) if member and EARLIEST < age < LATEST else None
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, time, ec.ECDSA(hashes.SHA256()))
                return member
        except (KeyError, ValueError, TypeError, binascii.Error, InvalidSignature):
            pass
        return None


def _only(scope: Scope, name: str) -> bytes:
    found: list[bytes] = [value for key, value in scope["headers"] if key == name.lower().encode()]
    if len(found) != 1:
        raise KeyError(name)
    return found[0]


@final
class FleetGuard:
    """The ASGI application that listens.  `returned` is called with a node's id when it has just started or come back."""

    def __init__(
        self, flower: ASGIApp, own: ASGIApp, members: Members, authority: bytes, returned: Callable[[int], None]
    ) -> None:
        self._flower, self._own = flower, own
        self._authority = authority
        self._members = members
        self._returned = returned
        self._bells: dict[int, asyncio.Event] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closing = False
        self.pushed = 0  # how many times a node has handed something in

    def ring(self, *nodes: int) -> None:
        """There is something for these nodes: end the wait of their pulls.  For any thread."""
        if self._loop is not None and not self._loop.is_closed():
            for node in nodes:
                self._loop.call_soon_threadsafe(self._bell(node).set)

    def _bell(self, node: int) -> asyncio.Event:
        return self._bells.setdefault(node, asyncio.Event())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        if scope["type"] == "lifespan":
            return await self._flower(scope, receive, send)
        if scope["type"] != "http":
            return None
        path = scope["path"]
        if scope["raw_path"] != path.encode() or not _plain(path):
            return await _refuse(send, 403)
        if path.startswith(OWN):
            return await self._own(scope, receive, send)
        if path not in _CALLS or scope["method"] != "POST" or scope["query_string"]:
            return await _refuse(send, 403)
        return await self._fleet(scope, receive, send)

    async def _fleet(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, member = scope["path"], self._members.sender(scope)
        if member is None:
            return await _refuse(send, 401)
        body = await _body(receive, _CALLS[path])
        if body is None:
            return await _refuse(send, 413)
        if not self._bound(scope, member, body):
            return await _refuse(send, 401)
        if path == _PUSH and not is_from(member.node_id, body):
            return await _refuse(send, 403)
        if path == _ACTIVATE:
            await run_in_threadpool(self._returned, member.node_id)
        if path == _PULL and not await self._wait(member.node_id, receive):
            return None
        if path == _DEACTIVATE:
            self._bell(member.node_id).set()
        await self._flower(scope, _replay(body, receive), self._watch(member.node_id, path, send))
        return None

    def _bound(self, scope: Scope, member: Member, body: bytes) -> bool:
        """Whether the member signed this very request for this very coordinator."""
        try:
            signed = spelled(self._authority, scope["raw_path"], _only(scope, TIME_HEADER), body)
            verify(member.public, DOMAIN, signed, _only(scope, HEADER).decode("ascii"))
        except (KeyError, UnicodeDecodeError, Breach):
            return False
        return True

    async def _wait(self, node: int, receive: Receive) -> bool:
        """Hold a pull until there may be a message.  False when the node has hung up: it would take the message with it."""
        bell = self._bell(node)
        if not self.closing:
            waits = [asyncio.ensure_future(bell.wait()), asyncio.ensure_future(receive())]
            try:
                done, _ = await asyncio.wait(waits, timeout=HOLD, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waits:
                    each.cancel()
            if waits[1] in done:
                return False
        bell.clear()
        return True

    def _watch(self, node: int, path: str, send: Send) -> Send:
        async def watched(event: Event) -> None:
            if path == _PULL and event.get("body"):
                self._bell(node).set()  # there may be another message
            if path in (_PUSH, _PUSH_PART) and event["type"] == "http.response.start":
                self.pushed += 1
            await send(event)

        return watched


def _plain(path: str) -> bool:
    return path.startswith("/") and all(part not in ("", ".", "..") for part in path[1:].split("/"))


async def _body(receive: Receive, most: int) -> bytes | None:
    """The whole body; None when it is larger or the sender hangs up."""
    body, more = bytearray(), True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            return None
        body += event.get("body", b"")
        more = event.get("more_body", False)
        if len(body) > most:
            return None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    first = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed() -> Event:
        event: Event | None = next(first, None)
        return await receive() if event is None else event

    return replayed


async def _refuse(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
