"""The coordinator at work over real nodes in this process: stewards are awaited, and no crash asks a ledger twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.coordinator import post as post_module
from ahh_federated.coordinator import service as service_module
from ahh_federated.coordinator.home import CoordinatorHome, create_home
from ahh_federated.coordinator.post import Carrier
from ahh_federated.coordinator.queue import Queue, Queued, State
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.service import Service
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import Recorder, read_transcript
from ahh_federated.coordinator.witness import Witness
from ahh_federated.core.releases import Status
from ahh_federated.errands import ASK, Call
from ahh_federated.errors import Unreachable
from ahh_federated.node.home import NodeHome
from ahh_federated.node.reception import Reception
from ahh_federated.node.stewardship import decide
from ahh_federated.runtimes.replay import ReplayLink
from ahh_federated.study import Study
from tests.coordinator.carriers import Clock, Turns, Wire
from tests.node.nodes import CONSORTIUM, STUDY, approve, node, reception, spelled, spent
from tests.study.samples import QUIET, TODAY, rows, small

NAMES = ("east", "north", "south")
STEPS = sum(len(ask.analysis.schedule()) for ask in STUDY.asks)
NEWER = small(*QUIET, ("version = 1", "version = 2"), ("share = 0.5", "share = 0.4"))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
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


@pytest.fixture
def nodes(tmp_path: Path) -> Iterable[Nodes]:
    homes = {name: node(tmp_path, name, rows(300, seed)) for seed, name in enumerate(NAMES)}
    made = Nodes(homes, {name: reception(home) for name, home in homes.items()})
    yield made
    for each in made.receptions.values():
        each.close()


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


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


@pytest.fixture
def coordinator(tmp_path: Path, nodes: Nodes) -> Coordinator:
    return Coordinator.make(tmp_path / "coordinator", nodes)


def approved(nodes: Nodes, *names: str, study: Study = STUDY) -> None:
    for name in names or NAMES:
        approve(nodes.homes[name], study)


def replayed(path: Path) -> list[Status]:
    """How each ask came out, recomputed from a transcript alone."""
    header, exchanges, _ = read_transcript(path)
    link = ReplayLink(header, exchanges)
    return [each.status for each in Session(header.study, link, lambda exchange: None, Silent(), strict=True).outcomes()]


def test_a_study_that_all_have_approved_is_run(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    coordinator.submit()
    coordinator.serve()
    assert coordinator.state().state is State.DONE
    assert nodes.counts() == [(STEPS, STEPS)] * 3
    assert len(coordinator.asked()) == 3 * STEPS
    header, exchanges, spending = read_transcript(coordinator.home.transcript(STUDY.digest))
    assert (header.partners, header.stamp, len(exchanges), sorted(spending)) == (NAMES, "", STEPS, sorted(NAMES))
    assert all(0 < each.epsilon <= each.epsilon_limit for each in spending.values())
    assert replayed(coordinator.home.transcript(STUDY.digest)) == [Status.RELEASED] * len(STUDY.asks)


def test_the_stewards_are_awaited(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes, "east")
    coordinator.submit()
    coordinator.serve(3)
    assert coordinator.state().state is State.WAITING
    assert coordinator.state().progress["partners"] == {"east": "approved", "north": "pending", "south": "pending"}
    assert not coordinator.home.transcript(STUDY.digest).exists()
    approved(nodes, "north")
    coordinator.serve(3)
    assert coordinator.state().reason == "2 of 3 partners have approved, the study needs 2"
    assert coordinator.asked() == []
    nodes.homes["south"].pause()
    approved(nodes, "south")
    coordinator.serve(3)
    assert coordinator.state().progress["partners"]["south"] == "pending: paused"
    nodes.homes["south"].resume()
    coordinator.serve()
    assert coordinator.state().state is State.DONE
    assert nodes.counts() == [(STEPS, STEPS)] * 3


def test_a_study_runs_with_those_that_approved_when_all_have_decided(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    decide(nodes.homes["south"], STUDY.digest, "refused", by="the steward", today=TODAY)
    coordinator.submit()
    coordinator.serve()
    assert coordinator.state().state is State.DONE
    header, exchanges, _ = read_transcript(coordinator.home.transcript(STUDY.digest))
    assert header.partners == ("east", "north", "south")
    said = {(each.replies["south"].status, each.replies["south"].reason) for each in exchanges if "south" in each.replies}
    assert said == {(Status.REFUSED, "approval")}
    assert nodes.counts() == [(STEPS, STEPS)] * 2 + [(0, 0)]


def test_too_few_approvals_end_a_study(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    for name in ("north", "south"):
        decide(nodes.homes[name], STUDY.digest, "refused", by="the steward", today=TODAY)
    coordinator.submit()
    coordinator.serve()
    reason = "1 of 3 partners have approved, the study needs 2; 2 refused: approval"
    assert (coordinator.state().state, coordinator.state().reason) == (State.FAILED, reason)
    assert nodes.counts() == [(0, 0)] * 3


@pytest.mark.parametrize("enough", [True, False])
def test_when_the_time_for_approvals_is_over_those_who_did_not_decide_are_out(
    coordinator: Coordinator, nodes: Nodes, enough: bool
) -> None:
    hurried = small(
        *QUIET, ("version = 1", "version = 2"), ("minimum_partners = 2", "minimum_partners = 2\napproval_hours = 1e-9")
    )
    approved(nodes, *(("east", "south") if enough else ("south",)), study=hurried)
    coordinator.submit(hurried)
    coordinator.serve()
    assert coordinator.state(hurried).state is (State.DONE if enough else State.FAILED)
    assert nodes.counts()[1] == (0, 0)


def test_a_study_that_expired_while_it_waited_has_failed(
    coordinator: Coordinator, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2031, 1, 1, tzinfo=tz)

    coordinator.submit()
    approved(nodes)
    monkeypatch.setattr(service_module, "datetime", Later)
    coordinator.serve()
    assert (coordinator.state().state, coordinator.state().reason) == (State.FAILED, "the study expired on 2030-12-31")
    assert coordinator.wire.sent == []


def test_a_study_that_is_cancelled_while_it_runs_asks_nothing_more_and_can_go_on(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    coordinator.submit()

    def cancel(partner: str, number: int, reply: bytes | None) -> object:
        if len(coordinator.asked()) == 7:  # the third of three partners has not been asked yet
            with closing(Queue(coordinator.home.database)) as queue:
                assert queue.cancel(STUDY.digest)
        return reply

    coordinator.wire.fate = cancel
    coordinator.serve(3)
    assert coordinator.state().state is State.CANCELLED
    assert len(coordinator.asked()) <= 9
    assert nodes.counts() == [(3, 3)] * 3
    coordinator.wire.fate = lambda partner, number, reply: reply
    coordinator.submit()
    coordinator.serve()
    assert coordinator.state().state is State.DONE
    assert nodes.counts() == [(STEPS, STEPS)] * 3


def test_a_partner_that_goes_away_does_not_stall_the_others(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    coordinator.submit()

    def leave(partner: str, number: int, reply: bytes | None) -> object:
        if len(coordinator.asked()) == 6:
            coordinator.wire.down.add("south")
        return reply

    coordinator.wire.fate = leave
    coordinator.serve()
    assert coordinator.state().state is State.DONE
    counts = nodes.counts()
    assert counts[:2] == [(STEPS, STEPS)] * 2
    assert counts[2] == (2, 2)
    assert replayed(coordinator.home.transcript(STUDY.digest)) == [Status.RELEASED] * len(STUDY.asks)


def test_a_fault_of_the_software_fails_one_study_and_says_no_more_than_its_kind(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes, study=NEWER)
    approved(nodes)
    coordinator.submit()
    coordinator.submit(NEWER)

    def break_once(partner: str, number: int, reply: bytes | None) -> object:
        if len(coordinator.asked()) == 5:
            raise RuntimeError("secret words")
        return reply

    coordinator.wire.fate = break_once
    coordinator.serve()
    assert coordinator.state().state is State.FAILED
    assert "RuntimeError" in coordinator.state().reason
    assert "secret" not in coordinator.state().reason
    assert "secret" not in (coordinator.home.path / "audit.jsonl").read_text()
    assert coordinator.state(NEWER).state is not State.RUNNING


@pytest.mark.parametrize("fault", [OSError("no space left"), Unreachable("the database is locked")], ids=str)
def test_a_fault_of_the_machine_is_not_the_studys(
    coordinator: Coordinator, nodes: Nodes, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes, the study is tried again later without a restart, and no ledger pays twice."""
    approved(nodes)
    coordinator.submit()
    struck: list[int] = []

    def strike(partner: str, number: int, reply: bytes | None) -> object:
        calls = len(coordinator.wire.sent)
        if calls in (2, 9, 20) and calls not in struck:
            struck.append(calls)
            raise fault
        return reply

    monkeypatch.setattr(service_module, "_LONGEST", 0.0)
    coordinator.wire.fate = strike
    coordinator.serve()
    assert struck == [2, 9, 20]
    assert coordinator.told.count(f"growth: {fault}; trying again") == 3
    assert coordinator.state().state is State.DONE
    assert nodes.counts() == [(STEPS, STEPS)] * 3
    assert replayed(coordinator.home.transcript(STUDY.digest)) == [Status.RELEASED] * len(STUDY.asks)


