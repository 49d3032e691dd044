"""What the coordinator answers over HTTP beside Flower's Fleet API: partners join, researchers submit and fetch.

    POST /ahh/v1/join                          token, public key, signature -> name, roster     (an invitation)
    GET  /ahh/v1/about                         name, version                                    (anybody)
    POST /ahh/v1/studies                       a study in canonical JSON -> its state           (a researcher, as all below)
    GET  /ahh/v1/studies                       every study; of others only digest, id and state
    GET  /ahh/v1/studies/DIGEST                state and progress
    POST /ahh/v1/studies/DIGEST/cancel         one's own only
    GET  /ahh/v1/studies/DIGEST/transcript     one's own only, when it is done

Whatever arrives, the answer is JSON with a status below 500, unless the coordinator itself is at fault.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ahh_federated.audit import Audit, Fact
from ahh_federated.coordinator.home import CoordinatorHome
from ahh_federated.coordinator.queue import Queue, Queued, State
from ahh_federated.coordinator.roster import JOIN, Partner, Roster
from ahh_federated.coordinator.throttle import WINDOW, Throttle
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.identity import verify
from ahh_federated.study import LARGEST, read_canonical
from ahh_federated.version import VERSION

PREFIX = "/ahh/v1"
VERSION_HEADER = "ahh-version"
_BODY_SECONDS = 30.0
_LARGEST_JOIN = 1 << 14  # bytes, from somebody who has shown nothing yet
_LONGEST = 1000  # characters of one field
_MOST_LISTED = 1000
_log = logging.getLogger(__name__)


class _Rejected(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: from where, by whom, about which study."""

    address: str
    by: str
    digest: str
    body: bytes


_Work = Callable[[_Asked], Response]


