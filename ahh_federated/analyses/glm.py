"""Queries of a logistic regression by DP-Newton, with the proof of each bound.

x is the design's vector (analyses/design.py), R its public radius, w = min(1, R**2/||x||**2), p = sigma(x'beta).
The weight depends on x alone, so the weighted score stays unbiased (Mallows weights); clipping residuals does not.

    kind              one patient contributes                       bound     why
    glm.complete/1    e[no event], e[event] or e[not used]            1         one unit vector
    glm.moments/1     (1, z, z**2 ..., indicators ...)              see class
    glm.gram/1        w x x'                                        R**2      w ||x||**2 <= R**2
    glm.classes/1     w x placed by the outcome                     R         w ||x|| <= R
    glm.score/1       w x (p - y)                                   R         |p - y| <= 1
    glm.information/1 p (1 - p) w x x'                              R**2 / 4  p (1 - p) <= 1/4

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
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.queries import Parameters


@dataclass(frozen=True, slots=True)
class Complete:
    """Patients used without the event, used with it, and not used since a feature or the outcome is not known."""

    design: Design
    outcome: Levels
    kind: ClassVar[str] = "glm.complete/1"

    @property
    def width(self) -> int:
        return 3

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
        return one_hot(np.where(used, y, 2.0), 3)

    def patients(self, total: F64) -> float | None:
        return float(total[0] + total[1])


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """(1, then z and z**2 for a measured column, the indicators of the levels of the others), a zero row if not used.

    Bound sqrt(1 + 2 p + q), p measured columns and q columns with levels: z**2 + z**4 <= 2, and one indicator at most
    is 1.  With indicators a measured value not known adds z = 0 and one indicator, 1 <= 2.
    """

    design: Design
    outcome: Levels
    kind: ClassVar[str] = "glm.moments/1"

    @property
    def width(self) -> int:
        return 1 + len(self.design.terms) + self._measured

    @property
    def _measured(self) -> int:
        return sum(isinstance(column, Numeric) for column in self.design.features)

    @property
    def bound(self) -> float:
        return math.sqrt(1 + len(self.design.features) + self._measured)

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        rows = [np.where(np.isnan(cohort[self.outcome.name]), np.nan, 1.0)]
        for term, u in zip(self.design.terms, self.design.terms_of(cohort), strict=True):
            if isinstance(term.column, Numeric) and term.level is None:
                z = np.where(np.isnan(u), 0.0, u) if self.design.indicators else u
                rows += [z, z * z]
            else:
                rows.append(u)
        return np.stack(rows).T

    def patients(self, total: F64) -> float | None:
        return None  # `glm.complete` has told, with less noise


@dataclass(frozen=True, slots=True)
class _Scaled:
    """What the queries on x share: the design, the outcome (only patients with a known one count) and the scale."""

    design: Design
    outcome: Levels
    scale: Scale

    def parameters(self) -> Parameters:
        scale = {"centre": list(self.scale.centre), "spread": list(self.scale.spread)}
        return scale if self.scale.exact else {**scale, "radius": [self.scale.radius]}

    def patients(self, total: F64) -> float | None:
        return None

    def _x(self, cohort: Cohort) -> tuple[F64, F64, F64]:
        """x in grid steps (width, patients), the weight divided by the steps in a unit, and y; NaN where y is not known."""
        x = self.scale.standardised(self.design, cohort)
        y = cohort[self.outcome.name]
        weight = np.where(np.isnan(y), np.nan, self.scale.weights(x))
        return x, weight / self.scale.unit, y


@dataclass(frozen=True, slots=True)
class Gram(_Scaled):
    """sum w x x', as squares of the factor sqrt(w) x."""

    kind: ClassVar[str] = "glm.gram/1"

    @property
    def width(self) -> int:
        return self.design.width**2

    @property
    def bound(self) -> float:
        return self.scale.radius**2

    def factors(self, cohort: Cohort) -> F64:
        x, weight, _ = self._x(cohort)
        return (x * np.sqrt(weight / self.scale.unit)).T


@dataclass(frozen=True, slots=True)
class ClassSums(_Scaled):
    """sum of w x over patients with the outcome, then over those without."""

    kind: ClassVar[str] = "glm.classes/1"

    @property
    def width(self) -> int:
        return 2 * self.design.width

    @property
    def bound(self) -> float:
        return self.scale.radius

    def rows(self, cohort: Cohort) -> F64:
        x, weight, y = self._x(cohort)
        return np.concatenate([x * (weight * y), x * (weight * (1 - y))]).T


@dataclass(frozen=True, slots=True)
class Score(_Scaled):
    """sum w x (p - y): the gradient of the weighted negative log-likelihood at beta."""

    beta: tuple[float, ...]
    kind: ClassVar[str] = "glm.score/1"

    @property
    def width(self) -> int:
        return self.design.width

    @property
    def bound(self) -> float:
        return self.scale.radius

    def parameters(self) -> Parameters:
        return {**_Scaled.parameters(self), "beta": list(self.beta)}

    def rows(self, cohort: Cohort) -> F64:
        x, weight, y = self._x(cohort)
        residual = expit(self.scale.predictor(x, np.array(self.beta))) - y
        np.multiply(x, weight * residual, out=x)
        return x.T


@dataclass(frozen=True, slots=True)
class Information(_Scaled):
    """sum p (1 - p) w x x': the Hessian of the weighted negative log-likelihood at beta."""

    beta: tuple[float, ...]
    kind: ClassVar[str] = "glm.information/1"

    @property
    def width(self) -> int:
        return self.design.width**2

    @property
    def bound(self) -> float:
        return self.scale.radius**2 / 4

    def parameters(self) -> Parameters:
        return {**_Scaled.parameters(self), "beta": list(self.beta)}

    def factors(self, cohort: Cohort) -> F64:
        x, weight, _ = self._x(cohort)
        p = expit(self.scale.predictor(x, np.array(self.beta)))
        return (x * np.sqrt(weight / self.scale.unit * p * (1 - p))).T
