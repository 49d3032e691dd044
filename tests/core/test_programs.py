"""A program may take the steps it announced, in order, and no other: whatever the replies are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.analyses.counts import CellCounts, Counts
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.histograms import Histogram
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.analyses.moments import Moments, MomentSums
from ahh_federated.analyses.quantiles import Quantiles
from ahh_federated.analyses.scores import Scores
from ahh_federated.core.costs import Budget, Event, Spent, sigma_for
from ahh_federated.core.gate import price
from ahh_federated.core.noise import MAX_SIGMA, MIN_SIGMA
from ahh_federated.core.programs import Analysis, Line, Program, check_schedule, drive, numbers
from ahh_federated.core.queries import Local, Parameters, Query
from ahh_federated.core.releases import Answer, Release, Round, Status
from ahh_federated.core.sums import parts_of, step
from ahh_federated.errors import Breach
from tests.laws.registry import AGE, BMI, CASE, COMPLETE_CASES, INDICATORS, SEX, ZONE

COUNT, WIDER, MOMENTS = CellCounts((SEX,)), CellCounts((ZONE,)), MomentSums((AGE,))


@dataclass
class Steps:
    """A program that asks a list of queries and answers how many rounds it saw."""

    asks: Sequence[Query]
    lines: Sequence[Line]
    closed: list[bool] = field(default_factory=list)

    def schedule(self) -> Sequence[Line]:
        return self.lines

    def program(self) -> Program:
        rounds = 0
        try:
            for query in self.asks:
                yield query
                rounds += 1
        finally:
            self.closed.append(True)
        return rounds

    def query(self, kind: str, parameters: Parameters) -> Query:
        raise AssertionError("the coordinator's driver never rebuilds a query")


def line(query: Query, share: float = 0.3) -> Line:
    return Line(query.kind, query.width, share, price(query, 1.0).sensitivity)


def silent(number: int, line: Line, query: Query) -> Round:
    return Round(query, {})


def test_a_program_that_keeps_to_its_schedule_is_answered_in_order() -> None:
    seen: list[tuple[int, Line, Query]] = []

    def ask(number: int, line: Line, query: Query) -> Round:
        seen.append((number, line, query))
        return Round(query, {})

    lines = [line(COUNT), line(MOMENTS)]
    assert drive(Steps([COUNT, MOMENTS], lines), ask) == 2
    assert seen == [(0, lines[0], COUNT), (1, lines[1], MOMENTS)]


def test_a_program_may_stop_early() -> None:
    assert drive(Steps([COUNT], [line(COUNT), line(MOMENTS)]), silent) == 1
    assert drive(Steps([], [line(COUNT)]), silent) == 0


@pytest.mark.parametrize(
    ("asks", "lines", "asked"),
    [
        ([COUNT, COUNT], [line(COUNT)], 1),
        ([WIDER], [line(COUNT)], 0),
        ([MOMENTS], [line(COUNT)], 0),
        ([MOMENTS, COUNT], [line(COUNT), line(MOMENTS)], 0),
        ([COUNT, WIDER], [line(COUNT), line(MOMENTS)], 1),
        ([COUNT], [Line("count/1", COUNT.width, 0.3, 2**32)], 0),
        ([COUNT], [Line("count/2", COUNT.width, 0.3)], 0),
    ],
    ids=["more", "wider", "another kind", "another order", "another later", "another sensitivity", "another version"],
)
def test_a_program_off_its_schedule_is_a_breach_before_anything_is_asked(
    asks: list[Query], lines: list[Line], asked: int
) -> None:
    steps, seen = Steps(asks, lines), []

    def ask(number: int, line: Line, query: Query) -> Round:
        seen.append(number)
        return Round(query, {})

    with pytest.raises(Breach):
        drive(steps, ask)
    assert len(seen) == asked


def test_a_program_that_asks_on_is_closed() -> None:
    steps = Steps([COUNT, COUNT], [line(COUNT)])
    with pytest.raises(Breach, match="more than its 1"):
        drive(steps, silent)
    assert steps.closed == [True]


@pytest.mark.parametrize(
    "shares", [[], [0.0], [-0.1, 0.5], [0.6, 0.5], [1.0, 1e-6], [math.nan], [math.inf], [0.5, math.nan]], ids=str
)
def test_shares_that_do_not_add_up_are_a_breach(shares: list[float]) -> None:
    lines = [line(COUNT, share) for share in shares]
    with pytest.raises(Breach):
        check_schedule(lines)
    with pytest.raises(Breach):
        drive(Steps([COUNT], lines), silent)


def test_numbers_are_finite_and_as_many_as_asked() -> None:
    assert numbers({"a": [1.0, -0.0]}, "a", 2) == [1.0, 0.0]
    for bad in ({}, {"a": [1.0]}, {"a": [1.0, math.nan]}, {"a": [1.0, math.inf]}, {"a": [1, 2]}, {"a": (1.0, 2.0)}, {"a": None}):
        with pytest.raises(Breach, match="'a'"):
            numbers(bad, "a", 2)


ANALYSES: dict[str, Callable[[], Analysis]] = {
    "count of all": lambda: Counts(()),
    "count": lambda: Counts((SEX, ZONE)),
    "moments": lambda: Moments((AGE, BMI)),
    "histogram": lambda: Histogram(AGE, 20),
    "histogram of levels": lambda: Histogram(ZONE, 4),
    "quantiles": lambda: Quantiles(AGE, (0.05, 0.5, 0.95)),
    "logistic": lambda: Logistic(COMPLETE_CASES, CASE),
    "logistic with indicators": lambda: Logistic(INDICATORS, CASE),
    "logistic without scores": lambda: Logistic(Design((AGE,)), CASE, rounds=0),
    "logistic of many rounds": lambda: Logistic(Design((AGE, SEX)), CASE, rounds=5),
    "scores": lambda: Scores(Logistic(COMPLETE_CASES, CASE), (0.05, 0.2)).of(ordinary_fit()),
}


def ordinary_fit() -> Fit:
    rng = np.random.default_rng(1)

    def ask(number: int, line: Line, query: Query) -> Round:
        cells = rng.integers(-(2**24), 2**24, query.width)
        return Round(query, {"a": Release(cells, step(query), 2**24)})

    fit = drive(Logistic(COMPLETE_CASES, CASE), ask)
    assert isinstance(fit, Fit)
    return fit


@pytest.mark.parametrize("name", ANALYSES)
def test_a_schedule_is_public_positive_and_at_most_the_whole(name: str) -> None:
    analysis = ANALYSES[name]()
    lines = check_schedule(analysis.schedule())
    assert math.fsum(line.share for line in lines) <= 1.0 + 1e-12
    assert list(analysis.schedule()) == list(lines)


MODES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "zeros": lambda rng, width, sigma: np.zeros(width),
    "noise": lambda rng, width, sigma: np.round(rng.normal(0.0, sigma, width)),
    "much noise": lambda rng, width, sigma: np.round(rng.normal(0.0, 50 * sigma, width)),
    "anything": lambda rng, width, sigma: rng.integers(-(2**62), 2**62, width),
    "every size": lambda rng, width, sigma: np.round(2.0 ** rng.uniform(0, 62, width) * rng.choice([-1, 1], width)),
    "extremes": lambda rng, width, sigma: rng.choice(np.array([2**63 - 1, -(2**63), 0, 1, -1]), width),
    "largest": lambda rng, width, sigma: np.full(width, 2**63 - 1),
    "negative": lambda rng, width, sigma: -rng.integers(0, 2**40, width),
    "alike": lambda rng, width, sigma: np.full(width, 2 ** int(rng.integers(0, 62))),
    "one": lambda rng, width, sigma: np.where(np.arange(width) == rng.integers(width), 2**60, 0),
    "first": lambda rng, width, sigma: np.where(np.arange(width) == 0, 2 ** int(rng.integers(20, 60)), 0),
}


@dataclass
class Hostile:
    """Partners that reply with what they please, and may stop; one always answers."""

    analysis: Analysis
    modes: Iterator[str]
    rng: np.random.Generator
    mu: float
    asked: list[tuple[Line, Query]] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    partners: ClassVar[tuple[str, ...]] = ("a", "b", "c")

    def ask(self, number: int, line: Line, query: Query) -> Round:
        assert line == self.analysis.schedule()[number]
        self.asked.append((line, query))
        for partner in self.partners[1:]:
            if self.rng.random() < 0.1:
                self.left.add(partner)
        sigma = min(max(MIN_SIGMA, sigma_for(line.sensitivity, self.mu * line.share**0.5)), MAX_SIGMA)
        replies: dict[str, Answer | Status] = {}
        for partner in self.partners:
            cells = np.asarray(MODES[next(self.modes)](self.rng, query.width, sigma)).astype(np.int64)
            replies[partner] = Status.OFFLINE if partner in self.left else Release(cells, step(query), sigma)
        return Round(query, replies)


def cycled(modes: list[str]) -> Iterator[str]:
    while True:
        yield from modes


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ANALYSES)
@settings(max_examples=15, deadline=None)
@given(
    modes=st.lists(st.sampled_from(sorted(MODES)), min_size=1, max_size=6),
    seed=st.integers(0, 2**32 - 1),
    epsilon=st.sampled_from([0.01, 0.1, 1.0, 10.0]),
)
def test_spend_is_at_most_the_quote_and_no_reply_stops_a_program(name: str, modes: list[str], seed: int, epsilon: float) -> None:
    analysis, budget = ANALYSES[name](), Budget(epsilon, 1e-6)
    hostile = Hostile(analysis, cycled(modes), np.random.default_rng(seed), budget.mu)
    answer = drive(analysis, hostile.ask)
    assert isinstance(answer.to_json(), dict)
    quote = Spent.of(priced(budget, line) for line in analysis.schedule())
    spent = Spent()
    for line_, query in hostile.asked:
        assert line_.covers(query)
        paid = price(query, budget.mu * line_.share**0.5)
        assert paid == priced(budget, line_)
        spent = spent + paid
    assert spent.mu_squared <= quote.mu_squared <= budget.mu_squared
    assert spent.slack <= quote.slack


def priced(budget: Budget, line: Line) -> Event:
    return Event(line.sensitivity, sigma_for(line.sensitivity, budget.mu * line.share**0.5), line.width)


@pytest.mark.parametrize("name", ANALYSES)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), epsilon=st.sampled_from([0.01, 0.1, 1.0, 10.0]))
def test_what_a_program_asks_a_node_can_rebuild(name: str, seed: int, epsilon: float) -> None:
    """From noise alone, as a tiny budget or an empty cohort gives; and without a single warning."""
    analysis = ANALYSES[name]()
    noise = Hostile(analysis, cycled(["noise"]), np.random.default_rng(seed), Budget(epsilon, 1e-6).mu)
    drive(analysis, noise.ask).to_json()
    for line_, query in noise.asked:
        sent: Any = {name: [float(value) for value in values] for name, values in query.parameters().items()}
        rebuilt = analysis.query(query.kind, sent)
        assert line_.covers(rebuilt)
        assert rebuilt.parameters() == query.parameters()
        assert not isinstance(rebuilt, Local) and not isinstance(query, Local)
        assert [part.bound for part in parts_of(rebuilt)] == [part.bound for part in parts_of(query)]
