"""An attacker audits the true gate: many runs with and without one patient, everything else known to the attacker.

The claim comes from the ledger alone: the events debited in a run, priced at DELTA.  The attack is the best one there
is, a threshold on the likelihood ratio, fixed beforehand.  With P1 and P0 its chance with and without the patient,
(epsilon, delta)-DP demands P1 <= e**epsilon P0 + delta; Clopper-Pearson bounds on both turn counts into a lower bound
on epsilon (Jagielski, Ullman & Oprea, "Auditing differentially private machine learning", NeurIPS 2020).  A verdict
has a chance below 1e-6 of a false alarm, and all draws are seeded besides.  The auditor must also have teeth: it has
to catch noise halved, a clip forgotten and a debit forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from ahh_federated.analyses import glm
from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.core import gate, sums
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import Filter
from ahh_federated.core.gate import Order, price
from ahh_federated.core.noise import discrete_gaussian
from ahh_federated.core.queries import Query, Rows
from ahh_federated.core.releases import Release
from ahh_federated.core.sums import integer_sum, sensitivity

DELTA = 0.3  # large, where few runs tell most; a claim holds at every delta
LEVEL = 1e-7  # of one Clopper-Pearson bound; four to a verdict
RUNS = 1500
CUT = 1.6  # standard deviations of the attacker's statistic

AGE = Numeric("age", 0.0, 18.0, "years")
SEX = Levels("sex", ("boy", "girl"))
CASE = Levels("case", ("no", "yes"))
COUNT = CellCounts((SEX,))
DESIGN = Design((AGE, SEX))
SCALE = Scale((0.0, 0.5), (0.5, 0.5), math.sqrt(3))
SCORE = glm.Score(DESIGN, CASE, SCALE, (-4.0, -4.0, -2.0))
GRAM = glm.Gram(DESIGN, CASE, SCALE)


@dataclass
class Books:
    """A ledger in memory that admits everything."""

    events: list[Event] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    def recall(self, request: str) -> bytes | None:
        return None

    def debit(self, *, request: str, event: Event, **about: Any) -> str:
        self.events.append(event)
        return request

    def store(self, receipt: str, released: bytes) -> None:
        self.released.append(receipt)


@dataclass(frozen=True)
class Case:
    """Releases about a cohort in which the target is the last patient."""

    queries: Sequence[Query]
    target: dict[str, float]
    mu: float = 2.0

    def cohort(self, present: bool) -> Cohort:
        others = {"age": [3.0, 8.0, 16.0], "sex": [0.0, 1.0, 1.0], "case": [0.0, 1.0, 0.0]}
        return Cohort.of({n: np.array([*values, *([self.target[n]] if present else [])]) for n, values in others.items()})


@dataclass(frozen=True)
class Verdict:
    """The most the ledger says a run may tell, the least it did tell, and releases nobody paid for."""

    claimed: float
    shown: float
    unpaid: int

    @property
    def broken(self) -> bool:
        return self.shown > self.claimed or self.unpaid > 0


def attack(query: Query, target: dict[str, float]) -> F64:
    """The direction in which the target, whom the attacker knows, moves the sum: as the query says, unclipped."""
    alone = Cohort.of({name: np.array([value]) for name, value in target.items()})
    vector = (
        query.rows(alone)[0] if isinstance(query, Rows) else np.outer(query.factors(alone)[0], query.factors(alone)[0]).ravel()
    )
    return vector / np.linalg.norm(vector)


def audit(case: Case, release: Callable[..., Release] | None = None, runs: int = RUNS) -> Verdict:
    """Compare `runs` runs with the target and as many without."""
    release = release or gate.release
    known = [integer_sum(query, case.cohort(present=False)) for query in case.queries]
    directions = [attack(query, case.target) for query in case.queries]
    hits, claimed, unpaid = {}, 0.0, 0
    for present in (True, False):
        cohort, statistics = case.cohort(present), []
        for run in range(runs):
            books, entropy = Books(), Entropy.seeded(2 * run + present)
            parts = [seen(release, query, cohort, case.mu, number, books, entropy) for number, query in enumerate(case.queries)]
            lean = [(part - base) @ way for part, base, way in zip(parts, known, directions, strict=True)]
            scales = [price(query, case.mu).sigma for query in case.queries]
            statistics.append(sum(each / scale for each, scale in zip(lean, scales, strict=True)) / math.sqrt(len(lean)))
            unpaid += len(books.released) - len(books.events)
            claimed = max(claimed, Spent.of(books.events).epsilon(DELTA))
        hits[present] = np.array(statistics)
    mu = case.mu * math.sqrt(len(case.queries))
    adds = least_epsilon(int((hits[True] > CUT).sum()), int((hits[False] > CUT).sum()), runs)
    removes = least_epsilon(int((hits[False] < mu - CUT).sum()), int((hits[True] < mu - CUT).sum()), runs)
    return Verdict(claimed, max(adds, removes), unpaid)


def seen(
    release: Callable[..., Release], query: Query, cohort: Cohort, mu: float, number: int, books: Books, entropy: Entropy
) -> F64:
    order = Order(f"request {number}", "study", "ask", price(query, mu), Budget(1.0, 1e-6))
    return release(query, cohort, where=None, order=order, books=books, entropy=entropy).cells.astype(np.float64)


def least_epsilon(hits: int, false_hits: int, runs: int) -> float:
    """A lower bound on epsilon at DELTA, from how often the attack says `present` rightly and wrongly."""
    rightly = beta.ppf(LEVEL, hits, runs - hits + 1) if hits else 0.0
    wrongly = beta.ppf(1 - LEVEL, false_hits + 1, runs - false_hits) if false_hits < runs else 1.0
    return max(math.log((rightly - DELTA) / wrongly), 0.0) if rightly > DELTA else 0.0


ORDINARY_PATIENT = {"age": 18.0, "sex": 1.0, "case": 0.0}
AT_THE_BOUND = {"age": 13.5, "sex": 1.0, "case": 1.0}  # x = (1, 1, 1), as long as the radius, and a residual near one
MISCODED = {"age": 18.0, "sex": 1.0, "case": -4.0}  # a residual of four: far beyond the bound, unless it is clipped

CASES = {
    "count": Case([COUNT], ORDINARY_PATIENT),
    "score": Case([SCORE], AT_THE_BOUND),
    "gram": Case([GRAM], AT_THE_BOUND),
    "score of a patient beyond the bound": Case([SCORE], MISCODED),
    "three releases": Case([COUNT, SCORE, COUNT], AT_THE_BOUND, mu=2 / math.sqrt(3)),
}


@pytest.mark.parametrize("name", CASES)
def test_no_attack_shows_more_than_the_ledger_claims(name: str) -> None:
    """And an auditor that showed nothing would find nothing: it shows much of the claim."""
    verdict = audit(CASES[name])
    assert not verdict.broken
    assert verdict.shown > 0.4 * verdict.claimed
    assert verdict.claimed == pytest.approx(2.193, abs=0.001)


@pytest.mark.parametrize("name", ["count", "three releases"])
def test_the_auditor_catches_noise_halved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "discrete_gaussian", lambda sigma, size, entropy: discrete_gaussian(sigma // 2, size, entropy))
    verdict = audit(CASES[name])
    assert verdict.broken
    assert verdict.unpaid == 0


def test_the_auditor_catches_a_clip_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "on_grid", lambda vectors, bound, steps: np.trunc(vectors * (steps / bound)))
    verdict = audit(CASES["score of a patient beyond the bound"])
    assert verdict.broken
    assert verdict.unpaid == 0


def without_debit(query: Query, cohort: Cohort, *, where: Filter | None, order: Order, books: Books, entropy: Entropy) -> Release:
    """The gate with its debit forgotten."""
    event = order.event
    cells = integer_sum(query, cohort, where) + discrete_gaussian(event.sigma, event.width, entropy)
    stored = Release(cells, 1.0, 1).to_bytes()
    books.store(order.request, stored)
    return Release.from_bytes(stored, width=query.width, step=query.bound / sensitivity(query), sigma=event.sigma)


def test_the_auditor_catches_a_debit_forgotten() -> None:
    verdict = audit(CASES["count"], without_debit, runs=500)
    assert verdict.unpaid == 1000
    assert verdict.claimed == 0.0
    assert verdict.broken


def test_the_auditor_catches_a_debit_too_small() -> None:
    """Paid, but at the price of another sensitivity: the books claim less than a run tells."""

    class Cheap(Books):
        def debit(self, *, request: str, event: Event, **about: Any) -> str:
            return super().debit(request=request, event=Event(event.sensitivity // 2, event.sigma, event.width), **about)

    def cheaply(query: Query, cohort: Cohort, *, books: Books, **rest: Any) -> Release:
        cheap = Cheap(books.events, books.released)
        return gate.release(query, cohort, books=cheap, **rest)

    assert audit(CASES["count"], cheaply).broken


def test_the_bound_on_epsilon_is_the_textbooks() -> None:
    assert least_epsilon(0, 0, 1000) == 0.0
    assert least_epsilon(1000, 1000, 1000) == 0.0
    assert least_epsilon(1000, 0, 1000) == pytest.approx(math.log((LEVEL ** (1 / 1000) - DELTA) / (1 - LEVEL ** (1 / 1000))))
