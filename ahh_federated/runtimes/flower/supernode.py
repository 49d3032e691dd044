"""A node's side of the federation: it calls out to its coordinators, answers what they ask, and nobody can call in.

Each coordinator has a thread of its own, so that one which is slow, dead or hostile delays no other; answers are given one
at a time, since there is one ledger.  A pull waits at the coordinator until there is a message, or for some seconds, so an
idle node makes one small request every five seconds and still hears of a message at once.
"""

from __future__ import annotations

import secrets
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ahh_federated.errors import AhhError, Unreachable
from ahh_federated.runtimes.flower.apps import HOLD, client_app
from ahh_federated.runtimes.flower.private import failed
from ahh_federated.runtimes.flower.private_node import INTERVAL, FleetLine

_LOOK = 2.0  # seconds between two looks at the memberships
_BEAT = 0.4 * INTERVAL  # seconds between two signs of life
_FIRST, _LONGEST = 0.25, 20.0  # seconds before trying again
_FINISH = 30.0  # seconds an answer under way may take when the node is stopped
_LEAVE = 1.0  # seconds for a pull under way to come back
_SKEW = 5.0  # seconds that a node's clock may be ahead


@dataclass(frozen=True, slots=True)
class Membership:
    """A consortium as a node knows it: where its coordinator is, the only authority believed, and the node's key.

    `ca` is in PEM; `id_file` remembers the node's id at Flower over a restart.
    """

    consortium: str
    address: str
    ca: bytes
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)
    id_file: Path


def serve(
    memberships: Callable[[], Sequence[Membership]],
    answer: Callable[[str, bytes], bytes],
    stop: threading.Event,
    tell: Callable[[str], None],
) -> None:
    """Serve every coordinator until `stop` is set.

    Args:
        memberships: read again every other second, so that joining and leaving need no restart.
        answer: given the consortium and what its coordinator sent; called one at a time.  If it raises, the coordinator is
            told that the node failed, and no more.
        stop: ends the service; an answer under way is finished and sent.
        tell: given one line whenever something changes, for the operator.
    """
    one_at_a_time = threading.Lock()
    posts: dict[Membership, _Post] = {}
    unusable: set[Membership] = set()

    def locked(consortium: str, data: bytes) -> bytes:
        with one_at_a_time:
            return answer(consortium, data)

    while not stop.is_set():
        try:
            wanted = set(memberships())
        except AhhError as error:
            tell(str(error))
            wanted = set(posts)
        for gone in set(posts) - wanted:
            posts.pop(gone).end()
        for new in wanted - set(posts) - unusable:
            try:
                posts[new] = _Post(new, locked, tell)
                posts[new].start()
            except (OSError, ValueError):
                tell(f"{new.consortium}: its address {new.address} or its authority cannot be used: join again")
                unusable.add(new)
        stop.wait(_LOOK)
    for post in posts.values():
        post.halt()
    for post in posts.values():
        post.end()


def knock(membership: Membership) -> None:
    """See whether a coordinator admits the node's key.  Nothing changes there, also while the node is served.

    Raises:
        Unreachable: when the coordinator refuses the key, or there is no such answer as a coordinator gives.
    """
    line = FleetLine(membership.address, membership.ca, membership.key)
    try:
        line.push_nothing()
    except httpx.HTTPError as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.FORBIDDEN:
            return  # the key is looked at before what is handed in
        raise Unreachable(_reason(error, membership.address).removesuffix(": trying again")) from None
    except ValueError:
        raise Unreachable(f"{membership.address} does not speak as a coordinator: check the address") from None
    finally:
        line.close()


