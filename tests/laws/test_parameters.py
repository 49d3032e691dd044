"""Numbers that a coordinator may send: what a node accepts it can compute, within the bound, for any patients.

A query that failed after its debit would burn budget at the sender's will.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ahh_federated.analyses import glm
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.analyses.scores import STEPS, RiskCounts, Scores
from ahh_federated.core.gate import price
from ahh_federated.core.programs import Analysis
from ahh_federated.core.queries import Query, joined
from ahh_federated.core.sums import integer_sum, integer_sum_slowly, sensitivity, step
from ahh_federated.errors import Breach
from tests.laws.cohorts import plausible_cohort, without
from tests.laws.own_integers import law_broken
from tests.laws.registry import CASE, COMPLETE_CASES, CROSSED, CURVED, INDICATORS

EXTREMES = [
    0.0,
    -0.0,
    1e-3,
    1.0,
    -1.0,
    4.0,
    5e-324,
    1e-300,
    -1e-300,
    1e16,
    -1e16,
    1e150,
    1e200,
    1e308,
    -1e308,
    1.7976931348623157e308,
]
numbers = st.sampled_from(EXTREMES) | st.floats(allow_nan=False, allow_infinity=False) | st.floats(-3, 3)
spreads = st.sampled_from([1e-3, 0.06, 1.0, 1e200, 1e308]) | st.floats(1e-3, 3)
SECOND = joined(glm.ClassSums.kind, glm.Gram.kind)
KINDS = [SECOND, glm.Score.kind, RiskCounts.kind]
DESIGNS = {"complete cases": COMPLETE_CASES, "indicators": INDICATORS, "products": CROSSED, "hats": CURVED}


@dataclass(frozen=True)
class Sent:
    """What a request carries: the same numbers for every entry, or drawn one by one."""

    centre: list[float]
    spread: list[float]
    radius: float
    beta: list[float]

    def parameters(self, terms: int) -> dict[str, list[float]]:
        def fill(values: list[float], length: int) -> list[float]:
            return [values[j % len(values)] for j in range(length)]

        return {
            "centre": fill(self.centre, terms),
            "spread": fill(self.spread, terms),
            "radius": [self.radius],
            "beta": fill(self.beta, terms + 1),
            "edges": sorted(fill(self.beta, STEPS + 1)),
        }


sent = st.builds(
    Sent,
    st.lists(numbers, min_size=1, max_size=9),
    st.lists(spreads, min_size=1, max_size=9),
    spreads,
    st.lists(numbers, min_size=1, max_size=9),
)
PLAIN = {"centre": [0.1], "spread": [0.4], "radius": 2.5}


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(numbers_sent=sent, seed=st.integers(0, 10**6))
@example(numbers_sent=Sent(**PLAIN, beta=[0.0]), seed=0)
@example(numbers_sent=Sent(**PLAIN, beta=[1e-299]), seed=0)
@example(numbers_sent=Sent(**PLAIN, beta=[1e308]), seed=0)
@example(numbers_sent=Sent(**{**PLAIN, "radius": 1e200}, beta=[0.5]), seed=0)
@example(numbers_sent=Sent(**{**PLAIN, "radius": 1e308}, beta=[0.5]), seed=0)
def test_what_a_node_accepts_it_can_compute(design: str, kind: str, numbers_sent: Sent, seed: int) -> None:
    query = accepted(design, kind, numbers_sent)
    if query is None:
        return
    event = price(query, 0.5)
    assert event.sensitivity == sensitivity(query)
    assert math.isfinite(step(query))
    cohort = plausible_cohort(6, seed)
    whole = integer_sum(query, cohort)
    assert [int(value) for value in whole] == integer_sum_slowly(query, cohort)
    change = [int(a) - int(b) for a, b in zip(whole, integer_sum(query, without(cohort, 3)), strict=True)]
    assert sum(value**2 for value in change) <= sensitivity(query) ** 2
    assert law_broken(query, cohort, np.random.default_rng(seed), chunks=(1, 4), threads=()) is None


def accepted(design: str, kind: str, numbers_sent: Sent) -> Query | None:
    features = DESIGNS[design]
    analysis: Analysis = Scores(Logistic(features, CASE), (0.1,)) if kind == RiskCounts.kind else Logistic(features, CASE)
    try:
        return analysis.query(kind, numbers_sent.parameters(features.width - 1))
    except Breach:
        return None


@pytest.mark.parametrize("kind", KINDS)
def test_plain_numbers_are_accepted(kind: str) -> None:
    assert accepted("indicators", kind, Sent(**PLAIN, beta=[0.1, -0.2])) is not None


BROKEN = {
    "too few": lambda p: {**p, "centre": p["centre"][1:]},
    "absent": lambda p: {name: values for name, values in p.items() if name != "spread"},
    "not finite": lambda p: {**p, "beta": [float("nan"), *p["beta"][1:]]},
    "infinite": lambda p: {**p, "centre": [float("inf"), *p["centre"][1:]]},
    "an integer": lambda p: {**p, "centre": [1, *p["centre"][1:]]},
    "a text": lambda p: {**p, "centre": ["1.0", *p["centre"][1:]]},
    "a truth value": lambda p: {**p, "spread": [True, *p["spread"][1:]]},
    "no list": lambda p: {**p, "spread": 1.0},
    "no spread": lambda p: {**p, "spread": [0.0, *p["spread"][1:]]},
    "a negative spread": lambda p: {**p, "spread": [-1.0, *p["spread"][1:]]},
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("kind", [glm.Score.kind, RiskCounts.kind])
def test_numbers_that_do_not_fit_are_a_breach(kind: str, how: str) -> None:
    parameters = BROKEN[how](Sent(**PLAIN, beta=[0.1, -0.2]).parameters(COMPLETE_CASES.width - 1))
    analysis: Analysis = (
        Scores(Logistic(COMPLETE_CASES, CASE), (0.1,)) if kind == RiskCounts.kind else Logistic(COMPLETE_CASES, CASE)
    )
    with pytest.raises(Breach):
        analysis.query(kind, parameters)


def test_edges_out_of_order_are_a_breach() -> None:
    parameters = Sent(**PLAIN, beta=[0.1, -0.2]).parameters(COMPLETE_CASES.width - 1)
    with pytest.raises(Breach, match="out of order"):
        Scores(Logistic(COMPLETE_CASES, CASE), (0.1,)).query(RiskCounts.kind, {**parameters, "edges": parameters["edges"][::-1]})


def test_a_radius_of_nothing_is_a_breach() -> None:
    parameters = Sent([0.1], [0.4], 1e-9, [0.1]).parameters(COMPLETE_CASES.width - 1)
    with pytest.raises(Breach, match="radius"):
        Logistic(COMPLETE_CASES, CASE).query(SECOND, parameters)


def test_a_logistic_regression_asks_nothing_else() -> None:
    parameters = Sent(**PLAIN, beta=[0.1]).parameters(COMPLETE_CASES.width - 1)
    for kind in ("count/1", "glm.score/1", "", glm.Information.kind, glm.Gram.kind, glm.ClassSums.kind, glm.Complete.kind):
        with pytest.raises(Breach, match="asks no query"):
            Logistic(COMPLETE_CASES, CASE).query(kind, parameters)
