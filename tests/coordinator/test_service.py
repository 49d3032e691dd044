"""The coordinator at work over real nodes in this process: stewards are awaited, and one study's faults are not another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.coordinator import service as service_module
from ahh_federated.coordinator.queue import Queue, State
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.core.releases import Status
from ahh_federated.errors import Unreachable
from ahh_federated.node.stewardship import decide
from tests.coordinator.carriers import Clock
from tests.coordinator.services import NAMES, NEWER, STEPS, Coordinator, Nodes, approved, replayed, three_nodes, timeless
from tests.node.nodes import STUDY
from tests.study.samples import QUIET, TODAY, small


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