def test_it_is_not_tried_again_at_once(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    coordinator.submit()

    def strike(partner: str, number: int, reply: bytes | None) -> object:
        raise OSError("no space left")

    coordinator.wire.fate = strike
    coordinator.serve(10)
    assert (coordinator.state().state, len(coordinator.wire.sent)) == (State.QUEUED, 1)


def test_a_study_nobody_could_decide_on_ends(tmp_path: Path) -> None:
    hurried = small(
        *QUIET, ("version = 1", "version = 2"), ("minimum_partners = 2", "minimum_partners = 2\napproval_hours = 1e-9")
    )
    lonely = Coordinator.make(tmp_path / "lonely", Nodes({}, {}))
    lonely.submit()
    lonely.submit(hurried)
    lonely.serve(3)
    assert lonely.state().state is State.WAITING
    found = lonely.state(hurried)
    assert (found.state, found.reason) == (State.FAILED, "0 of 0 partners have approved, the study needs 2")


def test_two_studies_are_run_in_the_order_they_came(coordinator: Coordinator, nodes: Nodes) -> None:
    for study in (STUDY, NEWER):
        approved(nodes, study=study)
        coordinator.submit(study)
    coordinator.serve()
    assert [coordinator.state(study).state for study in (STUDY, NEWER)] == [State.DONE] * 2
    order = [line.split("(")[1][:12] for line in coordinator.told if "done" in line]
    assert order == [STUDY.digest[:12], NEWER.digest[:12]]
    studies = [json.loads(body)["study"] for _, body in coordinator.asked()]
    assert studies == sorted(studies, key=[STUDY.digest, NEWER.digest].index)


class Deadly:
    """Kills the service at its n-th step: before or after a call is sent, or a line recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, coordinator: Coordinator) -> None:
        self.left = -1
        self.steps = 0
        write = Recorder._write

        def written(recorder: Recorder, line: str) -> None:
            self.strike()
            write(recorder, line)
            self.strike()

        monkeypatch.setattr(Recorder, "_write", written)
        send = coordinator.wire.send

        def sent(partner: str, data: bytes) -> str:
            self.strike()
            ticket = send(partner, data)
            self.strike()
            return ticket

        monkeypatch.setattr(coordinator.wire, "send", sent)

    def strike(self) -> None:
        self.steps += 1
        self.left -= 1
        if self.left == 0:
            raise Killed


def test_killed_at_every_step_it_goes_on_and_no_ledger_is_asked_twice(
    coordinator: Coordinator, nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(nodes)
    coordinator.submit()
    deadly, kills = Deadly(monkeypatch, coordinator), 0
    for _ in range(200):
        deadly.left = 1 + kills % 9  # an exchange is eight steps
        try:
            coordinator.serve()
            break
        except Killed:
            kills += 1
    deadly.left = -1
    assert kills >= STEPS
    assert coordinator.state().state is State.DONE
    assert nodes.counts() == [(STEPS, STEPS)] * 3
    assert replayed(coordinator.home.transcript(STUDY.digest)) == [Status.RELEASED] * len(STUDY.asks)

    again = Coordinator.make(tmp_path / "again", nodes)
    again.submit()
    again.serve()
    assert again.transcript() == coordinator.transcript()
    assert nodes.counts() == [(STEPS, STEPS)] * 3


def test_a_transcript_cut_anywhere_is_finished_the_same(coordinator: Coordinator, nodes: Nodes, tmp_path: Path) -> None:
    approved(nodes)
    coordinator.submit()
    coordinator.serve()
    whole = coordinator.transcript()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    cuts = [0, 1, ends[0] - 1, ends[0], ends[0] + 9, ends[4] - 1, ends[4], ends[-2] - 2, ends[-2], ends[-2] + 5, len(whole)]
    for number, cut in enumerate(cuts):
        again = Coordinator.make(tmp_path / f"again{number}", nodes)
        again.submit()
        path = again.home.transcript(STUDY.digest)
        path.parent.mkdir(parents=True)
        path.write_bytes(whole[:cut])
        again.serve()
        assert again.state().state is State.DONE
        same = again.transcript().splitlines()
        assert same[:-1] == whole.splitlines()[:-1]
        assert not again.asked() or same == whole.splitlines()  # one that asks nothing has no checkpoint to quote
        recorded = whole[:cut].count(b"\n") - 1
        assert len(again.asked()) == 3 * (STEPS - max(0, min(recorded, STEPS)))
    assert nodes.counts() == [(STEPS, STEPS)] * 3


def test_a_transcript_that_was_changed_is_not_gone_on_with(coordinator: Coordinator, nodes: Nodes, tmp_path: Path) -> None:
    approved(nodes)
    coordinator.submit()
    coordinator.serve()
    whole = coordinator.transcript()
    changes = [
        whole.replace(b'"partners":["east",', b'"partners":["west",', 1),
        whole.replace(b'"step":0', b'"step":1', 1),
        whole.replace(b"{", b"[", 1),
        whole.replace(STUDY.digest.encode(), b"0" * 64, 1),
    ]
    for number, changed in enumerate(changes):
        assert changed != whole
        again = Coordinator.make(tmp_path / f"again{number}", nodes)
        again.submit()
        path = again.home.transcript(STUDY.digest)
        path.parent.mkdir(parents=True)
        path.write_bytes(changed)
        again.serve()
        assert (number, again.state().state) == (number, State.FAILED)
    assert nodes.counts() == [(STEPS, STEPS)] * 3


def test_a_stopped_service_leaves_its_study_to_the_next(coordinator: Coordinator, nodes: Nodes) -> None:
    approved(nodes)
    coordinator.submit()
    coordinator.serve(until=lambda line: "running" in line)
    assert coordinator.state().state is State.RUNNING
    assert coordinator.asked() == []
    coordinator.serve()
    assert coordinator.state().state is State.DONE
