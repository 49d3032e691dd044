"""Every query there is, with a way to make one: a new query without laws fails test_registry.py."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import ahh_federated.analyses
from ahh_federated.analyses import glm
from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.gaussian import CrossSums, Residuals
from ahh_federated.analyses.groups import Groups
from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.histograms import BinCounts
from ahh_federated.analyses.models import Equation, Family
from ahh_federated.analyses.moments import MomentSums
from ahh_federated.analyses.quantiles import TreeCounts
from ahh_federated.analyses.scores import LevelCounts, RiskCounts, ValueSums
from ahh_federated.analyses.selection import Losses
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.queries import Parameters, Query

AGE = Numeric("age", 0.0, 18.0, "years")
BMI = Numeric("bmi", 9.5, 40.25, "kg/m2")
DRIFT = Numeric("drift", -1e-3, 7e5, "units")
SEX = Levels("sex", ("boy", "girl"))
ZONE = Levels("zone", ("north", "east", "south", "west"))
CASE = Levels("case", ("no", "yes"))
COLUMNS: tuple[Column, ...] = (AGE, BMI, DRIFT, SEX, ZONE, CASE)

COMPLETE_CASES = Design((AGE, BMI, SEX, ZONE))
INDICATORS = Design((AGE, DRIFT, ZONE), indicators=True)
CROSSED = Design((AGE, BMI, SEX, ZONE), interactions=((AGE, BMI), (BMI, ZONE), (SEX, ZONE)))
CURVED = Design((AGE, DRIFT, ZONE), True, ((AGE, ZONE),), (Knots(AGE, (2.0, 5.0, 10.0)), Knots.equal(DRIFT)))


@dataclass(frozen=True)
class Entry:
    """A query under a name; `make` draws its public parameters."""

    name: str
    make: Callable[[np.random.Generator], Query]

    def __str__(self) -> str:
        return self.name


def scale(design: Design, rng: np.random.Generator) -> Scale:
    terms = design.width - 1
    centre = tuple(float(value) for value in rng.uniform(-0.7, 0.7, terms))
    spread = tuple(float(value) for value in rng.uniform(0.06, 0.7, terms))
    return Scale(centre, spread, float(rng.uniform(0.8, 1.4) * design.width**0.5))


def beta(design: Design, rng: np.random.Generator) -> tuple[float, ...]:
    size = 10.0 ** rng.uniform(-3, 1.5)
    return tuple(float(value) for value in rng.normal(0.0, size, design.width))


def _risks(design: Design, rng: np.random.Generator) -> Query:
    edges = tuple(float(value) for value in np.sort(rng.normal(0.0, 2.0, 9)))
    return RiskCounts(equation("binary", design, CASE, rng), edges, GROUPS[rng.integers(0, 3)])


GROUPS = (Groups(), Groups((SEX,)), Groups((ZONE, SEX)))


def equation(family: Family, design: Design, outcome: Column, rng: np.random.Generator) -> Equation:
    return Equation(family, design, outcome, scale(design, rng), beta(design, rng))


@dataclass(frozen=True)
class Zones:
    """A model of levels: one equation a level."""

    equations: tuple[Equation, ...]
    family: ClassVar[Family] = "levels"
    outcome: ClassVar[Levels] = ZONE

    @property
    def features(self) -> tuple[Column, ...]:
        return self.equations[0].features

    def parameters(self) -> Parameters:
        return {f"{name}{k}": values for k, each in enumerate(self.equations) for name, values in each.parameters().items()}

    def linear(self, cohort: Cohort) -> F64:
        return np.stack([each.linear(cohort) for each in self.equations], axis=1)


def _values(design: Design, rng: np.random.Generator) -> Query:
    family: Family = "count" if rng.random() < 0.5 else "continuous"
    low = float(rng.uniform(-1, 0.9))
    window = (-1.0, 1.0) if rng.random() < 0.3 else (low, float(rng.uniform(low + 0.01, 1)))
    return ValueSums(equation(family, design, BMI, rng), window, GROUPS[rng.integers(0, 3)])


def _levels(design: Design, rng: np.random.Generator) -> Query:
    zones = Zones(tuple(equation("binary", design, ZONE, rng) for _ in ZONE.levels))
    return LevelCounts(zones, GROUPS[rng.integers(0, 2)])


def _losses(design: Design, rng: np.random.Generator) -> Query:
    """Of two models of one outcome, whatever its family."""
    family, outcome = (("binary", CASE), ("continuous", BMI), ("count", BMI), ("levels", ZONE))[rng.integers(0, 4)]
    if family == "levels":
        zones = (Zones(tuple(equation("binary", design, ZONE, rng) for _ in ZONE.levels)) for _ in range(2))
        return Losses(tuple(zones))
    return Losses((equation(family, design, outcome, rng), equation(family, design, outcome, rng)))


def _models(design: Design, name: str) -> list[Entry]:
    return [
        Entry(f"glm.complete {name}", lambda rng: glm.Complete(design, CASE)),
        Entry(f"glm.moments {name}", lambda rng: glm.FeatureMoments(design, CASE)),
        Entry(f"glm.gram {name}", lambda rng: glm.Gram(design, CASE, scale(design, rng))),
        Entry(f"glm.classes {name}", lambda rng: glm.ClassSums(design, CASE, scale(design, rng))),
        Entry(f"glm.score {name}", lambda rng: glm.Score(design, CASE, scale(design, rng), beta(design, rng))),
        Entry(f"glm.information {name}", lambda rng: glm.Information(design, CASE, scale(design, rng), beta(design, rng))),
        Entry(f"scores {name}", lambda rng: _risks(design, rng)),
        Entry(f"scores.values {name}", lambda rng: _values(design, rng)),
        Entry(f"scores.levels {name}", lambda rng: _levels(design, rng)),
        Entry(f"select.losses {name}", lambda rng: _losses(design, rng)),
    ]


def _on_x(design: Design, name: str) -> list[Entry]:
    """The queries on x alone, for designs with products and hats."""
    return [
        Entry(f"glm.gram {name}", lambda rng: glm.Gram(design, CASE, scale(design, rng))),
        Entry(f"glm.classes {name}", lambda rng: glm.ClassSums(design, CASE, scale(design, rng))),
        Entry(f"glm.score {name}", lambda rng: glm.Score(design, CASE, scale(design, rng), beta(design, rng))),
    ]


def _measured(design: Design, outcome: Column, name: str) -> list[Entry]:
    def residuals(rng: np.random.Generator) -> Query:
        target = float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.1, 0.7))
        return Residuals(design, outcome, scale(design, rng), *target, beta(design, rng), *rng.uniform(0.2, 3.0, 2).tolist())

    def cross(rng: np.random.Generator) -> Query:
        return CrossSums(design, outcome, scale(design, rng), *rng.uniform(0.1, 0.5, 2).tolist(), float(rng.uniform(0.5, 8.0)))

    return [
        Entry(f"glm.complete {name}", lambda rng: glm.Complete(design, outcome)),
        Entry(f"glm.moments {name}", lambda rng: glm.FeatureMoments(design, outcome)),
        Entry(f"glm.cross {name}", cross),
        Entry(f"glm.residual {name}", residuals),
    ]


ENTRIES = [
    Entry("glm.complete of four levels", lambda rng: glm.Complete(COMPLETE_CASES, ZONE)),
    Entry("count of all", lambda rng: CellCounts(())),
    Entry("count by sex", lambda rng: CellCounts((SEX,))),
    Entry("count by zone, sex and case", lambda rng: CellCounts((ZONE, SEX, CASE))),
    Entry("moments", lambda rng: MomentSums((AGE, BMI, DRIFT))),
    Entry("moments of one", lambda rng: MomentSums((DRIFT,))),
    Entry("histogram", lambda rng: BinCounts(BMI, int(rng.integers(2, 40)))),
    Entry("histogram of levels", lambda rng: BinCounts(ZONE, len(ZONE.levels))),
    Entry("quantiles", lambda rng: TreeCounts(AGE)),
    *_models(COMPLETE_CASES, "of complete cases"),
    *_models(INDICATORS, "with indicators"),
    *_on_x(CROSSED, "with products"),
    *_on_x(CURVED, "with hats"),
    *_measured(COMPLETE_CASES, DRIFT, "of a measured outcome"),
    *_measured(CURVED, BMI, "of a measured outcome on hats"),
]


def query_classes() -> set[type]:
    """Every class of ahh_federated.analyses that has a `kind`, found by walking the modules."""
    found: set[type] = set()
    for module in pkgutil.walk_packages(ahh_federated.analyses.__path__, "ahh_federated.analyses."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name and isinstance(getattr(value, "kind", None), str):
                found.add(value)
    return found
