"""Long tails, of predictors, outcomes and residuals, do not bias what is published."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
import statsmodels.api as sm

from ahh_federated.analyses import reach
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.linear import Linear
from ahh_federated.analyses.reach import outcome_reach, residual_reaches
from ahh_federated.analyses.rounds import GRAM, SUMS, Rounds
from ahh_federated.analyses.scaling import Standard, outcome_scale, standardise
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Numeric
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Pooled, Round
from tests.analyses.drivers import exactly, noised, split

CRP, AGE = Numeric("crp", 0.0, 100.0, "mg/l"), Numeric("age", 2.0, 18.0, "years")
BMI = Numeric("bmi", 10.0, 80.0, "kg/m2")
PARTNERS = 3


def inflamed(size: int, seed: int) -> dict[str, F64]:
    """Log-normal C-reactive protein: one patient in a hundred is beyond four standard deviations."""
    rng = np.random.default_rng(seed)
    crp = np.clip(10 * np.exp(0.8 * rng.normal(size=size)), 0.0, 100.0)
    return {"crp": crp, "bmi": 20 + 0.3 * crp + rng.normal(0, 3, size)}


def growing(size: int, seed: int) -> dict[str, F64]:
    """Skewed residuals that grow with age, as of body mass index."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(2, 16, size)
    residual = 0.55 * age * (rng.gamma(2.0, 1.0, size) - 2) / math.sqrt(2)
    return {"age": age, "bmi": np.clip(17 + 0.7 * (age - 2) + residual, 10, 80)}


def test_the_slope_of_a_predictor_with_a_long_tail_is_that_of_all_its_values() -> None:
    """Cut at four standard deviations x makes it 2 % too steep, many of these standard errors."""
    errors, widths = [], []
    for seed in range(3):
        fit = noised(Linear(Design((CRP,)), BMI), split(inflamed(60_000, seed), PARTNERS), Budget(8.0, 1e-6), seed)
        errors.append(fit.coefficients()[1] / 0.3 - 1)
        widths.append(math.hypot(*(part[1] for part in fit.standard_errors())) / 0.3)
    assert abs(np.mean(errors)) < 3 * np.mean(widths) / math.sqrt(3)
    assert np.mean(widths) / math.sqrt(3) < 0.01


def flatter(columns: dict[str, F64], epsilon: float) -> float:
    """How much flatter the slope of age is than that of least squares, as a part of it, on average over noise."""
    analysis = Linear(Design((AGE,)), BMI)
    reference = sm.OLS(columns["bmi"], sm.add_constant(columns["age"])).fit().params[1]
    fits = [noised(analysis, split(columns, PARTNERS), Budget(epsilon, 1e-6), seed) for seed in range(8)]
    return 1 - float(np.mean([fit.coefficients()[1] for fit in fits])) / reference


def test_skewed_residuals_that_grow_bias_a_slope_the_less_the_smaller_the_noise() -> None:
    columns = growing(18_000, seed=1)
    assert abs(flatter(columns, 8.0)) < 0.01 < flatter(columns, 1.0) < 0.04
    with patch.object(reach, "_FREE", 0.0):
        assert flatter(columns, 8.0) > 0.03


def asked(epsilon: float, size: int = 3000) -> tuple[Rounds, Standard]:
    """After the first message."""
    analysis, columns = Linear(Design((AGE,)), BMI), growing(size, seed=2)
    seen: list[Round] = []

    def listening(self: Linear) -> object:
        seen.append((yield next(program)))
        return None

    program = analysis.program()
    with patch.object(Linear, "program", listening):
        noised(analysis, split(columns, PARTNERS), Budget(epsilon, 1e-6), 3) if epsilon else exactly(analysis, split(columns, 1))
    rounds = Rounds(seen, [])
    return rounds, standardise(analysis.design, rounds.moments)


def test_the_first_message_tells_the_noise_of_later_ones() -> None:
    rounds, _ = asked(2.0)
    mu = Budget(2.0, 1e-6).mu
    for share in (SUMS, GRAM, 0.3):
        assert rounds.noise_of(share) == pytest.approx(math.sqrt(PARTNERS / share) / mu, rel=1e-3)


def test_much_noise_keeps_the_cuts_narrow_and_none_opens_them_to_the_whole_range() -> None:
    much, standard = asked(0.1)
    assert outcome_reach(much, standard, 0.0, 0.1) == 4.0
    assert residual_reaches(much, standard, 0.1, 0.3, 0.5, math.inf) == (3.0, 3.0)
    assert residual_reaches(much, standard, 0.1, 0.3, 0.04, 0.0) == (pytest.approx(0.8), pytest.approx(0.8))
    none, standard = asked(0.0)
    assert outcome_reach(none, standard, -0.2, 0.1) == pytest.approx(12.0)
    assert residual_reaches(none, standard, 0.1, 0.3, 0.04, 0.0) == (pytest.approx(20.0), pytest.approx(20.0))


def test_a_wide_cut_costs_no_more_than_the_sampling_error_and_leaves_the_variance_known() -> None:
    rounds, standard = asked(6.0, 20_000)
    share, variance = 0.3, 0.5
    wide, square = residual_reaches(rounds, standard, 0.05, share, variance, 0.001)
    unit = math.hypot(standard.scale.radius, 1.0) * rounds.noise_of(share)
    assert 4 * math.sqrt(0.5) < square < wide
    assert wide * unit == pytest.approx(math.sqrt(standard.patients * variance), rel=1e-6)
    assert square**2 * unit / standard.patients == pytest.approx(0.05 * variance, rel=1e-6)
    unit = math.sqrt(2) * standard.scale.radius * rounds.noise_of(SUMS)
    assert outcome_reach(rounds, standard, 0.0, 0.02) * unit == pytest.approx(math.sqrt(standard.patients), rel=1e-6)


@pytest.mark.parametrize("moments", [(0.0, 1e12), (1e12, 1e12), (-1e12, 1e9)])
def test_a_faulty_partners_moments_leave_a_spread_that_others_can_answer(moments: tuple[float, float]) -> None:
    """A spread beyond the range would make the cuts, in spreads, smaller than a node accepts."""
    rounds, standard = asked(1.0)
    centre, spread = outcome_scale(Pooled(np.array([100.0, 0.0, 1.0, *moments]), 1.0))
    assert abs(centre) <= 1
    assert spread <= 1
    reaches = outcome_reach(rounds, standard, centre, spread), *residual_reaches(rounds, standard, spread, 0.3, 0.5, math.inf)
    assert min(reaches) >= 1


def test_a_range_narrower_than_the_cut_is_not_paid_for() -> None:
    rounds, standard = asked(0.1)
    assert outcome_reach(rounds, standard, 0.0, 0.5) == 2.0
    assert residual_reaches(rounds, standard, 0.8, 0.3, 0.5, math.inf) == (2.5, 2.5)
