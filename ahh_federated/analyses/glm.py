"""Queries of regressions by DP-Newton, with the proof of each bound.

x is the design's vector (analyses/design.py), R its public radius, w = min(1, R**2/||x||**2), p = sigma(x'beta).
The weight depends on x alone, so the weighted score stays unbiased (Mallows weights); clipping residuals does not.

    kind              one patient contributes                       bound     why
    glm.complete/1    e[level of the outcome] or e[not used]          1         one unit vector
                      (e[used] or e[not used], outcome measured)
    glm.moments/1     (1, z, z**2 ..., indicators ...)              see class
    glm.gram/2        w x x'                                        R**2      w ||x||**2 <= R**2
    glm.classes/3     w x placed by the outcome, lean of values     see class
    glm.score/2       w x (p - y)                                   R         |p - y| <= 1
    glm.information/2 p (1 - p) w x x'                              R**2 / 4  p (1 - p) <= 1/4

Products of terms and hats are coordinates of x like any other: they need no query, and no bound, of their own.  What is
asked about a measured outcome besides stands in analyses/gaussian.py.

Rounding x to the grid happens before w is computed, so the inequalities hold for the x that is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.onehot import one_hot
from ahh_federated.analyses.skewness import TAIL
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.queries import Parameters

LEAN = 0.3  # how much of a patient's bound tells how lopsided measured columns are


@dataclass(frozen=True, slots=True)
class Complete:
    """Patients used, by level of the outcome if it has levels, and not used since a feature or the outcome is not known."""

    design: Design
    outcome: Column
    kind: ClassVar[str] = "glm.complete/1"

    @property
    def width(self) -> int:
        return 1 + (len(self.outcome.levels) if isinstance(self.outcome, Levels) else 1)

    @property
    def bound(self) -> float:
        return 1.0

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        y = cohort[self.outcome.name]
        used = ~np.isnan(y)
        if not self.design.indicators:
            used &= self.design.complete(cohort)
        cell = y if isinstance(self.outcome, Levels) else 0.0
        return one_hot(np.where(used, cell, self.width - 1.0), self.width)

    def patients(self, total: F64) -> float | None:
        return float(total[:-1].sum())


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """(1, then z and z**2 for a measured column, the indicators of the levels of the others), a zero row if not used.

    A measured outcome adds its own z and z**2 at the end.

    Bound sqrt(1 + 2 p + q), p measured columns (the outcome one of them) and q columns with levels: z**2 + z**4 <= 2, and one
    indicator at most is 1.  With indicators a measured value not known adds z = 0 and one indicator, 1 <= 2.
    """

    design: Design
    outcome: Column
    kind: ClassVar[str] = "glm.moments/1"

    @property
    def width(self) -> int:
        return 1 + len(self.design.main) + len(self.design.measured) + 2 * isinstance(self.outcome, Numeric)

    @property
    def bound(self) -> float:
        measured = len(self.design.measured) + isinstance(self.outcome, Numeric)
        levels = len(self.design.features) - len(self.design.measured)
        return math.sqrt(1 + 2 * measured + levels)

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        y = cohort[self.outcome.name]
        rows = np.empty((self.width, len(cohort)))
        rows[0] = np.where(np.isnan(y), np.nan, 1.0)
        at = 1
        for term, u in zip(self.design.main, self.design.terms_of(cohort), strict=True):
            rows[at] = np.where(np.isnan(u), 0.0, u) if term.measured and self.design.indicators else u
            at += 1
            if term.measured:
                np.multiply(rows[at - 1], rows[at - 1], out=rows[at])
                at += 1
        if isinstance(self.outcome, Numeric):
            rows[at] = self.outcome.scaled(y)
            np.multiply(rows[at], rows[at], out=rows[at + 1])
        return rows.T

    def patients(self, total: F64) -> float | None:
        return None  # `glm.complete` has told, with less noise


@dataclass(frozen=True, slots=True)
class Scaled:
    """What the queries on x share: the design, the outcome (only patients with a known one count) and the scale."""

    design: Design
    outcome: Column
    scale: Scale

    def parameters(self) -> Parameters:
        scale = {"centre": list(self.scale.centre), "spread": list(self.scale.spread)}
        return scale if self.scale.exact else {**scale, "radius": [self.scale.radius]}

    def patients(self, total: F64) -> float | None:
        return None

    def x(self, cohort: Cohort) -> tuple[F64, F64, F64]:
        """x in grid steps (width, patients), the weight divided by the steps in a unit, and y; NaN where y is not known."""
        x = self.scale.standardised(self.design, cohort)
        y = cohort[self.outcome.name]
        weight = np.where(np.isnan(y), np.nan, self.scale.weights(x))
        return x, weight / self.scale.unit, y


@dataclass(frozen=True, slots=True)
class Gram(Scaled):
    """sum w x x', as squares of the factor sqrt(w) x."""

    kind: ClassVar[str] = "glm.gram/2"

    @property
    def width(self) -> int:
        return self.design.width**2

    @property
    def bound(self) -> float:
        return self.scale.radius**2

    def factors(self, cohort: Cohort) -> F64:
        x, weight, _ = self.x(cohort)
        return self.factors_from(x, weight)

    def factors_from(self, x: F64, weight: F64) -> F64:
        """Factors of what `x` gives, in its place."""
        return np.multiply(x, np.sqrt(weight / self.scale.unit), out=x).T


