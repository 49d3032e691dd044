"""Privacy cost as data: events are what was done, budgets are what may be done.

A release of the discrete Gaussian mechanism with L2 sensitivity D and scale sigma (both in grid steps) is within
total variation ``width * 0.05 / sigma**2`` of a mechanism that is exactly mu-Gaussian-DP, mu = D / sigma
(docs/proofs/noise.md).  Gaussian DP composes exactly, also when every release is chosen in view of all earlier ones:
mu**2 adds up (Dong, Roth & Su, "Gaussian differential privacy", JRSS B 2022, Cor. 3.3; as a filter under fully adaptive
choice: Smith & Thakurta, "Fully adaptive composition for Gaussian differential privacy", 2022, Thm. 3.1).  The total
variation adds up too and is charged to delta, times (1 + e**epsilon).

A *plan* is a fixed number of such releases, each about a secret Poisson sample of the patients: every patient is in with
probability `rate` / 2**20, by a coin of its own.  Its first message pays for all of them (`core/sampling.py`); the later
ones cost nothing, and the ledger admits them only under a plan that was paid.

Sums are exact fractions, so a filter never depends on the order or the rounding of additions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from ahh_federated.core.noise import MAX_SIGMA, MIN_SIGMA
from ahh_federated.core.sampling import MOST_SUMS, RATE_ONE, plan_noise, plan_price

PLAIN = "discrete-gaussian/1"
SAMPLED = "poisson-discrete-gaussian/1"

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
    """One message: a vector of `width` integers, L2 `sensitivity` and noise scale `sigma` in grid steps.

    A message of a plan also says the plan's `rate`, in 2**-20ths, and its `count` of noised sums; its own `place`, from 0; and
    how many of these sums it makes, `steps`: one, save where a whole local program runs behind it.
    """

    sensitivity: int
    sigma: int
    width: int
    mechanism: str = PLAIN
    rate: int = RATE_ONE
    count: int = 1
    place: int = 0
    steps: int = 1

    def __post_init__(self) -> None:
        if self.mechanism not in (PLAIN, SAMPLED):
            raise ValueError(f"unknown mechanism {self.mechanism!r}: it has no price")
        if self.sensitivity < 1 or self.width < 1 or not MIN_SIGMA <= self.sigma <= MAX_SIGMA:
            raise ValueError(f"an event needs sensitivity, width >= 1 and sigma in {MIN_SIGMA}..{MAX_SIGMA}, got {self}")
        if self.mechanism == PLAIN and (self.rate, self.count, self.place, self.steps) != (RATE_ONE, 1, 0, 1):
            raise ValueError(f"only an event of {SAMPLED} belongs to a plan, got {self}")
        if not 1 <= self.rate <= RATE_ONE or not 1 <= self.count <= MOST_SUMS:
            raise ValueError(f"a plan needs a rate in 1..{RATE_ONE} and a count in 1..{MOST_SUMS}, got {self}")
        if self.steps < 1 or self.place < 0 or (self.place + 1) * self.steps > self.count:
            raise ValueError(f"a message's sums lie within its plan's {self.count}, got {self}")

    @property
    def first(self) -> Event:
        """The message of the same plan that pays for it."""
        return replace(self, place=0)

    @property
    def mu_squared(self) -> Fraction:
        if self.place:
            return Fraction(0)
        if self.mechanism == PLAIN:
            return Fraction(self.sensitivity * self.sensitivity, self.sigma * self.sigma)
        return plan_price(self.sensitivity, self.sigma, self.rate, self.count)[0]

    @property
    def grid_slack(self) -> Fraction:
        """What the integer grid of the noise is charged."""
        if self.place:
            return Fraction(0)
        if self.mechanism == PLAIN:
            return SLACK * self.width / (self.sigma * self.sigma)
        root = math.isqrt(self.width * self.count - 1) + 1  # docs/proofs/sampling.md, section 4
        return SLACK * root / (self.sigma * self.sigma)

    @property
    def slack(self) -> Fraction:
        if self.place or self.mechanism == PLAIN:
            return self.grid_slack
        return self.grid_slack + plan_price(self.sensitivity, self.sigma, self.rate, self.count)[1]


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

    def __add__(self, other: Event | Spent) -> Spent:
        return Spent(self.mu_squared + other.mu_squared, self.slack + other.slack)

    def within(self, budget: Budget) -> bool:
        return self.mu_squared <= budget.mu_squared and self.slack <= budget.slack

    def epsilon(self, delta: float) -> float:
        """The epsilon spent at this delta, rounded up; the grid's slack is charged to delta."""
        mu = math.sqrt(self.mu_squared) * (1 + 1e-12)
        return covered(lambda left: epsilon_of(mu, left), self.slack, delta)


def covered(epsilon_at: Callable[[float], float], slack: Fraction, delta: float) -> float:
    """The epsilon at this delta of what costs `epsilon_at` each delta, and a total variation `slack` besides."""
    epsilon = epsilon_at(delta)
    for _ in range(60):  # a larger epsilon makes the slack dearer: climb until it is covered
        if not math.isfinite(epsilon):
            break
        dearer = epsilon_at(delta - (1 + math.exp(epsilon)) * float(slack))
        if dearer <= epsilon:
            return epsilon
        epsilon = dearer * (1 + 1e-12)
    return math.inf


def sigma_for(sensitivity: int, mu: float) -> int:
    """The smallest integer noise scale at which a release costs at most mu."""
    return max(MIN_SIGMA, math.ceil(Fraction(sensitivity) / Fraction(mu)))


def plan_sigma(sensitivity: int, mu: float, rate: int, count: int) -> int:
    """A noise scale at which a plan costs at most mu: the least, up to one part in a thousand.

    Raises:
        Misuse: when the accountant is not installed.
    """
    return max(MIN_SIGMA, plan_noise(sensitivity, mu, rate, count))
