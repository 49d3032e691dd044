"""What the prior gives the linear predictor, lines and hats apart, and a first solution that is held back."""

from __future__ import annotations

import numpy as np
import pytest

from ahh_federated.analyses import linear
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.mixture import Level, Mixture, mixture
from ahh_federated.analyses.newton import Evidence, Moments, Surrogate, combine, moderate
from ahh_federated.analyses.opening import opening
from ahh_federated.analyses.prior import Part, before_scores, expected_variances, parts_of, variances
from ahh_federated.analyses.scaling import Standard, standardise
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.releases import Pooled

WIDTH, PATIENTS = 9, 20_000.0
SLOPES = Part(np.arange(1, WIDTH), 1.0)
LINES, HATS = Part(np.arange(1, 4), 0.5), Part(np.arange(4, WIDTH), 0.25)
AGE, WEIGHT, SEX = Numeric("age", 0, 10, "y"), Numeric("weight", 0, 50, "kg"), Levels("sex", ("f", "m"))


def surrogate(n: float = PATIENTS, lean: float = 0.0) -> Surrogate:
    """Slopes of variance 1, any two of which have a covariance of `lean`."""
    mean, covariance = np.eye(WIDTH)[0], np.zeros((WIDTH, WIDTH))
    covariance[1:, 1:] = lean + (1 - lean) * np.eye(WIDTH - 1)
    return Surrogate(Moments(n, mean, covariance, np.outer(mean, mean) + covariance), Mixture.normal(mean, covariance))


def found(beta: np.ndarray, stderr: float, seed: int, parts: tuple[Part, ...] = (SLOPES,), lean: float = 0.0) -> list[float]:
    """From one score at the truth, whose noise and sampling error are drawn."""
    phi, rng = surrogate(lean=lean), np.random.default_rng(seed)
    sampling = np.linalg.cholesky(phi.hessian(beta) + 1e-9 * np.eye(WIDTH)) @ rng.normal(size=WIDTH)
    score = Evidence(beta, sampling + stderr * rng.normal(size=WIDTH), stderr)
    first = Evidence(np.zeros(WIDTH), -phi.gradient(beta), 1e9)
    return expected_variances(phi, combine(phi, first, [score], beta), beta, parts=parts)


def strength(variance: float) -> np.ndarray:
    return np.array([-1.0, *[np.sqrt(variance / (WIDTH - 1))] * (WIDTH - 1)])


def standard(curves: bool) -> Standard:
    """Two measured columns with knots, a column with levels, and a product."""
    design = Design((AGE, SEX, WEIGHT), interactions=((AGE, SEX),), knots=(Knots.equal(AGE), Knots.equal(WEIGHT)))
    moments = opening(design, SEX).parts[1]
    return standardise(design, Pooled(np.full(moments.width, 100.0), 1.0), curves=curves)


@pytest.mark.parametrize("stderr", [20.0, 300.0])
@pytest.mark.parametrize("variance", [2.0, 5.0])
def test_a_strong_model_is_known_to_be_as_strong_as_it_is(variance: float, stderr: float) -> None:
    drawn = np.array([found(strength(variance), stderr, seed) for seed in range(60)])
    assert drawn.mean() == pytest.approx(variance, abs=max(3 * drawn.std() / 60**0.5, 0.02))


@pytest.mark.parametrize("stderr", [10.0, 300.0, 3000.0])
def test_a_weak_model_keeps_the_prior_whatever_the_noise(stderr: float) -> None:
    drawn = [found(strength(0.3), stderr, seed) for seed in range(40)]
    assert np.mean(np.array(drawn) == 1.0) >= 0.95


def test_noise_is_not_taken_for_strength() -> None:
    """Without tr(S V) taken off, evidence that is nothing but noise would look like a strong model."""
    drawn = [found(strength(1e-6), 1500.0, seed) for seed in range(40)]
    assert np.mean(drawn) < 1.1


@pytest.mark.parametrize("lean", [0.0, 0.5])
@pytest.mark.parametrize(("lines", "hats"), [(1.0, 0.6), (1.2, 0.0), (0.0, 0.6)])
def test_lines_and_hats_are_each_known_to_be_as_strong_as_they_are(lines: float, hats: float, lean: float) -> None:
    beta = np.array([-1.0, *[lines, -lines, lines], *[hats, -hats, hats, -hats, hats]])
    drawn = np.array([found(beta, 100.0, seed, (LINES, HATS), lean) for seed in range(60)])
    covariance = surrogate(lean=lean).moments.covariance
    for part, each in zip((LINES, HATS), drawn.T, strict=True):
        truth = part.variance(beta, covariance, np.zeros_like(covariance))
        assert each.mean() == pytest.approx(truth, abs=max(3 * each.std() / 60**0.5, 0.02))


def test_slopes_of_a_part_share_its_variance() -> None:
    assert variances((LINES, HATS), [3.0, 2.0]) == pytest.approx([9.0, 1, 1, 1, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert variances((), []) == pytest.approx([9.0])
    assert variances((LINES, HATS), before_scores((LINES, HATS))) == pytest.approx([9.0, *[1 / 6] * 3, *[0.05] * 5])


def test_hats_are_a_part_of_their_own_and_all_else_is_the_other() -> None:
    lines, hats = parts_of(standard(curves=True))
    assert lines.at.tolist() == [1, 2, 3, 4]  # age, sex, weight, the product
    assert hats.at.tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    (alone,) = parts_of(standard(curves=False))
    assert alone.at.tolist() == [1, 2, 3, 4]
    assert (alone.least, lines.least, hats.least) == (1.0, 0.5, 0.25)


def test_of_a_measured_outcome_lines_explain_half_and_hats_an_eighth_until_more_is_known() -> None:
    curved, plain = linear._prior(standard(curves=True)), linear._prior(standard(curves=False))
    assert curved == pytest.approx([1.0, *[0.5 / 4] * 4, *[0.125 / 8] * 8])
    assert plain == pytest.approx([1.0, *[0.5 / 4] * 4])


def test_a_first_solution_beyond_eight_is_held_back_in_its_own_direction() -> None:
    phi, beta = surrogate(), strength(30.0)
    held = moderate(phi, beta, 0.1)
    assert held @ phi.moments.covariance @ held == pytest.approx(8.0)
    assert held[1:] / beta[1:] == pytest.approx(held[1] / beta[1])
    assert phi.gradient(held)[0] / phi.n == pytest.approx(0.1)
    assert moderate(phi, strength(7.9), 0.1) == pytest.approx(strength(7.9))


def test_the_share_of_events_stays_under_a_rare_flag_too() -> None:
    mean, spread = np.eye(2)[0], 0.25
    covariance = np.diag([0.0, 0.01 * 0.99 / spread**2])
    moments = Moments(1000.0, mean, covariance, np.outer(mean, mean) + covariance)
    phi = Surrogate(moments, mixture(mean, covariance, [[Level(1, 0.01, spread)]]))
    held = moderate(phi, np.array([-3.0, 12.0]), 0.05)
    assert phi.gradient(held)[0] / phi.n == pytest.approx(0.05)
