"""What nobody may gain, and nothing may spoil, where several sums travel in one message."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from ahh_federated.analyses import glm, opening, rounds
from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.gaussian import CrossSums
from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import Exchange, Header
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Numeric
from ahh_federated.core.costs import Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, price, release
from ahh_federated.core.noise import MAX_SIGMA
from ahh_federated.core.queries import Parameters, Query, Stack
from ahh_federated.core.releases import Release, Status
from ahh_federated.core.sums import integer_sum, sensitivity
from ahh_federated.errors import Breach
from ahh_federated.runtimes.local import LocalLink
from ahh_federated.wire import Reply, Request
from tests.analyses.drivers import OpenBooks
from tests.laws.cohorts import plausible_cohort
from tests.laws.registry import BMI, CASE, CURVED, INDICATORS, SEX, scale
from tests.study.samples import QUIET, TODAY, answer, cohort, debits, desk, fitting, request, small

STUDY = small(*QUIET)
NAMES = ("east", "north", "south")


class Counting(OpenBooks):
    """Counts what was paid."""

    paid = 0

    def debit(self, **entry: Any) -> None:
        self.paid += 1


def released(query: Query, held: Cohort, event: Event, books: Counting) -> Release:
    order = Order("request", "study", "ask:0", event, Budget(1.0, 1e-6))
    return release(query, held, where=None, order=order, books=books, entropy=Entropy.seeded(1))


def shipped(outcome: Column) -> tuple[Stack, Stack]:
    """Both stacks of a model of this outcome, on every form of feature."""
    design = CURVED if outcome is CASE else INDICATORS
    shared = (design, outcome, scale(design, np.random.default_rng(2)))
    sums = CrossSums(*shared, 0.2, 0.4, 4.0) if isinstance(outcome, Numeric) else glm.ClassSums(*shared)
    return opening.opening(design, outcome), rounds.second(sums)


@dataclass(frozen=True)
class Made:
    """A sum whose patients all contribute the same row, which may not have the width that it says."""

    width: int
    row: tuple[float, ...]
    bound: float = 1.0
    kind: ClassVar[str] = "made/1"

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def rows(self, held: Cohort) -> F64:
        return np.tile(self.row, (len(held), 1))


@dataclass(frozen=True)
class MadeSquare:
    """The square of one for every patient."""

    width: int = 1
    bound: float = 1.0
    kind: ClassVar[str] = "made-square/1"

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def factors(self, held: Cohort) -> F64:
        return np.ones((len(held), 1))


@dataclass(frozen=True)
class MadeLocal:
    """A local program that asks for a stack at step `at`, for a fair sum otherwise."""

    at: int
    steps: int = 3
    width: int = 2
    bound: float = 1.0
    kind: ClassVar[str] = "made-local/1"

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def start(self) -> F64:
        return np.zeros(1)

    def query(self, state: F64) -> Any:
        fair = Made(2, (1.0, 0.0))
        return Stack((Made(1, (1.0,)), Made(1, (1.0,))), (8192, 8192)) if state[0] == self.at else fair

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        return state + 1.0

    def result(self, state: F64) -> F64:
        return np.full(2, state[0])


# The bound


def test_a_multiplier_of_another_type_does_not_make_a_patient_cheaper() -> None:
    """Fixed-width integers wrap where the sensitivity squares them: 2**20 instead of 2**45."""
    with pytest.raises(ValueError, match="multiplier"):
        Stack((MadeSquare(), CellCounts((SEX,))), tuple(np.array([8192, 1])))


@pytest.mark.parametrize("outcome", [CASE, BMI], ids=["class sums", "cross sums"])
def test_an_extreme_patient_moves_a_stack_by_no_more_than_any_other(outcome: Column) -> None:
    held = plausible_cohort(40, 3)
    for query in shipped(outcome):
        whole = integer_sum(query, held)
        for value in (1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, 2.0**63):
            columns = {name: np.append(values, value) for name, values in held.columns.items()}
            moved = [int(a) - int(b) for a, b in zip(integer_sum(query, Cohort.of(columns)), whole, strict=True)]
            assert sum(each**2 for each in moved) <= sensitivity(query) ** 2


# Fixed-width integers


def test_a_stack_that_a_large_cohort_would_wrap_has_no_price() -> None:
    """A square has 2**32 steps, so that 2**18 patients times 2**13 are 2**63."""
    with pytest.raises(ValueError, match="passes 2"):
        price(Stack((MadeSquare(), Made(1, (1.0,))), (8192, 1)), 0.5)


@pytest.mark.parametrize("outcome", [CASE, BMI], ids=["class sums", "cross sums"])
def test_a_thousand_million_patients_and_the_largest_noise_fit_into_what_is_sent(outcome: Column) -> None:
    for query in shipped(outcome):
        for part, multiplier in zip(query.parts, query.multipliers, strict=True):
            assert (multiplier * sensitivity(part) << 30) + 13 * MAX_SIGMA + 1 < 1 << 63


# The gate


WRONG_WIDTHS: dict[str, Query] = {
    "one number in every cell": Made(4, (1.0,)),  # moves the sum by twice its sensitivity
    "parts whose errors cancel": Stack((Made(2, (1.0, 0.0, 0.0)), Made(2, (1.0,))), (1, 1)),  # told as each other's
    "too many numbers": Made(2, (1.0, 0.0, 0.0)),  # fails after the debit, and only if there is a patient
}


@pytest.mark.parametrize("what", WRONG_WIDTHS)
def test_a_row_of_another_width_than_was_paid_is_refused_before_it_is_paid(what: str) -> None:
    """The rehearsal computes with made-up patients, and does not look at how many numbers come out."""
    query, books = WRONG_WIDTHS[what], Counting()
    with pytest.raises(Breach):
        released(query, Cohort.of({}, 5), price(query, 0.5), books)
    assert books.paid == 0


def test_a_stack_is_not_paid_by_one_of_its_parts_or_at_other_multipliers() -> None:
    query, held = shipped(CASE)[1], plausible_cohort(20, 1)
    cheaper = dataclasses.replace(query, multipliers=(1, 1))
    for event in (price(query.parts[0], 0.5), price(query.parts[1], 0.5), price(cheaper, 0.5)):
        books = Counting()
        with pytest.raises(Breach, match="not its own"):
            released(query, held, event, books)
        assert books.paid == 0


@pytest.mark.parametrize(("at", "paid"), [(0, 0), (2, 1)])
def test_a_local_program_cannot_ask_for_a_stack(at: int, paid: int) -> None:
    """Its sums have another sensitivity.  At the first step nothing is paid; later what leaves is zeros."""
    program, books = MadeLocal(at), Counting()
    event = Event(1 << 20, 1 << 24, 2, "poisson-discrete-gaussian/1", 1 << 17, 3, 0, 3)
    if paid:
        assert not released(program, Cohort.of({}, 50), event, books).cells.any()
    else:
        with pytest.raises(Breach):
            released(program, Cohort.of({}, 50), event, books)
    assert books.paid == paid


# Requests


@pytest.mark.parametrize("step", [0, 1])
def test_a_coordinator_can_ask_for_the_announced_stack_alone(step: int) -> None:
    asked = desk(STUDY)
    first, second = STUDY.ask("model").analysis.schedule()[step].kind.split("+")
    for kind in (first, second, f"{second}+{first}", f"{first}+{first}", f"{first}+{second}+{second}", f"{first}+"):
        sent = request(STUDY, "model", step, fitting(STUDY, "model", step), kind=kind)
        assert answer(asked, sent).status is Status.REFUSED
    assert debits(asked.ledger) == 0


def test_below_the_threshold_no_part_of_a_stack_is_told() -> None:
    asked = desk(STUDY, minimum=100_000)
    for _ in range(2):
        reply = answer(asked, request(STUDY, "model"))
        assert (reply.status, reply.cells, reply.exact, reply.sigma) == (Status.BELOW, None, None, 0)
    assert debits(asked.ledger) == 1


# Replies

Change = Callable[[Reply], Reply]


@dataclass
class Lying:
    """Desks of which one has its first message of the model changed."""

    change: Change
    link: LocalLink = field(init=False)

    def __post_init__(self) -> None:
        held = cohort(STUDY, 400)
        self.link = LocalLink({name: desk(STUDY, held, seed=3, run="+seed3", name=name, minimum=1) for name in NAMES}, TODAY)

    @property
    def partners(self) -> tuple[str, ...]:
        return self.link.partners

    def exchange(self, sent: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        replies = dict(self.link.exchange(sent, partners))
        if (sent.ask, sent.step) == ("model", 0):
            replies["north"] = self.change(replies["north"])
        return replies


NOTHING_RELEASED: dict[str, Change] = {
    "half a number": lambda reply: dataclasses.replace(reply, status=Status.BELOW, cells=b"1234"),
    "numbers of a noise of its own": lambda reply: dataclasses.replace(reply, status=Status.BELOW, sigma=1),
    "an exact sum of no width": lambda reply: Reply(reply.request, Status.BELOW, exact=np.zeros(0)),
    "an exact sum that is none": lambda reply: Reply(reply.request, Status.BELOW, exact=np.full(9, math.inf)),
}


@pytest.mark.parametrize("what", NOTHING_RELEASED)
def test_what_comes_beside_a_status_that_releases_nothing_is_not_in_the_results(what: str) -> None:
    """One partner would end everybody's results, or be in them with numbers that nobody checked."""
    link, recorded = Lying(NOTHING_RELEASED[what]), list[Exchange]()
    found = Session(STUDY, link, recorded.append, Silent(), "+seed3").outcomes()
    results = Results(Header(STUDY, NAMES, "+seed3", False), found, recorded, {}, "test").to_json()
    model = json.loads(json.dumps(next(ask for ask in results["asks"] if ask["id"] == "model"), allow_nan=False))
    assert model["coverage"]["north"] != str(Status.RELEASED)
    assert model["patients"]["north"]["value"] is None
