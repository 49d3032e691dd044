"""What the prior gives the linear predictor: one, or what the evidence shows beyond its noise."""

from __future__ import annotations

import numpy as np
import pytest

from ahh_federated.analyses.newton import Evidence, Surrogate, combine, expected_variance

WIDTH, PATIENTS = 9, 20_000.0


def surrogate(n: float = PATIENTS) -> Surrogate:
    mean = np.eye(WIDTH)[0]
    covariance = np.diag([0.0, *[1.0] * (WIDTH - 1)])
    return Surrogate(n, mean, covariance, np.outer(mean, mean) + covariance)


def found(beta: np.ndarray, stderr: float, seed: int, n: float = PATIENTS) -> float:
    """From one score at the truth, whose noise and sampling error are drawn."""
    phi, rng = surrogate(n), np.random.default_rng(seed)
    sampling = np.linalg.cholesky(phi.hessian(beta) + 1e-9 * np.eye(WIDTH)) @ rng.normal(size=WIDTH)
    score = Evidence(beta, sampling + stderr * rng.normal(size=WIDTH), stderr)
    first = Evidence(np.zeros(WIDTH), -phi.gradient(beta), 1e9)
    return expected_variance(phi, combine(phi, first, [score], beta), beta)


def strength(variance: float) -> np.ndarray:
    return np.array([-1.0, *[np.sqrt(variance / (WIDTH - 1))] * (WIDTH - 1)])


@pytest.mark.parametrize("variance", [2.0, 5.0])
def test_a_strong_model_is_known_to_be_strong_and_never_stronger_than_it_is(variance: float) -> None:
    drawn = [found(strength(variance), 20.0, seed) for seed in range(40)]
    assert np.mean(np.array(drawn) <= variance) >= 0.95
    assert np.mean(drawn) > 0.75 * variance


@pytest.mark.parametrize("stderr", [10.0, 300.0, 3000.0])
def test_a_weak_model_keeps_the_prior_whatever_the_noise(stderr: float) -> None:
    drawn = [found(strength(0.3), stderr, seed) for seed in range(40)]
    assert np.mean(np.array(drawn) == 1.0) >= 0.95


def test_few_patients_prove_nothing() -> None:
    assert np.mean([found(strength(1.5), 0.5, seed, n=60.0) == 1.0 for seed in range(40)]) >= 0.9