@final
class _Post:
    """The post of one coordinator: one thread that pulls and answers, and one that says the node lives."""

    def __init__(self, membership: Membership, answer: Callable[[str, bytes], bytes], tell: Callable[[str], None]) -> None:
        name = membership.consortium
        self._membership = membership
        self._app: ClientApp = client_app(lambda context, data: answer(name, data))
        self._tell, self._told = tell, ""
        self._line = FleetLine(membership.address, membership.ca, membership.key)
        self._node: int | None = None
        self._over, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._runs, self._lives = (threading.Thread(target=each, name=name, daemon=True) for each in (self._run, self._live))

    def start(self) -> None:
        self._runs.start()
        self._lives.start()

    def halt(self) -> None:
        """Take no further message."""
        self._over.set()

    def end(self) -> None:
        """Finish the answer under way, say goodbye, and stop."""
        self.halt()
        self._idle.wait(_FINISH)
        self._lives.join(_FINISH)  # a sign of life after the goodbye would undo it
        node = self._node
        if node is not None:
            with suppress(httpx.HTTPError):
                self._line.deactivate(node)
        self._runs.join(_LEAVE)
        self._line.close()

    def _run(self) -> None:
        wait = _FIRST
        while not self._over.is_set():
            try:
                self._node = self._arrive()
                self._say(f"connected to {self._membership.address}")
                while not self._over.is_set():
                    self._turn(self._node)
                    wait = _FIRST
            except httpx.HTTPError as error:
                self._say(_reason(error, self._membership.address))
            except Exception as error:  # its text may quote what came from outside
                self._say(f"stumbled over {type(error).__name__}: trying again")
            self._over.wait(wait * (0.5 + secrets.randbelow(1000) / 2000))
            wait = min(2 * wait, _LONGEST)

    def _arrive(self) -> int:
        """Come online.  Whatever this node was sent and did not answer, before a crash or a cut, is then sent again."""
        file = self._membership.id_file
        try:
            node = self._line.activate()
        except httpx.HTTPStatusError as error:
            known = _remembered(file)
            if error.response.status_code != httpx.codes.PRECONDITION_FAILED or known is None or not self._line.beat(known):
                raise
            return known
        with suppress(OSError):  # without it the node is back somewhat later after a crash
            file.touch(mode=0o600)
            file.write_text(f"{node}\n", encoding="ascii")
        return node

    def _turn(self, node: int) -> None:
        message = self._line.pull(node)
        if message is None:
            return
        self._idle.clear()
        try:
            start = time.monotonic()
            reply = self._reply(message, node)
            self._line.push(node, reply, time.monotonic() - start)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                raise
            self._say(f"an answer was not taken (HTTP {error.response.status_code}), as when the run it was for is over")
        finally:
            self._idle.set()

    def _reply(self, message: Message, node: int) -> Message:
        context = Context(message.metadata.run_id, node, {}, RecordDict(), {})
        try:
            return self._app(message, context)
        except Exception as error:  # its text could quote a patient: it goes nowhere
            self._say(f"could not answer: {type(error).__name__}")
            return failed(message)

    def _live(self) -> None:
        while not self._over.wait(_BEAT):
            node = self._node
            if node is not None:
                with suppress(httpx.HTTPError, RuntimeError):  # RuntimeError: closed meanwhile
                    self._line.beat(node)

    def _say(self, text: str) -> None:
        if text != self._told and not self._over.is_set():
            self._told = text
            self._tell(f"{self._membership.consortium}: {text}")


def _remembered(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reason(error: httpx.HTTPError, address: str) -> str:
    """What went wrong on the way, for the operator; nothing that came from outside is quoted."""
    if isinstance(error, httpx.HTTPStatusError):
        if error.response.status_code != httpx.codes.UNAUTHORIZED:
            return f"{address} answers HTTP {error.response.status_code}: trying again"
        ahead = _ahead(error.response)
        if ahead is not None and not -300 < ahead < _SKEW + HOLD:  # the date may be that of the moment a held pull began
            return f"{address} refuses this machine's clock, which is {ahead:+.0f} seconds off: set it by NTP"
        return f"{address} refuses this node: its key is not admitted there, or was revoked; ask the coordinator"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return f"{address} shows a certificate that this consortium's authority did not sign, or that expired: trying again"
    return f"{address} cannot be reached ({type(error).__name__}): trying again"


def _ahead(response: httpx.Response) -> float | None:
    """Seconds that this machine's clock is ahead of the coordinator's."""
    try:
        theirs = parsedate_to_datetime(response.headers["date"])
        return (datetime.now(UTC) - theirs).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