@dataclass(frozen=True, slots=True)
class ClassSums(Scaled):
    """sum w x over patients with the event, then over those without; then LEAN w z|z|/4 of each measured column, z = x cut at 4.

    Bound R sqrt(1 + LEAN**2): one of the halves is zero, the other w x; and |z| <= 4 makes |z|z|/4| <= |z| <= |x|, so the last
    part is at most LEAN w ||x||.
    """

    kind: ClassVar[str] = "glm.classes/3"

    @property
    def width(self) -> int:
        return 2 * self.design.width + len(self.design.measured)

    @property
    def bound(self) -> float:
        return self.scale.radius * math.hypot(1.0, LEAN)

    def rows(self, cohort: Cohort) -> F64:
        return self.rows_from(*self.x(cohort))

    def rows_from(self, x: F64, weight: F64, y: F64) -> F64:
        """Rows of what `x` gives."""
        width = self.design.width
        rows = np.empty((self.width, len(y)))
        np.multiply(x, weight * y, out=rows[:width])
        np.multiply(x, weight * (1 - y), out=rows[width : 2 * width])
        tail = TAIL * self.scale.unit
        z = np.clip(x[list(self.design.measured)], -tail, tail)
        np.multiply(z * np.abs(z), weight * (LEAN / tail), out=rows[2 * width :])
        return rows.T


@dataclass(frozen=True, slots=True)
class Score(Scaled):
    """sum w x (p - y): the gradient of the weighted negative log-likelihood at beta."""

    beta: tuple[float, ...]
    kind: ClassVar[str] = "glm.score/2"

    @property
    def width(self) -> int:
        return self.design.width

    @property
    def bound(self) -> float:
        return self.scale.radius

    def parameters(self) -> Parameters:
        return {**Scaled.parameters(self), "beta": list(self.beta)}

    def rows(self, cohort: Cohort) -> F64:
        x, weight, y = self.x(cohort)
        residual = expit(self.scale.predictor(x, np.array(self.beta))) - y
        np.multiply(x, weight * residual, out=x)
        return x.T


@dataclass(frozen=True, slots=True)
class Information(Scaled):
    """sum p (1 - p) w x x': the Hessian of the weighted negative log-likelihood at beta."""

    beta: tuple[float, ...]
    kind: ClassVar[str] = "glm.information/2"

    @property
    def width(self) -> int:
        return self.design.width**2

    @property
    def bound(self) -> float:
        return self.scale.radius**2 / 4

    def parameters(self) -> Parameters:
        return {**Scaled.parameters(self), "beta": list(self.beta)}

    def factors(self, cohort: Cohort) -> F64:
        x, weight, _ = self.x(cohort)
        p = expit(self.scale.predictor(x, np.array(self.beta)))
        return (x * np.sqrt(weight / self.scale.unit * p * (1 - p))).T
