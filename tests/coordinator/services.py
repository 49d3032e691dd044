"""A coordinator's service over three real nodes in this process: shared by the tests of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.coordinator import post as post_module
from ahh_federated.coordinator import service as service_module
from ahh_federated.coordinator.home import CoordinatorHome, create_home
from ahh_federated.coordinator.post import Carrier
from ahh_federated.coordinator.queue import Queue, Queued
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.service import Service
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.coordinator.witness import Witness
from ahh_federated.core.releases import Status
from ahh_federated.errands import ASK, Call
from ahh_federated.node.home import NodeHome
from ahh_federated.node.reception import Reception
from ahh_federated.runtimes.replay import ReplayLink
from ahh_federated.study import Study
from tests.coordinator.carriers import Clock, Turns, Wire
from tests.node.nodes import CONSORTIUM, STUDY, approve, node, reception, spelled, spent
from tests.study.samples import QUIET, rows, small

NAMES = ("east", "north", "south")
STEPS = sum(len(ask.analysis.schedule()) for ask in STUDY.asks)
NEWER = small(*QUIET, ("version = 1", "version = 2"), ("share = 0.5", "share = 0.4"))


def timeless(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Waiting costs no time, and a study is tried again at once."""
    made = Clock()
    for module in (post_module, service_module):
        monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(service_module, "_FIRST", 0.0)
    return made


@dataclass
class Nodes:
    """Three partners, and the receptions that answer for them."""

    homes: dict[str, NodeHome]
    receptions: dict[str, Reception]

    def wire(self, **other: Any) -> Wire:
        def answering(name: str) -> Callable[[bytes], bytes]:
            return lambda data: self.receptions[name].answer(CONSORTIUM, data)

        return Wire({name: answering(name) for name in NAMES}, **other)

    def counts(self) -> list[tuple[int, int]]:
        """Debits and releases in each ledger."""
        return [spent(home)[1:] for home in self.homes.values()]


@contextmanager
def three_nodes(folder: Path) -> Iterator[Nodes]:
    homes = {name: node(folder, name, rows(300, seed)) for seed, name in enumerate(NAMES)}
    made = Nodes(homes, {name: reception(home) for name, home in homes.items()})
    try:
        yield made
    finally:
        for each in made.receptions.values():
            each.close()


@dataclass
class Coordinator:
    """A coordinator's folder, and services over it that can be killed and started again."""

    home: CoordinatorHome
    wire: Wire
    told: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, path: Path, nodes: Nodes) -> Coordinator:
        home = create_home(path, CONSORTIUM, "localhost:8443")
        with closing(Roster(home.database)) as roster:
            for name, each in nodes.homes.items():
                roster.enrol(roster.invite(name), each.key.public)
        return cls(home, nodes.wire())

    def run(self, work: Callable[[Carrier], None]) -> None:
        work(self.wire)

    def submit(self, study: Study = STUDY) -> None:
        with closing(Queue(self.home.database)) as queue:
            queue.submit(spelled(study), "a researcher")

    def serve(self, turns: int = 20, until: Callable[[str], bool] = lambda line: False) -> None:
        """Until every study is over, a line is told, or the service has looked at its queue so often."""
        stop, home = Turns(turns), self.home
        with (
            closing(Roster(home.database)) as roster,
            closing(Queue(home.database)) as queue,
            closing(Witness(home.database)) as kept,
        ):

            def tell(line: str) -> None:
                self.told.append(line)
                if until(line) or all(each.state.over for each in queue.studies()):
                    stop.set()

            Service(home, roster, queue, kept, self, tell, stop).serve()

    def state(self, study: Study = STUDY) -> Queued:
        with closing(Queue(self.home.database)) as queue:
            found = queue.get(study.digest)
        assert found is not None
        return found

    def transcript(self, study: Study = STUDY) -> bytes:
        return self.home.transcript(study.digest).read_bytes()

    def asked(self) -> list[tuple[str, bytes]]:
        """The requests that went out, in order."""
        calls = ((name, Call.from_bytes(data)) for name, data in self.wire.sent)
        return [(name, call.body) for name, call in calls if call.action == ASK]


def approved(nodes: Nodes, *names: str, study: Study = STUDY) -> None:
    for name in names or NAMES:
        approve(nodes.homes[name], study)


def replayed(path: Path) -> list[Status]:
    """How each ask came out, recomputed from a transcript alone."""
    header, exchanges, _ = read_transcript(path)
    link = ReplayLink(header, exchanges)
    return [each.status for each in Session(header.study, link, lambda exchange: None, Silent(), strict=True).outcomes()]
