"""What the prior gives the linear predictor: one, or what the evidence shows; and a first solution that is held back."""

from __future__ import annotations

import numpy as np
import pytest

from ahh_federated.analyses.mixture import Level, Mixture, mixture
from ahh_federated.analyses.newton import Evidence, Moments, Surrogate, combine, expected_variance, moderate

WIDTH, PATIENTS = 9, 20_000.0


def surrogate(n: float = PATIENTS) -> Surrogate:
    mean = np.eye(WIDTH)[0]
    covariance = np.diag([0.0, *[1.0] * (WIDTH - 1)])
    return Surrogate(Moments(n, mean, covariance, np.outer(mean, mean) + covariance), Mixture.normal(mean, covariance))


def found(beta: np.ndarray, stderr: float, seed: int, n: float = PATIENTS) -> float:
    """From one score at the truth, whose noise and sampling error are drawn."""
    phi, rng = surrogate(n), np.random.default_rng(seed)
    sampling = np.linalg.cholesky(phi.hessian(beta) + 1e-9 * np.eye(WIDTH)) @ rng.normal(size=WIDTH)
    score = Evidence(beta, sampling + stderr * rng.normal(size=WIDTH), stderr)
    first = Evidence(np.zeros(WIDTH), -phi.gradient(beta), 1e9)
    return expected_variance(phi, combine(phi, first, [score], beta), beta)


def strength(variance: float) -> np.ndarray:
    return np.array([-1.0, *[np.sqrt(variance / (WIDTH - 1))] * (WIDTH - 1)])


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
