"""Patients who are made up, of many kinds, with a known truth.

A kind is drawn at random: how many patients, partners and features, which of these are skewed or rare, how strong the
model is, how many events, and epsilon.  The outcome has two levels, or is measured: then what no feature tells has a
variance of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.study import Study
from benchmarks import federated


@dataclass(frozen=True, slots=True)
class Kind:
    """`strength`: the variance of the true linear predictor; `events`: their share; `bent`: whether effects bend, by up to `bend`
    where they do; `measured`: the outcome, which else has two levels.
    """

    seed: int
    patients: int
    partners: int
    features: int
    strength: float
    events: float
    epsilon: float
    bent: bool
    bend: float = 0.7
    measured: bool = False

    @property
    def clear(self) -> bool:
        """Whether patients outnumber the noise by far."""
        return self.patients * min(self.epsilon, 2.0) >= 3_000 * (self.partners * self.features) ** 0.5

    @staticmethod
    def drawn(seed: int) -> Kind:
        rng = np.random.default_rng([1, seed])
        return Kind(
            seed=seed,
            patients=int(rng.choice([300, 1_000, 3_000, 10_000, 30_000])),
            partners=int(rng.choice([1, 4, 8])),
            features=int(rng.choice([4, 8, 16])),
            strength=float(rng.choice([0.5, 1.0, 2.0, 4.0, 8.0])),
            events=float(rng.choice([0.05, 0.15, 0.3, 0.5])),
            epsilon=float(rng.choice([0.5, 1.0, 4.0])),
            bent=bool(rng.random() < 0.5),
        )


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: its table in a study, its values for a standard normal z, and its effect, of variance about one.

    `slope`: the effect of one unit, or of the level, where it is a straight line.
    """

    kind: str
    column: Mapping[str, Any]
    values: Callable[[F64], F64]
    effect: Callable[[F64], F64]
    slope: float


def _feature(rng: np.random.Generator, most: float) -> Feature:
    kind = str(rng.choice(["skewed", "normal", "uniform", "rare", "common"], p=[0.3, 0.2, 0.15, 0.2, 0.15]))
    bend = rng.uniform(-most, most)
    if kind in ("rare", "common"):
        return _level(kind, rng.uniform(0.01, 0.08) if kind == "rare" else rng.uniform(0.2, 0.6))
    low, high, centre, spread = {"skewed": (0, 10, 1.38, 1.3), "normal": (-5, 5, 0.0, 1.0), "uniform": (0, 10, 5.0, 2.9)}[kind]

    def values(z: F64) -> F64:
        raw = {"skewed": np.exp(0.8 * z), "normal": z, "uniform": 10 * norm.cdf(z)}[kind]
        return np.clip(raw, low, high)

    def effect(v: F64) -> F64:
        f = (v - centre) / spread
        return np.asarray(f + bend * (np.minimum(f, 1.0) ** 2 - 0.8))

    return Feature(kind, {"range": [low, high], "unit": "units"}, values, effect, 1 / spread)


def _level(kind: str, share: float) -> Feature:
    sd, least = (share * (1 - share)) ** 0.5, norm.ppf(share)
    levels = {"levels": ["no", "yes"]}
    return Feature(kind, levels, lambda z: np.where(z < least, 1.0, 0.0), lambda v: (v - share) / sd, 1 / sd)


def _drawn(features: tuple[Feature, ...], together: F64, rng: np.random.Generator, patients: int) -> tuple[dict[str, F64], F64]:
    """Columns by name, and their effects, shape (patients, features); `together`: each one's correlation with what all share."""
    common, own = rng.normal(size=(patients, 1)), rng.normal(size=(patients, len(features)))
    z = common * together + own * np.sqrt(1 - together**2)
    columns = {f"x{j}": feature.values(z[:, j]) for j, feature in enumerate(features)}
    effects = [feature.effect(column) for feature, column in zip(features, columns.values(), strict=True)]
    return columns, np.stack(effects, axis=1)


@dataclass(frozen=True, slots=True)
class People:
    """Patients of one kind: columns by name, and the expected outcome of each (a risk, or a value), shape (patients,)."""

    columns: Mapping[str, F64]
    expected: F64


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Features, how they hang together, and the true coefficients."""

    kind: Kind
    features: tuple[Feature, ...]
    together: F64
    slopes: F64
    intercept: float

    @staticmethod
    def of(kind: Kind) -> World:
        rng = np.random.default_rng([2, kind.seed])
        features = tuple(_feature(rng, kind.bend * kind.bent) for _ in range(kind.features))
        together, raw = rng.uniform(-0.6, 0.6, kind.features), rng.normal(size=kind.features)
        _, effects = _drawn(features, together, rng, 50_000)
        slopes = raw * (kind.strength / float((effects @ raw).var())) ** 0.5
        if kind.measured:
            return World(kind, features, together, slopes, 0.0)
        eta = effects @ slopes
        intercept = brentq(lambda at: float(expit(eta + at).mean()) - kind.events, -50, 50)
        return World(kind, features, together, slopes, intercept)

    def truth(self) -> F64:
        """The coefficients of the features in their units, where no effect bends."""
        return self.slopes * np.array([feature.slope for feature in self.features])

    def people(self, patients: int, stream: int) -> People:
        rng = np.random.default_rng([3, self.kind.seed, stream])
        columns, effects = _drawn(self.features, self.together, rng, patients)
        linear = effects @ self.slopes + self.intercept
        if self.kind.measured:
            return People({**columns, "y": np.clip(linear + rng.normal(size=patients), -self.reach, self.reach)}, linear)
        risk = expit(linear)
        return People({**columns, "y": (rng.random(patients) < risk).astype(np.float64)}, risk)

    @property
    def reach(self) -> float:
        """Of a measured outcome's range: six of its standard deviations."""
        return 6 * (1 + self.kind.strength) ** 0.5

    def partners(self) -> dict[str, Cohort]:
        """The patients who train, at partners of unequal size."""
        rng = np.random.default_rng([4, self.kind.seed])
        shares = rng.dirichlet(np.full(self.kind.partners, 2.0)) + 0.02
        where = rng.choice(self.kind.partners, self.kind.patients, p=shares / shares.sum())
        columns = self.people(self.kind.patients, stream=0).columns
        return {
            f"partner-{k}": Cohort.of({name: values[where == k] for name, values in columns.items()}, int((where == k).sum()))
            for k in range(self.kind.partners)
        }

    def study(self, analysis: str) -> Study:
        columns = {f"x{j}": dict(feature.column) for j, feature in enumerate(self.features)}
        ask = {"analysis": analysis, "outcome": "y", "features": list(columns)}
        measured = {"range": [-self.reach, self.reach], "unit": "units"}
        columns["y"] = measured if self.kind.measured else {"levels": ["no", "yes"]}
        return federated.one_model("Made up", columns, ask, Budget(self.kind.epsilon, 1e-6))
