"""A coordinator to test against: its folder, and its API served over TLS on loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from ahh_federated.coordinator.api import api
from ahh_federated.coordinator.home import CoordinatorHome, create_home, split_address
from ahh_federated.coordinator.queue import Queue
from ahh_federated.coordinator.roster import JOIN, Partner, Roster
from ahh_federated.identity import Key
from ahh_federated.study import canonical, open_study
from tests.study.samples import small

EXAMPLE = Path(__file__).parents[2] / "examples" / "child-overweight.toml"
OURS = ('consortium = "harbour"', 'consortium = "antwerp"')


def study(version: int = 1) -> bytes:
    """The small study, of this coordinator's consortium, as canonical JSON."""
    return canonical(small(OURS, ("version = 1", f"version = {version}")).content)


def example() -> bytes:
    return canonical(open_study(EXAMPLE).content)


def free_port() -> int:
    with closing(socket.socket()) as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@dataclass
class Desk:
    """An open coordinator, and who was admitted."""

    home: CoordinatorHome
    roster: Roster
    queue: Queue
    admitted: list[Partner] = field(default_factory=list)
    admit: Callable[[Partner], None] | None = None

    @property
    def app(self):
        return api(self.roster, self.queue, self.home, self.home.audit, self._admit)

    def _admit(self, partner: Partner) -> None:
        self.admitted.append(partner)
        if self.admit is not None:
            self.admit(partner)

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.home.audit.entries()]


@contextmanager
def desk(folder: Path, *, host: str = "localhost") -> Iterator[Desk]:
    home = create_home(folder / "coordinator", "antwerp", f"{host}:{free_port()}")
    with closing(Roster(home.database)) as roster, closing(Queue(home.database)) as queue:
        yield Desk(home, roster, queue)


def join_body(token: str, key: Key, **other: str) -> bytes:
    content = {"token": token, "public": key.public, "signature": key.sign(JOIN, token.encode()), **other}
    return json.dumps(content).encode()


@contextmanager
def serving(asked: Desk) -> Iterator[None]:
    """The API over TLS at the home's address, with the home's certificate as it is now."""
    home = asked.home
    _, port = split_address(home.address)
    files = {"ssl_certfile": str(home.certificate), "ssl_keyfile": str(home.key)}
    server = uvicorn.Server(uvicorn.Config(asked.app, "127.0.0.1", port, log_level="critical", lifespan="off", **files))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        assert server.started
        yield
    finally:
        server.should_exit = True
        thread.join(10)


def done(asked: Desk, digest: str, transcript: bytes) -> None:
    """Let a submitted study be done, with this transcript."""
    path = asked.home.transcript(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(transcript)
    assert asked.queue.set(digest, "done")
