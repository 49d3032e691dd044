"""Outcomes: residuals are derivatives of the loss, bounded and each patient's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.releases import Pooled
from ahh_federated.errors import Misuse
from ahh_federated.neural.families import REACH, Outcome, softmax
from tests.neural.populations import CASE, OUTCOMES, PRESSURE, STAGE, VISITS

SCALES = {"binary": (0.0, 1.0), "levels": (0.0, 1.0), "continuous": (0.1, 0.3), "count": (2.0, 1.0)}


def values(family: str, count: int, seed: int) -> F64:
    rng, column = np.random.default_rng(seed), OUTCOMES[family].column
    if isinstance(column, Levels):
        return rng.integers(0, len(column.levels), count).astype(np.float64)
    return rng.uniform(column.low, column.high, count) if family == "continuous" else rng.poisson(2.0, count).astype(np.float64)


def loss(family: str, eta: F64, y: float) -> float:
    """As the module's docstring states it, for one patient."""
    outcome = OUTCOMES[family]
    weight = outcome.weights[int(y)] if outcome.weights else 1.0
    if family == "binary":
        return float(weight * (math.log1p(math.exp(eta[0])) - y * eta[0]))
    if family == "levels":
        return float(weight * (math.log(np.exp(eta).sum()) - eta[int(y)]))
    centre, spread = SCALES[family]
    if family == "continuous":
        assert isinstance(outcome.column, Numeric)
        return float(0.5 * (eta[0] - (outcome.column.scaled(np.array([y]))[0] - centre) / spread) ** 2)
    return float((math.exp(eta[0]) - y * eta[0]) / math.sqrt(centre))


@pytest.mark.parametrize("family", OUTCOMES)
def test_the_residual_is_the_derivative_of_the_loss(family: str) -> None:
    outcome, rng, step = OUTCOMES[family], np.random.default_rng(1), 1e-6
    eta, y = rng.normal(0, 0.7, (40, outcome.outputs)), values(family, 40, 2)
    found = outcome.residual(eta, y, *SCALES[family])
    for i in range(len(eta)):
        for k in range(outcome.outputs):
            by = np.eye(outcome.outputs)[k] * step
            slope = (loss(family, eta[i] + by, y[i]) - loss(family, eta[i] - by, y[i])) / (2 * step)
            assert found[i, k] == pytest.approx(np.clip(slope, -outcome.most, outcome.most), abs=1e-6)


@pytest.mark.parametrize("family", OUTCOMES)
def test_a_residual_is_bounded_finite_and_its_patients_own(family: str) -> None:
    outcome, rng = OUTCOMES[family], np.random.default_rng(3)
    eta = rng.normal(0, 1, (301, outcome.outputs)) * 10.0 ** rng.uniform(-3, 12, (301, 1))
    y = (
        rng.choice([*values(family, 50, 4), 1e308, -1e308], 301)
        if isinstance(outcome.column, Numeric)
        else values(family, 301, 4)
    )
    whole = outcome.residual(eta, y, *SCALES[family])
    assert np.isfinite(whole).all()
    assert np.abs(whole).max() <= outcome.most
    alone = [outcome.residual(eta[i : i + 1], y[i : i + 1], *SCALES[family]) for i in range(301)]
    assert np.array_equal(np.concatenate(alone), whole)


def test_softmax_sums_to_one_and_knows_no_neighbour() -> None:
    eta = np.random.default_rng(5).normal(0, 8, (333, 5))
    whole = softmax(eta)
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(whole, np.exp(eta) / np.exp(eta).sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-12)
    assert np.array_equal(np.concatenate([softmax(eta[i : i + 1]) for i in range(333)]), whole)


def test_training_starts_at_the_released_shares() -> None:
    start = Outcome(CASE, "binary").start(np.array([900.0, 100.0]), 0.0)
    assert start == pytest.approx([math.log(100 / 900)])
    logits = Outcome(STAGE, "levels").start(np.array([60.0, 30.0, 10.0]), 0.0)
    np.testing.assert_allclose(softmax(logits[None, :])[0], [0.6, 0.3, 0.1])
    assert Outcome(VISITS, "count").start(np.array([50.0]), 2.5) == pytest.approx([math.log(2.5)])


def test_weights_move_the_start_and_the_residual_alike() -> None:
    """Rare events that weigh nine times as much start at even odds, and pull nine times as hard."""
    weighted = Outcome(CASE, "binary", (1.0, 9.0))
    assert weighted.start(np.array([900.0, 100.0]), 0.0) == pytest.approx([0.0])
    residual = weighted.residual(np.zeros((2, 1)), np.array([0.0, 1.0]), 0.0, 1.0)
    np.testing.assert_allclose(residual[:, 0], [0.5, -4.5])


@pytest.mark.parametrize("counts", [[-50.0, -3.0], [0.0, 0.0], [-1e9, 1e9], [1e-3, 1e12]])
def test_any_noised_count_is_a_start(counts: list[float]) -> None:
    assert np.isfinite(Outcome(CASE, "binary").start(np.array(counts), 0.0)).all()


def test_a_counts_mean_comes_from_the_released_moments_and_stays_positive() -> None:
    z = VISITS.scaled(np.array([2.0]))[0]
    centre, _ = Outcome(VISITS, "count").scale(Pooled(np.array([1000.0, 0.0, 1000.0 * z, 900.0]), 0.0))
    assert centre == pytest.approx(2.0)
    assert Outcome(VISITS, "count").scale(Pooled(np.array([-5.0, 0.0, -1e6, 0.0]), 9.0))[0] > 0


def test_a_predicted_value_is_in_the_outcomes_unit() -> None:
    centre, spread = 0.1, 0.3
    found = Outcome(PRESSURE, "continuous").linear(np.array([[0.0], [1.0]]), centre, spread)
    np.testing.assert_allclose(found, [PRESSURE.unscaled(centre), PRESSURE.unscaled(centre + spread)])
    assert Outcome(PRESSURE, "continuous").most == REACH


def test_what_is_not_a_level_is_not_known() -> None:
    y, known = OUTCOMES["levels"].values(Cohort.of({"stage": np.array([0.0, 2.0, 3.0, np.nan, -1.0, 0.5, np.inf])}))
    assert known.tolist() == [True, True, False, False, False, False, False]
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("column", "family", "weights"),
    [
        (STAGE, "binary", ()),
        (PRESSURE, "levels", ()),
        (CASE, "continuous", ()),
        (Numeric("z", -3.0, 3.0, "sd"), "count", ()),
        (CASE, "binary", (1.0,)),
        (CASE, "binary", (1.0, 0.0)),
        (PRESSURE, "continuous", (1.0, 1.0)),
        (PRESSURE, "ordinal", ()),
    ],
)
def test_what_does_not_go_together_is_misuse(column: Levels | Numeric, family: str, weights: tuple[float, ...]) -> None:
    with pytest.raises(Misuse):
        Outcome(column, family, weights)
