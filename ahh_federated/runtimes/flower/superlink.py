"""The coordinator's engine: Flower's SuperLink application in this process, behind a guard that leaves the Fleet API only."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import final

import uvicorn
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from flwr.app import Context, RecordDict

from ahh_federated.coordinator.post import Carrier
from ahh_federated.errors import Misuse
from ahh_federated.identity import pem
from ahh_federated.runtimes.flower.apps import server_app
from ahh_federated.runtimes.flower.binding import mark
from ahh_federated.runtimes.flower.carrier import GridCarrier
from ahh_federated.runtimes.flower.guard import ASGIApp, FleetGuard, Member, Members
from ahh_federated.runtimes.flower.listening import Impatient
from ahh_federated.runtimes.flower.private import NodeInfo, task
from ahh_federated.runtimes.flower.private_link import State, StateGrid, superlink_app

_START, _STOP = 30.0, 5.0  # seconds
_KEEP = 60  # seconds; nodes drop an idle connection after five, so never on one that closes under their hands


@final
class SuperLink:
    """Listens for the partners' nodes, and carries a coordinator's calls to them.

    Flower's file keeps the nodes and their ids over a restart; runs and messages are dropped when a run ends, since what lasts
    is in the transcript and the ledgers.  Only partners admitted since the start come in.
    """

    def __init__(
        self, state: State, flower: ASGIApp, extra: ASGIApp, authority: bytes, context: ssl.SSLContext, door: socket.socket
    ) -> None:
        self._state = state
        self._members = Members()
        self._changing = threading.Lock()  # a partner that joins is admitted by the API and by whoever follows the roster
        self._guard = FleetGuard(flower, extra, self._members, authority, self._returned)
        self._server = _server(self._guard, context)
        self._door = door
        self._thread = threading.Thread(target=self._listen, name="superlink", daemon=True)

    @classmethod
    def open(cls, *, host: str, port: int, ca: Path, certificate: Path, key: Path, database: Path, extra: ASGIApp) -> SuperLink:
        """Take the port and open the state.

        Args:
            host: the address to listen on.
            port: 0 takes a free one.
            ca: the certificate of the authority that signed `certificate`.
            certificate: the server's, in PEM.
            key: its private key.
            database: Flower's own SQLite file; made when there is none.
            extra: serves /ahh/v1/*.

        Raises:
            Misuse: when the port is taken, or a file cannot be used.
        """
        context = _tls(ca, certificate, key)
        door = _door(host, port)
        try:
            database.touch(mode=0o600)
            flower, state = superlink_app(str(database))
            state.forget()
        except Exception as error:
            door.close()
            raise Misuse(
                f"{database} cannot be used ({type(error).__name__}): move it away, nothing in it lasts, and start again"
            ) from error
        return cls(state, flower, extra, mark(ca.read_bytes()), context, door)

    @property
    def port(self) -> int:
        port: int = self._door.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to serve, in a thread; returns once nodes can connect."""
        self._thread.start()
        end = time.monotonic() + _START
        while self._thread.is_alive() and time.monotonic() < end:
            if self._server.started:
                return
            time.sleep(0.01)
        raise Misuse("the coordinator's server did not start: look at what it wrote above")

    def _listen(self) -> None:
        self._server.run(sockets=[self._door])

    def admit(self, name: str, public: str) -> None:
        """Let the partner `name` in with this key (an OpenSSH line) and no other.  Again changes nothing.

        Raises:
            Misuse: when the key was expelled before.
        """
        key = pem(public)
        with self._changing:
            try:
                node_id = self._state.register(name, key)
            except ValueError:
                fix = f"let {name} make a new key and join again"
                raise Misuse(f"the key of {name} was expelled, and stays out: {fix}") from None
            self._members.add(Member(name, " ".join(public.split()[:2]), key, node_id))

    def expel(self, name: str) -> None:
        """From now on nothing the partner sends is read, and its key is never admitted again."""
        with self._changing:
            for member in self._members.remove(name):
                self._state.strike(member.node_id)

    def online(self) -> frozenset[str]:
        return frozenset(node.name for node in self._online())

    def _online(self) -> list[NodeInfo]:
        members = {member.node_id for member in self._members}
        return [node for node in self._state.online() if node.node_id in members]

    def run(self, work: Callable[[Carrier], None]) -> None:
        """Do a coordinator's work as a Flower run, in the calling thread; one at a time in a process.

        Raises:
            Misuse: when another one is under way.
        """
        run = self._state.start_run()
        with task(run.run_id, run.primary_task_id):
            grid = StateGrid(self._state, run, self._guard, self._online)
            try:
                server_app(lambda grid: work(GridCarrier(grid)))(grid=grid, context=Context(run.run_id, 1, {}, RecordDict(), {}))
            finally:
                self._state.forget()

    def _returned(self, node_id: int) -> None:
        self._state.redeliver(node_id)
        self._guard.ring(node_id)

    def stop(self) -> None:
        """End the service; nodes try to come back until it starts again."""
        self._guard.closing = True
        self._guard.ring(*(member.node_id for member in self._members))
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP * 2)
        self._door.close()
        self._state.close()


def _server(guard: ASGIApp, context: ssl.SSLContext) -> uvicorn.Server:
    config = uvicorn.Config(
        guard,
        log_config=None,
        log_level="critical",
        access_log=False,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        http=Impatient,
        timeout_keep_alive=_KEEP,
        timeout_graceful_shutdown=int(_STOP),
    )
    config.load()
    config.ssl = context
    return uvicorn.Server(config)


def _door(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        door = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Misuse(f"{host} is no address of this machine ({error.strerror}): give listen as in 0.0.0.0:8443") from None
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(address)
        door.listen(256)
    except OSError as error:
        door.close()
        fix = "end the program that has it, or give another port" if error.errno == errno.EADDRINUSE else "give another address"
        raise Misuse(f"{host}:{port} cannot be listened on ({error.strerror}): {fix}") from None
    return door


def _tls(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        authority, mine = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (ca, certificate))
        mine.verify_directly_issued_by(authority)
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError, TypeError, InvalidSignature):
        raise Misuse(
            f"{certificate}, its key {key} and the authority {ca} do not go together: make the certificate anew"
        ) from None
    if mine.not_valid_after_utc < datetime.now(UTC):
        raise Misuse(f"{certificate} expired on {mine.not_valid_after_utc.date()}: make the certificate anew")
    return context
