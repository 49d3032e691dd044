"""The mixture that stands for x: it has the released moments, and knows which levels patients have together."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.special import expit

from ahh_federated.analyses.mixture import Level, Mixture, mixture
from ahh_federated.analyses.newton import Moments, Surrogate
from ahh_federated.core.cohorts import F64

SPREAD = 0.25


def population(shares: F64, values: F64) -> tuple[F64, F64]:
    """Mean and covariance of x = (1, values) over patients who are so and so often of each kind."""
    x = np.column_stack([np.ones(len(values)), values])
    mean = shares @ x
    return mean, np.asarray((x.T * shares) @ x - np.outer(mean, mean))


def flags(shares: F64) -> tuple[F64, F64, list[list[Level]]]:
    """Two flags, `shares` of neither, the second, the first and both; on the scale of x."""
    on = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    centre = shares @ on
    mean, covariance = population(shares, (on - centre) / SPREAD)
    return mean, covariance, [[Level(j + 1, float(centre[j]), SPREAD)] for j in range(2)]


def independent(shares: list[float]) -> tuple[F64, F64, list[Level]]:
    """Flags that have nothing to do with each other."""
    on = np.array(shares)
    spread = np.maximum(np.sqrt(on * (1 - on)), SPREAD)
    mean, covariance = np.eye(len(on) + 1)[0], np.diag([0.0, *(on * (1 - on) / spread**2)])
    return mean, covariance, [Level(j + 1, float(on[j]), float(spread[j])) for j in range(len(on))]


def moments(found: Mixture) -> tuple[F64, F64]:
    mean = found.shares @ found.means
    deviation = found.means - mean
    return mean, found.within + (deviation.T * found.shares) @ deviation


@pytest.mark.parametrize("shares", [[0.9, 0.04, 0.05, 0.01], [0.93, 0.005, 0.005, 0.06], [0.2, 0.3, 0.4, 0.1]])
def test_flags_that_come_together_are_known_to(shares: list[float]) -> None:
    mean, covariance, columns = flags(np.array(shares))
    found = mixture(mean, covariance, columns)
    on = np.round(found.means[:, 1:] * SPREAD + [columns[0][0].centre, columns[1][0].centre], 6)
    known = {tuple(pattern): share for pattern, share in zip(on.tolist(), found.shares, strict=True)}
    for pattern, share in zip(itertools.product([0.0, 1.0], repeat=2), shares, strict=True):
        assert known[pattern] == pytest.approx(share, abs=1e-6)
    assert np.allclose(found.within, 0, atol=1e-9)


def test_moments_are_those_that_were_released() -> None:
    rng = np.random.default_rng(3)
    flag, zone = rng.random(200_000) < 0.05, rng.choice(3, 200_000, p=[0.7, 0.2, 0.1])
    value = rng.normal(size=200_000) + 0.8 * flag - 0.5 * (zone == 2)
    raw = np.column_stack([value, flag, zone == 1, zone == 2]).astype(np.float64)
    centre, spread = raw.mean(axis=0), np.maximum(raw.std(axis=0), SPREAD)
    x = (raw - centre) / spread
    mean, covariance = population(np.full(len(x), 1 / len(x)), x)
    levels = [Level(j + 1, float(centre[j]), float(spread[j])) for j in range(4)]
    found = mixture(mean, covariance, [levels[1:2], levels[2:]])
    assert found.shares.sum() == pytest.approx(1)
    assert len(found.shares) == 6
    again, spread_again = moments(found)
    assert again == pytest.approx(mean, abs=1e-9)
    assert spread_again == pytest.approx(covariance, abs=0.01)
    assert np.linalg.eigvalsh(found.within).min() >= -1e-12


def test_what_it_says_of_risks_is_what_patients_have_and_a_normal_does_not() -> None:
    """A flag of one patient in twenty that makes an event all but certain."""
    shares = np.array([0.9, 0.04, 0.05, 0.01])
    mean, covariance, columns = flags(shares)
    beta = np.array([-3.0, 1.2, 0.5])
    on = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    x = np.column_stack([np.ones(4), (on - [columns[0][0].centre, columns[1][0].centre]) / SPREAD])
    truth = (shares * expit(x @ beta)) @ x
    kept = Moments(1.0, mean, covariance, covariance + np.outer(mean, mean))
    mixed = Surrogate(kept, mixture(mean, covariance, columns)).gradient(beta)
    normal = Surrogate(kept, Mixture.normal(mean, covariance)).gradient(beta)
    assert mixed == pytest.approx(truth, abs=1e-6)
    assert np.abs(normal - truth).max() > 0.05


@pytest.mark.parametrize("patterns", [1, 3])
def test_the_gradient_and_the_hessian_are_those_of_the_value(patterns: int) -> None:
    mean, covariance, columns = flags(np.array([0.7, 0.1, 0.15, 0.05]))
    covariance = covariance + np.diag([0.0, 0.2, 0.1])
    found = mixture(mean, covariance, columns[: patterns - 1])
    phi = Surrogate(Moments(100.0, mean, covariance, covariance + np.outer(mean, mean)), found)
    beta, step = np.array([-1.0, 0.8, -0.6]), 1e-5
    for j in range(3):
        moved = step * np.eye(3)[j]
        slope = (phi.value(beta + moved) - phi.value(beta - moved)) / (2 * step)
        assert phi.gradient(beta)[j] == pytest.approx(slope, rel=1e-6)
        bend = (phi.gradient(beta + moved) - phi.gradient(beta - moved)) / (2 * step)
        assert phi.hessian(beta)[j] == pytest.approx(bend, rel=1e-5, abs=1e-6)
    assert np.linalg.eigvalsh(phi.hessian(beta)).min() > 0


def test_many_columns_make_no_more_patterns_than_there_is_room_for() -> None:
    mean, covariance, levels = independent([0.02] * 6 + [0.5] * 12)
    found = mixture(mean, covariance, [[level] for level in levels])
    assert 100 < len(found.shares) <= 512
    again, spread_again = moments(found)
    assert again == pytest.approx(mean, abs=1e-9)
    assert spread_again == pytest.approx(covariance, abs=0.02)
    rare = found.means[:, 1:7] > 1
    assert found.shares @ rare == pytest.approx([0.02] * 6, rel=0.05)


def distinct(found: Mixture, at: int) -> int:
    return len(np.unique(np.round(found.means[:, at], 6)))


@pytest.mark.parametrize("rare", [0.03, 0.97])
def test_a_rare_flag_has_its_room_before_balanced_ones_whichever_way_it_is_coded(rare: float) -> None:
    mean, covariance, levels = independent([0.5] * 10 + [rare])
    assert distinct(mixture(mean, covariance, [[level] for level in levels]), 11) == 2


def test_a_column_of_many_levels_does_not_take_the_room_of_rare_flags() -> None:
    mean, covariance, levels = independent([1 / 80] * 79 + [0.03] * 5)
    found = mixture(mean, covariance, [levels[:79], *([level] for level in levels[79:])])
    assert all(distinct(found, at) == 2 for at in range(80, 85))


def test_columns_that_would_split_everybody_into_nobody_are_left_out() -> None:
    mean, covariance, levels = independent([1 / 331] * 330)
    found = mixture(mean, covariance, [levels[:165], levels[165:]])
    assert found.shares.sum() == pytest.approx(1)
    assert found.shares @ found.means == pytest.approx(mean)


@pytest.mark.parametrize("seed", range(20))
def test_noise_that_leaves_no_sense_in_the_moments_still_gives_a_mixture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6)) * rng.choice([1e-4, 1.0, 10.0], size=6)
    covariance = np.zeros((7, 7))
    covariance[1:, 1:] = root @ root.T + 1e-4 * np.eye(6)
    mean = np.array([1.0, *np.clip(rng.normal(size=6) * 5, -4, 4)])
    columns = [[Level(1, 0.1, 0.3)], [Level(2, 0.3, 0.45), Level(3, 0.2, 0.4), Level(4, 0.4, 0.5)], [Level(6, 0.005, 0.25)]]
    found = mixture(mean, covariance, columns)
    assert found.shares.min() >= 0
    assert found.shares.sum() == pytest.approx(1)
    assert np.isfinite(found.means).all()
    assert found.shares @ found.means == pytest.approx(mean)
    assert np.linalg.eigvalsh(found.within).min() >= -1e-9 * np.trace(covariance)
