"""What a plan of noised sums over secret Poisson samples costs: from a privacy loss distribution to (mu, slack).

One step sums over a sample in which every patient is with probability q, by a coin of its own, and adds Gaussian noise of
sd sigma to a sum of L2 sensitivity S.  With s = sigma / S it tells no more of one patient than a draw z of

    (1 - q) N(0, s**2) + q N(1, s**2)   with the patient,      N(0, s**2)   without

(docs/proofs/sampling.md, section 1), whatever was asked at that step.  A plan of T steps is thus a post-processing of
z_1 .. z_T, which depend on none of the questions: its first message may pay for all of them.  Google's `dp_accounting` bounds
the hockey-stick divergences delta(e) of these T draws from above, in both directions; we look for the least mu with

    delta(e) <= delta_mu(e) + TAIL   for every e >= 0,

where delta_mu is that of N(mu, 1) and N(0, 1).  Then the plan is a post-processing of a pair within total variation TAIL of
a mu-Gaussian-DP pair (section 2 there), so mu**2 and TAIL go into the books as if it were one more plain release.  Both curves
are convex in e**epsilon: where the chords of the one lie below tangents of the other, the curves do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from scipy.special import log_ndtr, ndtr

from ahh_federated.core.cohorts import F64
from ahh_federated.errors import Misuse

RATE_ONE = 1 << 20  # the rate at which all patients are in
MOST_SUMS = 1 << 16  # of one plan
TAIL = Fraction(1, 1 << 40)  # total variation, charged once for a plan
ROUNDING = Fraction(1, 1 << 49)  # and this for each of its sums: double precision errs by a quarter of it at most
LEAST_NOISE = 0.3  # a plan with a smaller noise multiplier is charged as if it took all patients
_FINENESS = 256  # of the loss grid, in standard deviations of the loss
_CELLS = 1 << 13  # of one step's loss grid, at most
_POINTS = 1 << 9  # where the two curves are compared
_DIGITS = 20  # bits of mu that are kept, rounded up, so that no two machines differ in the last of double precision
_MOST_MU = 1 << 3
_GRID = 1 << 8  # noise multipliers to an octave

Price = tuple[Fraction, Fraction]


@dataclass(frozen=True, slots=True, order=True)
class Draws:
    """`count` draws of z with noise multiplier `noise`, in each of which a patient is with probability `rate`."""

    noise: float
    rate: float
    count: int

    @property
    def spread(self) -> float:
        """About the standard deviation of the sum of their losses."""
        return self.rate * math.sqrt(self.count * math.expm1(min(self.noise**-2, 8.0)))

    @property
    def longest(self) -> float:
        """A loss that one of them hardly ever passes."""
        unsampled = self.noise**-2 / 2 + 10 / self.noise
        return unsampled if self.rate == 1 else math.log1p(self.rate * math.expm1(unsampled))


@lru_cache(maxsize=4096)
def plan_price(sensitivity: int, sigma: int, rate: int, count: int) -> Price:
    """mu**2 and the slack of a plan: `count` sums of noise scale `sigma`, each of a sample of `rate` / 2**20.

    Never more than the same sums of all patients: leaving some out tells less.

    Raises:
        Misuse: when the accountant is not installed.
    """
    unsampled = Fraction(count * sensitivity * sensitivity, sigma * sigma)
    if rate == RATE_ONE or sigma < LEAST_NOISE * sensitivity:
        return unsampled, Fraction(0)
    mu = _mu(sigma / sensitivity, rate / RATE_ONE, count)
    return (unsampled, Fraction(0)) if mu is None or mu * mu >= unsampled else (mu * mu, TAIL + count * ROUNDING)


@lru_cache(maxsize=1024)
def plan_noise(sensitivity: int, mu: float, rate: int, count: int) -> int:
    """The smallest sigma whose plan costs at most mu; of a sampled plan the smallest on a grid of `_GRID` to an octave."""
    most = Fraction(mu) ** 2
    unsampled = math.isqrt(math.ceil(count * sensitivity * sensitivity / most) - 1) + 1
    if rate == RATE_ONE:
        return unsampled

    def enough(place: int) -> bool:
        sigma = _sigma(sensitivity, place)
        if place < _place(LEAST_NOISE):
            return False
        return sigma >= unsampled or plan_price(sensitivity, sigma, rate, count)[0] <= most

    guess, stride = _place(math.log1p((mu * RATE_ONE / rate) ** 2 / count) ** -0.5), 8  # what many small steps would need
    up = not enough(guess)
    while enough(guess) != up:
        guess, stride = guess + (stride if up else -stride), 2 * stride
    low, high = (guess - stride // 2, guess) if up else (guess, guess + stride // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return min(unsampled, _sigma(sensitivity, high))


def _sigma(sensitivity: int, place: int) -> int:
    octave, part = divmod(place, _GRID)
    return math.ceil(Fraction(sensitivity * (_GRID + part), _GRID) * Fraction(2) ** octave)


def _place(multiplier: float) -> int:
    """The place on the grid of a noise multiplier, rounded down."""
    mantissa, exponent = math.frexp(multiplier)
    return (exponent - 1) * _GRID + math.floor((2 * mantissa - 1) * _GRID)


def _mu(noise: float, rate: float, count: int) -> Fraction | None:
    """The least mu, rounded up to `_DIGITS` bits; None when there is none below `_MOST_MU`."""
    losses = composed((Draws(noise, rate, count),))
    allowed = float(TAIL * 7 / 8 + count * ROUNDING / 2)  # the rest covers rounding, here and there
    end = float(losses.get_epsilon_for_delta(allowed / 2))  # beyond it no delta_mu is needed
    if not math.isfinite(end):
        return None
    epsilons = np.linspace(0.0, end, _POINTS)
    return _least(epsilons, np.asarray(losses.get_delta_for_epsilon(epsilons), dtype=np.float64) - allowed)


def _least(epsilons: F64, heights: F64) -> Fraction | None:
    """The least mu whose delta_mu lies above all chords of these points, bisected on its first `_DIGITS` bits."""
    low, high = -64 << _DIGITS, (_MOST_MU.bit_length() - 1) << _DIGITS  # exponent and mantissa in one integer
    if not (heights[-1] <= 0 and _above(epsilons, heights, _unpacked(high))):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _above(epsilons, heights, _unpacked(middle)) else (middle, high)
    return _unpacked(high)


def _above(epsilons: F64, heights: F64, mu: Fraction) -> bool:
    """Whether each chord lies below the tangent of delta_mu at its middle: it does if it does at both its ends."""
    m, middle = float(mu), (epsilons[:-1] + epsilons[1:]) / 2
    falling = np.exp(middle + log_ndtr(-m / 2 - middle / m))  # what delta_mu loses for each e**middle of e**epsilon
    tangent = ndtr(m / 2 - middle / m) - falling
    left = heights[:-1] <= tangent - falling * np.expm1(epsilons[:-1] - middle)
    right = heights[1:] <= tangent - falling * np.expm1(epsilons[1:] - middle)
    return bool(np.all(left & right))


def _unpacked(packed: int) -> Fraction:
    exponent, mantissa = divmod(packed, 1 << _DIGITS)
    return Fraction((1 << _DIGITS) + mantissa, 1 << _DIGITS) * Fraction(2) ** exponent


def composed(draws: Sequence[Draws]) -> Any:
    """The privacy loss distribution of all these draws, both ways: `dp_accounting`'s, pessimistic.

    Raises:
        Misuse: when the accountant is not installed.
    """
    distribution, interval = _accountant().from_gaussian_mechanism, _interval(draws)
    every = [distribution(each.noise, sampling_prob=each.rate, value_discretization_interval=interval) for each in draws]
    sums = [losses.self_compose(each.count) for losses, each in zip(every, draws, strict=True)]
    return reduce(lambda one, other: one.compose(other), sums)


def _interval(draws: Sequence[Draws]) -> float:
    """The step of the loss grid: a power of two, fine beside the sum of all losses, coarse enough to be quick."""
    spread, longest = math.hypot(*(each.spread for each in draws)), max(each.longest for each in draws)
    return 2.0 ** max(math.floor(math.log2(spread / _FINENESS)), math.ceil(math.log2(longest / _CELLS)))


def _accountant() -> Any:
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError:
        what = "the price of sampled sums needs dp-accounting, which is not installed"
        raise Misuse(f"{what}: pip install 'ahh-federated[neural]'") from None
    return privacy_loss_distribution
