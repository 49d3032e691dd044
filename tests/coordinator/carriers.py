"""What stands for the network in tests: a carrier to nodes in this process that loses, swaps and delays, and a clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

Node = Callable[[bytes], bytes | None]


@dataclass
class Clock:
    """Stands for the module `time`: sleeping costs nothing."""

    now: float = 1000.0
    during: Callable[[float], None] = lambda now: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.during(self.now)


class Turns(threading.Event):
    """Stands for the event that stops a service: set by itself after some turns, and waiting for it takes no time."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.left = turns

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.set()
        return self.is_set()


@dataclass
class Wire:
    """A carrier to nodes in this process.

    `fate` decides what becomes of the reply to the n-th call to a partner: the reply, other bytes, None for "no reply will
    come", or Ellipsis for one that has not come yet.
    """

    nodes: Mapping[str, Node]
    fate: Callable[[str, int, bytes | None], object] = lambda partner, number, reply: reply
    down: set[str] = field(default_factory=set)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    replies: dict[str, object] = field(default_factory=dict)

    def online(self) -> frozenset[str]:
        return frozenset(self.nodes) - self.down

    def send(self, partner: str, data: bytes) -> str:
        number = self.to(partner)
        self.sent.append((partner, data))
        ticket = str(len(self.sent))
        self.replies[ticket] = self.fate(partner, number, self.nodes[partner](data))
        return ticket

    def collect(self, tickets: Iterable[str]) -> dict[str, bytes | None]:
        return {ticket: self.replies[ticket] for ticket in tickets if self.replies[ticket] is not ...}

    def to(self, partner: str) -> int:
        """How many calls went to a partner."""
        return sum(name == partner for name, _ in self.sent)
