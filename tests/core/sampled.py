"""Queries that show who is in a sample, books that keep, and what the coins of many samples say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import binom

from ahh_federated.core import gate
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import SAMPLED, Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.queries import Parameters, Rows
from ahh_federated.core.releases import Release
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import Chosen

ROW = 1 << 20
PATIENTS, RUNS = 40, 400
QUARTER = RATE_ONE // 4
QUIET = 1 << 12  # noise far below one patient, so that a sum shows who is in it
COHORT = Cohort.of({"who": np.arange(PATIENTS, dtype=np.float64), "age": np.arange(PATIENTS) % 18.0})
LEVEL = 1e-8  # of one verdict; all draws are seeded besides


@dataclass(frozen=True)
class Who:
    """Everybody in a cell of their own: the sum of a sample says who is in it."""

    kind: ClassVar[str] = "who/1"
    width: int = PATIENTS
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def rows(self, cohort: Cohort) -> F64:
        return (cohort["who"][:, None] == np.arange(self.width)).astype(np.float64)


@dataclass
class Books:
    kept: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def recall(self, request: str) -> bytes | None:
        return self.kept.get(request)

    def debit(self, *, request: str, event: Event, **about: Any) -> str:
        self.events.append(event)
        return request

    def store(self, receipt: str, released: bytes) -> None:
        self.kept[receipt] = released


def event(rate: int = QUARTER, steps: int = 1, sigma: int = QUIET, width: int = PATIENTS, place: int = 0) -> Event:
    return Event(ROW, sigma, width, SAMPLED, rate, 1000, place, steps)


def released(
    query: Any = Who(), paid: Event | None = None, request: str = "r", seed: int = 1, books: Books | None = None
) -> Release:
    order = Order(request, "study", "ask:0", paid or event(), Budget(1.0, 1e-6))
    return release(query, COHORT, where=None, order=order, books=books or Books(), entropy=Entropy.seeded(seed))


def unlikely(hits: int, trials: int, chance: float) -> bool:
    return bool(min(binom.cdf(hits, trials, chance), binom.sf(hits - 1, trials, chance)) < LEVEL)


def faults(coins: np.ndarray, rate: int) -> set[str]:
    """What is wrong with coins, shape (releases, patients): exact binomial bounds on counts of independent coins."""
    q, (runs, patients) = rate / RATE_ONE, coins.shape
    same = q * q + (1 - q) * (1 - q)
    found = {
        "rate": (coins.sum(), coins.size, q),
        "releases": ((coins[0::2] == coins[1::2]).sum(), coins.size // 2, same),
        "patients": ((coins[:, 0::2] == coins[:, 1::2]).sum(), coins.size // 2, same),
        "sizes": ((coins.sum(axis=1) == round(patients * q)).sum(), runs, binom.pmf(round(patients * q), patients, q)),
    }
    return {name for name, (hits, trials, chance) in found.items() if unlikely(int(hits), trials, float(chance))}


def planted(monkeypatch: pytest.MonkeyPatch, coins: Callable[[Event, Entropy], Chosen | None]) -> set[str]:
    monkeypatch.setattr(gate, "_coins", coins)
    return faults(samples(), QUARTER)


def tossed(stream: Entropy, rate: float) -> Chosen:
    return lambda patients: stream.words(patients) < np.uint64(rate * 2.0**64)


def samples(rate: int = QUARTER, runs: int = RUNS) -> np.ndarray:
    """Who was in the sample of each of `runs` releases of one node."""
    return np.array([np.rint(released(paid=event(rate), request=f"r{k}").values) for k in range(runs)])


@dataclass(frozen=True)
class Samples:
    """Writes down who was in each of its samples: the k-th in the k-th binary digit."""

    steps: int = 10
    kind: ClassVar[str] = "local.samples/1"
    width: int = PATIENTS
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> None:
        return None

    def start(self) -> F64:
        return np.zeros(self.width + 1)

    def query(self, state: F64) -> Rows:
        return Who()

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        return np.append(state[:-1] + np.rint(total) * 2.0 ** state[-1], state[-1] + 1)

    def result(self, state: F64) -> F64:
        return state[:-1]


@dataclass(frozen=True)
class Total:
    """The mean of its noised sums."""

    steps: int = 16
    kind: ClassVar[str] = "local.total/1"
    width: int = PATIENTS
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> None:
        return None

    def start(self) -> F64:
        return np.zeros(self.width)

    def query(self, state: F64) -> Rows:
        return Who()

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        return state + total / self.steps

    def result(self, state: F64) -> F64:
        return state
