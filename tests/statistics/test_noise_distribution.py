"""The law of the noise: tests that accept the truth and reject a scale 10 % off.

Each verdict has a chance below 1e-9 of a false alarm, and our draws are seeded besides. The oracles are
the exact probabilities, the reference algorithm of Canonne, Kamath and Steinke (arXiv:2004.00010) and
opendp.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from ahh_federated.core import noise
from ahh_federated.core.costs import SLACK, delta_of
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.noise import discrete_gaussian

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

LEVEL = 1e-9
DRAWS = 1_000_000
SCALES = [2**10, 1_234_567, 2**44]


def _z_rejects(z: float) -> bool:
    return 2 * float(stats.norm.sf(abs(z))) < LEVEL


def _chi_square_rejects(counts: NDArray[np.int64], chances: F64) -> bool:
    expected = counts.sum() * chances
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(stats.chi2.sf(statistic, len(counts) - 1)) < LEVEL


def _variance_rejects(z: F64) -> bool:
    total = float((z * z).sum())
    return 2 * min(float(stats.chi2.cdf(total, len(z))), float(stats.chi2.sf(total, len(z)))) < LEVEL


def _kurtosis_rejects(z: F64) -> bool:
    # Fourth powers reach their normal limit slowly: 8 standard errors keep the level.
    excess = float((z**4).mean() / (z * z).mean() ** 2 - 3)
    return abs(excess) > 8 * math.sqrt(24 / len(z))


def _kolmogorov_rejects(values: I64, sigma: float) -> bool:
    points, counts = np.unique(values // max(1, round(sigma / 100)), return_counts=True)
    upper_edges = ((points + 1) * max(1, round(sigma / 100)) - 0.5) / sigma
    distance = float(np.abs(np.cumsum(counts) / len(values) - ndtr(upper_edges)).max())
    return 2 * math.exp(-2 * len(values) * distance**2) < LEVEL  # Massart's constant


def _cells_reject(values: I64, sigma: float) -> bool:
    edges = np.round(sigma * stats.norm.ppf(np.arange(1, 256) / 256))
    counts = np.bincount(np.searchsorted(edges, values), minlength=256)
    return _chi_square_rejects(counts, np.diff(ndtr((edges + 0.5) / sigma), prepend=0.0, append=1.0))


def _serial_rejects(z: F64) -> bool:
    sizes = (np.abs(z) - math.sqrt(2 / math.pi)) / math.sqrt(1 - 2 / math.pi)
    root = math.sqrt(len(z) - 1)
    return any(_z_rejects(float(part[1:] @ part[:-1]) / root) for part in (z, sizes))


def rejections(values: I64, sigma: float) -> set[str]:
    """The names of the tests that say these are not independent draws of scale sigma."""
    z = values / sigma
    signs = float(np.sign(values).sum())
    verdicts = {
        "mean": _z_rejects(float(z.sum()) / math.sqrt(len(z))),
        "sign": _z_rejects(signs / math.sqrt(len(z))),
        "variance": _variance_rejects(z),
        "kurtosis": _kurtosis_rejects(z),
        "kolmogorov": _kolmogorov_rejects(values, sigma),
        "cells": _cells_reject(values, sigma),
        "serial": _serial_rejects(z),
    }
    return {name for name, rejects in verdicts.items() if rejects}


@pytest.fixture(scope="module", params=SCALES)
def draws(request: pytest.FixtureRequest) -> tuple[int, I64]:
    sigma: int = request.param
    return sigma, discrete_gaussian(sigma, DRAWS, Entropy.seeded(20))


def test_accepts_the_true_scale(draws: tuple[int, I64]) -> None:
    sigma, values = draws
    assert rejections(values, sigma) == set()


@pytest.mark.parametrize("wrong", [0.9, 1.1])
def test_rejects_a_scale_ten_percent_off(draws: tuple[int, I64], wrong: float) -> None:
    sigma, values = draws
    assert {"variance", "kolmogorov", "cells"} <= rejections(values, wrong * sigma)


@pytest.mark.parametrize(
    ("spoil", "caught_by"),
    [
        (lambda x: x + 2**20 // 100, {"mean"}),
        (np.abs, {"mean", "sign", "cells", "serial"}),
        (lambda x: np.repeat(x[: len(x) // 2], 2), {"serial"}),
        (lambda x: np.sign(x) * np.minimum(np.abs(x), 3 * 2**20), {"kurtosis"}),
        (lambda x: np.where(x == x // 2 * 2, x, np.roll(x, 1)), {"serial"}),
    ],
)
def test_rejects_a_spoiled_sample(spoil: Callable[[I64], I64], caught_by: set[str]) -> None:
    values = discrete_gaussian(2**20, DRAWS, Entropy.seeded(21))
    assert caught_by <= rejections(spoil(values), 2**20)


def test_rejects_a_laplace_of_the_same_variance() -> None:
    uniform = np.random.default_rng(1).uniform(-1, 1, DRAWS)
    laplace = -np.sign(uniform) * np.log1p(-np.abs(uniform)) * 2**20 / math.sqrt(2)
    assert {"kurtosis", "kolmogorov", "cells"} <= rejections(np.rint(laplace).astype(np.int64), 2**20)


@pytest.mark.parametrize("modulus", [2, 7, 64])
def test_low_digits_are_uniform(draws: tuple[int, I64], modulus: int) -> None:
    _, values = draws
    assert not _chi_square_rejects(np.bincount(values % modulus), np.full(modulus, 1 / modulus))


def test_no_seam_at_the_edges_of_blocks(draws: tuple[int, I64]) -> None:
    """The cells are sixteenths of sigma, both sides: each block of the sampler is cut in two."""
    sigma, values = draws
    cells = np.clip(values * 16 // sigma, -56, 55)
    starts = -(-np.arange(-55, 56, dtype=np.int64) * sigma // 16)
    chances = np.diff(ndtr((starts - 0.5) / sigma), prepend=0.0, append=1.0)
    assert not _chi_square_rejects(np.bincount(cells + 56, minlength=112), chances)


def _chances(sigma: float, reach: int) -> F64:
    """The exact law on -reach … reach, what lies beyond is negligible."""
    k = np.arange(-reach, reach + 1)
    heights = np.exp(-(k**2) / (2 * sigma**2))
    return np.asarray(heights / heights.sum(), dtype=np.float64)


def _law_rejects(values: I64, sigma: float) -> bool:
    reach = math.ceil(13 * sigma)
    chances, counts = _chances(sigma, reach), np.bincount(values + reach, minlength=2 * reach + 1)
    common = chances * len(values) >= 25
    rare = ~common
    counts = np.append(counts[common], counts[rare].sum())
    return _chi_square_rejects(counts, np.append(chances[common], chances[rare].sum()))


@pytest.mark.parametrize("sigma", [1, 2, 3, 8, 13, 50, 1024])
def test_exact_law_integer_by_integer(sigma: int) -> None:
    values = noise._exactly(sigma, DRAWS, Entropy.seeded(22))
    assert not _law_rejects(values, sigma)
    assert _law_rejects(values, 1.1 * sigma)
    assert _law_rejects(values, 0.9 * sigma)


# --- oracles -----------------------------------------------------------------------------------------


def _bernoulli_exp(gamma: Fraction, coins: random.Random) -> bool:
    """True with probability exp(-gamma), by von Neumann's alternating series."""
    while gamma > 1:
        if not _bernoulli_exp(Fraction(1), coins):
            return False
        gamma -= 1
    k = 1
    while coins.randrange(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1


def _discrete_laplace(scale: int, coins: random.Random) -> int:
    """Integers with probability proportional to exp(-|x| / scale)."""
    while True:
        u = coins.randrange(scale)
        if not _bernoulli_exp(Fraction(u, scale), coins):
            continue
        v = 0
        while _bernoulli_exp(Fraction(1), coins):
            v += 1
        magnitude, negative = u + scale * v, coins.randrange(2) == 1
        if magnitude or not negative:
            return -magnitude if negative else magnitude


def _reference(sigma: int, coins: random.Random) -> int:
    """The discrete Gaussian by rejection from the discrete Laplace."""
    scale = sigma + 1
    while True:
        y = _discrete_laplace(scale, coins)
        if _bernoulli_exp((abs(y) - Fraction(sigma**2, scale)) ** 2 / (2 * sigma**2), coins):
            return y


def _differ(one: I64, other: I64) -> bool:
    """Two-sample Kolmogorov-Smirnov; conservative on integers."""
    return float(stats.ks_2samp(one, other, method="asymp").pvalue) < LEVEL


@pytest.mark.parametrize("sigma", [2, 5])
def test_against_the_reference_algorithm(sigma: int) -> None:
    coins = random.Random(23)
    reference = np.array([_reference(sigma, coins) for _ in range(15_000)])
    ours = noise._exactly(sigma, DRAWS, Entropy.seeded(24))
    assert not _law_rejects(reference, sigma)
    assert not _differ(reference, ours)
    assert _differ(reference, noise._exactly(sigma + 1, DRAWS, Entropy.seeded(24)))


def test_against_opendp() -> None:
    dp = pytest.importorskip("opendp.prelude")
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    theirs = np.array(dp.m.make_gaussian(*space, scale=2048.0)([0] * 60_000))
    assert not _differ(theirs, discrete_gaussian(2048, DRAWS, Entropy.seeded(25)))
    assert _differ(theirs, discrete_gaussian(2048 * 11 // 10, DRAWS, Entropy.seeded(25)))
    assert _differ(theirs, discrete_gaussian(2048 * 9 // 10, DRAWS, Entropy.seeded(25)))


# --- the distance that is charged to delta ---------------------------------------------------------------


@pytest.mark.parametrize("sigma", [10, 20, 40])
def test_distance_of_the_discrete_from_the_rounded_gaussian(sigma: int) -> None:
    with mpmath.workprec(200):
        heights = [mpmath.exp(-mpmath.mpf(k * k) / (2 * sigma**2)) for k in range(25 * sigma)]
        total = 2 * mpmath.fsum(heights) - 1
        root = sigma * mpmath.sqrt(2)
        below = [mpmath.erf((k - 0.5) / root) / 2 for k in range(25 * sigma + 1)]
        rounded = [right - left for left, right in pairwise(below)]
        gaps = [abs(h / total - r) for h, r in zip(heights, rounded, strict=True)]
        distance = float((2 * mpmath.fsum(gaps) - gaps[0]) / 2)
    assert 0.0200 < distance * sigma**2 < 0.0203
    assert distance * sigma**2 <= float(SLACK)


def _rounded(sigma: int, reach: int) -> F64:
    k = np.arange(-reach, 1)
    left = ndtr((k + 0.5) / sigma) - ndtr((k - 0.5) / sigma)
    return np.concatenate([left, left[-2::-1]])


def test_distance_at_the_smallest_scale() -> None:
    distance = float(np.abs(_chances(1024, 13 * 1024) - _rounded(1024, 13 * 1024)).sum()) / 2
    assert 0.0200 < distance * 1024**2 < 0.0203


@pytest.mark.parametrize("shift", [256, 1024, 4096])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 4.0])
def test_privacy_profile(shift: int, epsilon: float) -> None:
    """delta(epsilon) of one coordinate shifted by its sensitivity, against Gaussian DP and the slack."""
    sigma, reach, rounding = 1024, 13 * 1024, 1e-12
    allowed = delta_of(epsilon, shift / sigma)
    for chances, slack in (
        (_rounded(sigma, reach), 0.0),
        (_chances(sigma, reach), (1 + math.exp(epsilon)) * float(SLACK) / sigma**2),
    ):
        here, there = np.append(chances, np.zeros(shift)), np.append(np.zeros(shift), chances)
        delta = float(np.maximum(here - math.exp(epsilon) * there, 0).sum())
        assert delta <= allowed + slack + rounding
        assert delta >= allowed * 0.99 - 1e-9