def api(roster: Roster, queue: Queue, home: CoordinatorHome, audit: Audit, admit: Callable[[Partner], None]) -> Starlette:
    """The ASGI application.  `admit` is called with a partner that joined, so that its node may connect; it may be repeated."""
    desk = _Desk(roster, queue, home, audit, admit)
    study = f"{PREFIX}/studies/{{digest}}"
    routes = [
        Route(f"{PREFIX}/about", desk.serve(desk.about, signed_in=False), methods=["GET"]),
        Route(f"{PREFIX}/join", desk.serve(desk.join, signed_in=False, largest=_LARGEST_JOIN), methods=["POST"]),
        Route(f"{PREFIX}/studies", desk.serve(desk.submit, largest=LARGEST), methods=["POST"]),
        Route(f"{PREFIX}/studies", desk.serve(desk.studies), methods=["GET"]),
        Route(study, desk.serve(desk.study), methods=["GET"]),
        Route(f"{study}/cancel", desk.serve(desk.cancel), methods=["POST"]),
        Route(f"{study}/transcript", desk.serve(desk.transcript), methods=["GET"]),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unrouted})
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True, slots=True)
class _Desk:
    roster: Roster
    queue: Queue
    home: CoordinatorHome
    audit: Audit
    admit: Callable[[Partner], None]
    throttle: Throttle = field(default_factory=Throttle)

    def serve(self, work: _Work, *, signed_in: bool = True, largest: int = 0) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: who it is, then what it sent, up to so many bytes, then the work in a thread, then every error as JSON."""

        async def endpoint(request: Request) -> Response:
            try:
                address = request.client.host if request.client else ""
                by = ""
                if signed_in:
                    by = await run_in_threadpool(self._researcher, request.headers.get("authorization", ""), address)
                body = await _body(request, largest) if largest else b""
                return await run_in_threadpool(work, _Asked(address, by, request.path_params.get("digest", ""), body))
            except Exception as error:
                return _told(error)

        return endpoint

    def about(self, asked: _Asked) -> Response:
        return _json({"name": self.home.name, "version": VERSION})

    def join(self, asked: _Asked) -> Response:
        token, public, signature = _fields(asked.body, "token", "public", "signature")
        try:
            verify(public, JOIN, token.encode(errors="replace"), signature)
            partner = self.roster.enrol(token, public)
        except (Misuse, Breach) as error:
            raise self._failed("join refused", asked.address, _Rejected(403, str(error)), reason=str(error)) from None
        self._note("join", partner=partner.name, key=partner.fingerprint, address=asked.address)
        self.admit(partner)
        members = {each.name: each.fingerprint for each in self.roster.partners() if not each.revoked}
        return _json({"consortium": self.home.name, "partner": partner.name, "roster": members})

    def submit(self, asked: _Asked) -> Response:
        study = read_canonical(asked.body)
        if study.consortium != self.home.name:
            said = f"the study {study.id} is of the consortium {study.consortium}, and this is {self.home.name}"
            raise Misuse(f"{said}: correct `consortium`, or name another coordinator")
        queued = self.queue.submit(asked.body, asked.by)
        self._note("submit", researcher=asked.by, study=queued.id, digest=queued.digest)
        return _json(self._shown(queued, asked.by))

    def studies(self, asked: _Asked) -> Response:
        order = self.queue.order()
        return _json({"studies": [self._shown(each, asked.by, order) for each in self.queue.studies()[-_MOST_LISTED:]]})

    def study(self, asked: _Asked) -> Response:
        return _json(self._shown(self._found(asked), asked.by))

    def cancel(self, asked: _Asked) -> Response:
        queued = self._own(asked)
        if self.queue.cancel(queued.digest):
            self._note("cancel", researcher=asked.by, study=queued.id, digest=queued.digest)
        elif queued.state is not State.CANCELLED:
            raise _Rejected(409, f"the study {queued.id} is over already: it is {queued.state}")
        return _json(self._shown(self._found(asked), asked.by))

    def transcript(self, asked: _Asked) -> Response:
        queued = self._own(asked)
        path = self.home.transcript(queued.digest)
        if queued.state is not State.DONE or not path.is_file():
            raise _Rejected(409, f"the study {queued.id} has no results yet: it is {queued.state}")
        self._note("fetch", researcher=asked.by, study=queued.id, digest=queued.digest)
        headers = {**_HEADERS, "Content-Length": str(path.stat().st_size)}  # one cut short is then noticed
        return StreamingResponse(_parts(path), media_type="application/jsonl", headers=headers)

    def _researcher(self, header: str, address: str) -> str:
        kind, _, token = header.partition(" ")
        by = self.roster.researcher(token) if kind.lower() == "bearer" else None
        if by is None:
            why = "this token is not accepted: ask the coordinator for a new access file"
            raise self._failed("login refused", address, _Rejected(401, why, {"WWW-Authenticate": "Bearer"}))
        return by

    def _failed(self, event: str, address: str, answer: _Rejected, **facts: Fact) -> _Rejected:
        """What to answer to a failed login, which is in the audit log unless there are too many."""
        if self.throttle.failed(address):
            self._note(event, address=address, not_logged_before=self.throttle.unlogged(), **facts)
            return answer
        return _Rejected(429, str(answer), {"Retry-After": str(int(WINDOW))})

    def _note(self, event: str, **facts: Fact) -> None:
        try:
            self.audit.write(event, **facts)
        except Misuse as error:  # the coordinator's fault, not the caller's
            raise Unreachable(str(error)) from None

    def _found(self, asked: _Asked) -> Queued:
        found = self.queue.get(asked.digest)
        if found is None:
            raise _Rejected(404, "no study here has this digest: look at the list of studies")
        return found

    def _own(self, asked: _Asked) -> Queued:
        found = self._found(asked)
        if found.by != asked.by:
            raise _Rejected(403, f"the study {found.id} is another researcher's: only that researcher may do this")
        return found

    def _shown(self, queued: Queued, by: str, order: Sequence[str] | None = None) -> dict[str, Any]:
        order = self.queue.order() if order is None else order
        position = order.index(queued.digest) + 1 if queued.digest in order else None
        shown = {"digest": queued.digest, "id": queued.id, "state": queued.state, "position": position}
        if queued.by == by:
            more = {name: getattr(queued, name) for name in ("title", "by", "submitted", "reason", "progress")}
            shown |= more
        return shown


async def _body(request: Request, largest: int) -> bytes:
    """Counted while it arrives: a length that was announced may be wrong."""
    body = bytearray()
    async with asyncio.timeout(_BODY_SECONDS):
        async for part in request.stream():
            body += part
            if len(body) > largest:
                raise _Rejected(413, f"what was sent is larger than {largest} bytes", {"Connection": "close"})
    return bytes(body)


def _fields(body: bytes, *names: str) -> tuple[str, ...]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Breach("what was sent is not JSON") from None
    if not isinstance(content, dict) or set(content) != set(names):
        raise Breach(f"what was sent is not a table of {', '.join(names)}")
    values = tuple(content[name] for name in names)
    if not all(isinstance(value, str) and 0 < len(value) <= _LONGEST for value in values):
        raise Breach(f"{', '.join(names)} are texts of up to {_LONGEST} characters")
    return values


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(1 << 18):
            yield part


_HEADERS = {"Cache-Control": "no-store", VERSION_HEADER: VERSION}


def _json(content: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(content, status, {**_HEADERS, **(headers or {})})


def _told(error: Exception) -> Response:
    """An error as JSON.  Of the coordinator's own faults nothing is told but that there is one."""
    match error:
        case _Rejected():
            return _json({"error": str(error)}, error.status, error.headers)
        case Misuse() | Breach():
            return _json({"error": str(error)}, 400)
        case ClientDisconnect():
            return _json({"error": "the connection ended before all was sent"}, 400)
        case TimeoutError():
            return _json({"error": f"not all was sent within {_BODY_SECONDS:g} seconds"}, 408, {"Connection": "close"})
        case Unreachable():
            _log.error("%s", error)
            return _json({"error": "the coordinator cannot read or write its own files: tell its operator"}, 503)
    _log.error("an unexpected fault", exc_info=error)
    return _json({"error": "the coordinator has a fault of its own: tell its operator"}, 500)


async def _unrouted(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json({"error": "there is no such address, or not with this method"}, status)
