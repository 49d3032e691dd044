"""The ledger under every order of calls, from two openings of one file, against a list of what was paid."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.ledger import Ledger, Receipt

BUDGET = Budget(2.0, 1e-6)
CEILING = Budget(1.5, 1e-6)


def pay(ledger: Ledger, request: str, study: str, event: Event) -> Receipt:
    return ledger.debit(request=request, study=study, ask=request, query="count/1", event=event, ceiling=CEILING)


def refused(reason: Reason, act: Callable[[], object]) -> None:
    with pytest.raises(Refusal) as caught:
        act()
    assert caught.value.reason is reason


class Desk(RuleBasedStateMachine):
    """Two openings of one file, and what they should hold."""

    receipts: Bundle[tuple[int, Receipt]] = Bundle("receipts")
    sides = st.integers(0, 1)
    requests = st.sampled_from(["a", "b", "c", "d"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger"
        self.budget = BUDGET
        self.paid: list[tuple[str, Event]] = []
        self.debited: set[tuple[str, str, Event]] = set()
        self.released: dict[str, bytes] = {}
        self.sides_open = [self.reopened(), self.reopened()]

    def reopened(self) -> Ledger:
        return Ledger.open(self.path, dataset="children", budget=self.budget)

    def admits(self, study: str, event: Event) -> bool:
        whole = Spent.of(paid for _, paid in self.paid) + event
        own = Spent.of(paid for name, paid in self.paid if name == study) + event
        return whole.within(self.budget) and own.within(CEILING)

    @rule(
        target=receipts,
        side=sides,
        request=requests,
        study=st.sampled_from(["growth", "diet"]),
        power=st.integers(2, 4),
    )
    def debit(
        self, side: int, request: str, study: str, power: int
    ) -> tuple[int, Receipt] | MultipleResults[tuple[int, Receipt]]:
        event = Event(1 << 20, 1 << (20 + power), 1)
        act = partial(pay, self.sides_open[side], request, study, event)
        if request in self.released:
            refused(Reason.LEDGER, act)
        elif (request, study, event) in self.debited:
            return side, act()
        elif not self.admits(study, event):
            refused(Reason.BUDGET, act)
        else:
            receipt = act()
            self.paid.append((study, event))
            self.debited.add((request, study, event))
            return side, receipt
        return multiple()

    @rule(side=sides, held=consumes(receipts), released=st.binary(max_size=8))
    def store(self, side: int, held: tuple[int, Receipt], released: bytes) -> None:
        act = partial(self.sides_open[side].store, held[1], released)
        if held[1].request in self.released:
            refused(Reason.LEDGER, act)
        else:
            act()
            self.released[held[1].request] = released

    @rule(held=consumes(receipts))
    def crash(self, held: tuple[int, Receipt]) -> None:
        self.sides_open[held[0]].close()
        self.sides_open[held[0]] = self.reopened()

    @rule(budget=st.sampled_from([BUDGET, Budget(4.0, 1e-6)]), side=sides)
    def decide(self, budget: Budget, side: int) -> None:
        self.budget = budget
        self.sides_open[side].close()
        self.sides_open[side] = self.reopened()

    @rule(side=sides, request=requests)
    def recall(self, side: int, request: str) -> None:
        assert self.sides_open[side].recall(request) == self.released.get(request)

    @rule(side=sides)
    def verify(self, side: int) -> None:
        assert self.sides_open[side].verify().ok

    @invariant()
    def both_sides_see_what_was_paid(self) -> None:
        for ledger in self.sides_open:
            assert ledger.spent() == Spent.of(event for _, event in self.paid)
            assert ledger.spent("diet") == Spent.of(event for study, event in self.paid if study == "diet")

    def teardown(self) -> None:
        for ledger in self.sides_open:
            ledger.close()
        self.folder.cleanup()


TestDesk = Desk.TestCase
TestDesk.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
