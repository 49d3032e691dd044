"""Privacy cost as data: events are what was done, budgets are what may be done.

A release of the discrete Gaussian mechanism with L2 sensitivity D and scale sigma (both in grid steps) is within
total variation ``width * 0.05 / sigma**2`` of a mechanism that is exactly mu-Gaussian-DP, mu = D / sigma
(docs/proofs/noise.md).  Gaussian DP composes exactly, also when every release is chosen in view of all earlier ones:
mu**2 adds up (Dong, Roth & Su, "Gaussian differential privacy", JRSS B 2022, Cor. 3.3; as a filter under fully adaptive
choice: Smith & Thakurta, "Fully adaptive composition for Gaussian differential privacy", 2022, Thm. 3.1).  The total
variation adds up too and is charged to delta, times (1 + e**epsilon).

Sums are exact fractions, so a filter never depends on the order or the rounding of additions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from ahh_federated.core.noise import MAX_SIGMA, MIN_SIGMA

SLACK = Fraction(1, 20)  # TV(discrete, rounded Gaussian) <= SLACK / sigma**2 per coordinate
LEAST_EPSILON = 1e-3  # below it double precision no longer gives delta to far better than RESERVE
MOST_EPSILON = 10.0  # above it the grid's slack, dearer with e**epsilon, would bind before the noise does
RESERVE = 0.01  # the part of delta kept for SLACK


def delta_of(epsilon: float, mu: float) -> float:
    """The delta at which mu-Gaussian-DP is (epsilon, delta)-DP (Dong, Roth & Su 2022, Cor. 2.13)."""
    if mu <= 0:
        return 0.0
    return float(ndtr(mu / 2 - epsilon / mu) - math.exp(epsilon + log_ndtr(-mu / 2 - epsilon / mu)))


@lru_cache(maxsize=256)
def mu_of(epsilon: float, delta: float) -> float:
    """The largest mu whose Gaussian DP implies (epsilon, delta)-DP, rounded down."""
    root = brentq(lambda mu: delta_of(epsilon, mu) - delta, 1e-9, 200.0, xtol=1e-14)
    return float(root) * (1 - 1e-9)


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon at this delta, rounded up.  Infinite when delta is used up."""
    if delta <= 0:
        return math.inf
    if mu <= 0 or delta_of(0.0, mu) <= delta:
        return 0.0
    top = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1  # the Gaussian's zCDP bound
    return float(brentq(lambda e: delta_of(e, mu) - delta, 0.0, top, xtol=1e-12)) * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class Event:
    """One release: a vector of `width` integers, L2 `sensitivity` and noise scale `sigma` in grid steps."""

    sensitivity: int
    sigma: int
    width: int
    mechanism: str = "discrete-gaussian/1"

    def __post_init__(self) -> None:
        if self.mechanism != "discrete-gaussian/1":
            raise ValueError(f"unknown mechanism {self.mechanism!r}: it has no price")
        if self.sensitivity < 1 or self.width < 1 or not MIN_SIGMA <= self.sigma <= MAX_SIGMA:
            raise ValueError(f"an event needs sensitivity, width >= 1 and sigma in {MIN_SIGMA}..{MAX_SIGMA}, got {self}")

    @property
    def mu_squared(self) -> Fraction:
        return Fraction(self.sensitivity * self.sensitivity, self.sigma * self.sigma)

    @property
    def slack(self) -> Fraction:
        return SLACK * self.width / (self.sigma * self.sigma)


@dataclass(frozen=True, slots=True)
class Budget:
    """An (epsilon, delta) ceiling for one patient.  RESERVE of delta pays for the integer grid."""

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not (LEAST_EPSILON <= self.epsilon <= MOST_EPSILON and 1e-15 <= self.delta < 0.1):
            raise ValueError(f"a budget needs {LEAST_EPSILON} <= epsilon <= {MOST_EPSILON} and 1e-15 <= delta < 0.1, got {self}")

    @property
    def mu(self) -> float:
        return mu_of(self.epsilon, (1 - RESERVE) * self.delta)

    @property
    def mu_squared(self) -> Fraction:
        return Fraction(self.mu) ** 2

    @property
    def slack(self) -> Fraction:
        return Fraction(RESERVE * self.delta / (1 + math.exp(self.epsilon)) * (1 - 1e-9))


@dataclass(frozen=True, slots=True)
class Spent:
    """What a sequence of events has cost one patient, exactly."""

    mu_squared: Fraction = Fraction(0)
    slack: Fraction = Fraction(0)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Spent:
        spent = cls()
        for event in events:
            spent = spent + event
        return spent

    def __add__(self, event: Event) -> Spent:
        return Spent(self.mu_squared + event.mu_squared, self.slack + event.slack)

    def within(self, budget: Budget) -> bool:
        return self.mu_squared <= budget.mu_squared and self.slack <= budget.slack

    def epsilon(self, delta: float) -> float:
        """The epsilon spent at this delta, rounded up; the grid's slack is charged to delta."""
        mu = math.sqrt(self.mu_squared) * (1 + 1e-12)
        epsilon = epsilon_of(mu, delta)
        for _ in range(60):  # a larger epsilon makes the slack dearer: climb until it is covered
            covered = epsilon_of(mu, delta - (1 + math.exp(epsilon)) * float(self.slack))
            if not math.isfinite(covered) or covered <= epsilon:
                return covered if not math.isfinite(covered) else epsilon
            epsilon = covered * (1 + 1e-12)
        return math.inf


def sigma_for(sensitivity: int, mu: float) -> int:
    """The smallest integer noise scale at which a release costs at most mu."""
    return max(MIN_SIGMA, math.ceil(Fraction(sensitivity) / Fraction(mu)))
