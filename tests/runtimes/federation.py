"""A coordinator's engine and nodes for tests, on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ahh_federated.identity import Key
from ahh_federated.runtimes.flower.superlink import SuperLink
from ahh_federated.runtimes.flower.supernode import Membership, serve
from tests.runtimes.certificates import Authority

PATIENCE = 60.0  # seconds; only a failing test waits as long


async def own_api(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"own " + scope["path"].encode()})


def open_link(authority: Authority, folder: Path, port: int = 0) -> SuperLink:
    return SuperLink.open(
        host="127.0.0.1",
        port=port,
        ca=authority.ca,
        certificate=authority.certificate,
        key=authority.key,
        database=folder / "flower.db",
        extra=own_api,
    )


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"still waiting for {what}"
        time.sleep(0.02)


def collect(carrier, tickets) -> dict[str, bytes | None]:
    """All replies of these tickets."""
    found: dict[str, bytes | None] = {}

    def whole() -> bool:
        found.update(carrier.collect([each for each in tickets if each not in found]))
        return set(found) == set(tickets)

    until(whole, "replies")
    return found


def ask(link: SuperLink, partners, data: bytes = b"hello") -> dict[str, bytes | None]:
    """One call to each partner, and what each answered."""
    answers: dict[str, bytes | None] = {}

    def work(carrier) -> None:
        tickets = {carrier.send(name, data): name for name in partners}
        answers.update({tickets[ticket]: reply for ticket, reply in collect(carrier, tickets).items()})

    link.run(work)
    return answers


@dataclass
class Node:
    """A node in a thread of this process; `memberships` may be changed while it runs."""

    answer: Callable[[str, bytes], bytes]
    memberships: list[Membership]
    told: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(
            target=serve, args=(lambda: list(self.memberships), self.answer, self.stop, self.told.append), daemon=True
        )
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


def key_of(folder: Path, name: str) -> Key:
    path = folder / f"{name}.key"
    return Key.load(path) if path.exists() else Key.create(path)


def membership(link_port: int, authority: Authority, folder: Path, name: str, consortium: str = "c") -> Membership:
    file = folder / f"{name}-{consortium}.node-id"
    return Membership(consortium, f"127.0.0.1:{link_port}", authority.ca.read_bytes(), key_of(folder, name).private, file)


def says_its_name(name: str) -> Callable[[str, bytes], bytes]:
    return lambda consortium, data: f"{name} in {consortium}: ".encode() + data


@contextmanager
def nodes(link: SuperLink, authority: Authority, folder: Path, **answers) -> Iterator[dict[str, Node]]:
    """Admitted nodes by name, online."""
    running = {}
    for name, answer in answers.items():
        link.admit(name, key_of(folder, name).public)
        running[name] = Node(answer or says_its_name(name), [membership(link.port, authority, folder, name)])
    try:
        until(lambda: link.online() >= set(answers), "nodes")
        yield running
    finally:
        for node in running.values():
            node.stop.set()
        for node in running.values():
            node.end()
