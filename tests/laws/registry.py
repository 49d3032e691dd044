"""Every query there is, with a way to make one: a new query without laws fails test_registry.py."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import ahh_federated.analyses
from ahh_federated.analyses import glm
from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.histograms import BinCounts
from ahh_federated.analyses.moments import MomentSums
from ahh_federated.analyses.quantiles import TreeCounts
from ahh_federated.analyses.scores import RiskCounts
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.queries import Query

AGE = Numeric("age", 0.0, 18.0, "years")
BMI = Numeric("bmi", 9.5, 40.25, "kg/m2")
DRIFT = Numeric("drift", -1e-3, 7e5, "units")
SEX = Levels("sex", ("boy", "girl"))
ZONE = Levels("zone", ("north", "east", "south", "west"))
CASE = Levels("case", ("no", "yes"))
COLUMNS: tuple[Column, ...] = (AGE, BMI, DRIFT, SEX, ZONE, CASE)

COMPLETE_CASES = Design((AGE, BMI, SEX, ZONE))
INDICATORS = Design((AGE, DRIFT, ZONE), indicators=True)


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
    return RiskCounts(design, CASE, scale(design, rng), beta(design, rng), edges)


def _models(design: Design, name: str) -> list[Entry]:
    return [
        Entry(f"glm.complete {name}", lambda rng: glm.Complete(design, CASE)),
        Entry(f"glm.moments {name}", lambda rng: glm.FeatureMoments(design, CASE)),
        Entry(f"glm.gram {name}", lambda rng: glm.Gram(design, CASE, scale(design, rng))),
        Entry(f"glm.classes {name}", lambda rng: glm.ClassSums(design, CASE, scale(design, rng))),
        Entry(f"glm.score {name}", lambda rng: glm.Score(design, CASE, scale(design, rng), beta(design, rng))),
        Entry(f"glm.information {name}", lambda rng: glm.Information(design, CASE, scale(design, rng), beta(design, rng))),
        Entry(f"scores {name}", lambda rng: _risks(design, rng)),
    ]


ENTRIES = [
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
]


def query_classes() -> set[type]:
    """Every class of ahh_federated.analyses that has a `kind`, found by walking the modules."""
    found: set[type] = set()
    for module in pkgutil.walk_packages(ahh_federated.analyses.__path__, "ahh_federated.analyses."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name and isinstance(getattr(value, "kind", None), str):
                found.add(value)
    return found
