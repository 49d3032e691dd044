"""A released number tells how lopsided a column is, and three points stand for it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ahh_federated.analyses.mixture import mixture
from ahh_federated.analyses.skewness import points, skewness
from ahh_federated.core.cohorts import F64


def lean(x: F64) -> float:
    return float(np.mean(x * np.abs(x)))


@pytest.mark.parametrize("skew", [-2.0, -0.8, 0.0, 0.5, 1.2, 2.0])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (0.15, 0.8)])
def test_the_skewness_of_its_own_family_is_found(skew: float, mean: float, sd: float) -> None:
    """Its mean and variance are those before x is clipped; clipped ones make strong skewness look stronger."""
    x = mean + sd * stats.pearson3.rvs(skew, size=400_000, random_state=1)
    found = [skewness(lean(np.clip(x, -4, 4)), 1e-4, float(each.mean()), float(each.var())) for each in (x, np.clip(x, -4, 4))]
    assert found[0] == pytest.approx(skew, abs=0.06)
    assert np.sign(skew) * found[1] == pytest.approx(abs(skew), abs=0.4)


def test_noise_makes_a_normal_of_everything() -> None:
    found = [skewness(0.4, stderr, 0.0, 1.0) for stderr in (0.0, 0.1, 0.3, 1.0, 1e9)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1.97, abs=0.1)
    assert found[-1] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("value", [-1e9, -3.0, 3.0, 1e9])
def test_what_no_column_has_is_held_within_bounds(value: float) -> None:
    assert -4 <= skewness(value, 0.0, 0.0, 1.0) <= 4
    assert -4 <= skewness(value, 0.0, 4.0, 16.0) <= 4


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 0.0128), (1.0, 0.1), (2.0, 0.3), (4.0, 16.0), (-2.0, 0.3), (0.0, 0.0)])
def test_endless_noise_gives_a_normal_wherever_the_column_is(mean: float, variance: float) -> None:
    assert abs(skewness(0.3, 1e9, mean, variance)) < 1e-6


@pytest.mark.parametrize("mean", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("variance", [1.0, 0.1, 0.03, 0.0128])
def test_noise_is_not_read_as_skewness_of_a_narrow_column(mean: float, variance: float) -> None:
    """Declared ranges are often far wider than what patients have, and the spread of x has a floor."""
    rng = np.random.default_rng(2)
    x = mean + variance**0.5 * rng.normal(size=100_000)
    read = [skewness(lean(x) + 0.03 * rng.normal(), 0.03, mean, variance) for _ in range(200)]
    assert np.mean(np.abs(read) >= 2.0) < 0.05


@pytest.mark.parametrize("skew", [-3.4, -0.5, 1.0, 2.0, 3.4])
def test_three_points_and_a_normal_have_the_moments(skew: float) -> None:
    values, shares = points(skew)
    assert shares.sum() == pytest.approx(1)
    assert [shares @ values**k for k in (1, 2, 3)] == pytest.approx([0, 0.9, skew], abs=1e-9)


def test_a_long_tail_is_in_the_mixture_and_its_moments_stay() -> None:
    mean, covariance = np.array([1.0, 0.1, -0.2]), np.array([[0.0, 0, 0], [0, 1.0, 0.3], [0, 0.3, 0.8]])
    found = mixture(mean, covariance, [], {1: 2.0, 2: 0.2})
    assert len(found.shares) == 3
    between = found.means - mean
    assert found.shares @ found.means == pytest.approx(mean)
    assert found.within + (between.T * found.shares) @ between == pytest.approx(covariance, abs=1e-9)
    assert found.shares @ between[:, 1] ** 3 == pytest.approx(2.0, abs=1e-9)
    assert found.shares @ between[:, 2] ** 3 == pytest.approx(2.0 * 0.3**3, abs=1e-9)
