"""A service that was killed or stopped goes on where its transcript ends, and no crash asks a ledger twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ahh_federated.coordinator.queue import State
from ahh_federated.coordinator.transcript import Recorder
from ahh_federated.core.releases import Status
from tests.coordinator.carriers import Clock
from tests.coordinator.services import STEPS, Coordinator, Nodes, approved, replayed, three_nodes, timeless
from tests.node.nodes import STUDY


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return timeless(monkeypatch)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with three_nodes(tmp_path) as made:
        yield made


@pytest.fixture
def coordinator(tmp_path: Path, nodes: Nodes) -> Coordinator:
    return Coordinator.make(tmp_path / "coordinator", nodes)


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


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
