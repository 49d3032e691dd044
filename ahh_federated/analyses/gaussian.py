"""Queries about a measured outcome, with the proof of each bound; the others are those of analyses/glm.py.

x, w and R as there.  e = (y - centre) / spread is the outcome on [-1, 1], standardised by its released moments.

    kind              one patient contributes                          bound             why
    glm.cross/2       w x t, then w x (1 - t)                          R                 see class
    glm.residual/2    w x r, then c w q**2                             c sqrt(R**2 + 1)  |r| <= c, |q| <= 1, w <= 1, w ||x|| <= R
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ahh_federated.analyses.glm import Scaled
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.queries import Parameters


@dataclass(frozen=True, slots=True)
class _Standardised(Scaled):
    """`centre` and `spread` are those of the outcome on [-1, 1]."""

    centre: float
    spread: float

    def parameters(self) -> Parameters:
        return {**Scaled.parameters(self), "outcome_centre": [self.centre], "outcome_spread": [self.spread]}

    def outcome_of(self, y: F64) -> F64:
        """e, shape (patients,)."""
        assert isinstance(self.outcome, Numeric), f"{self.outcome.name} is not measured"
        return (self.outcome.scaled(y) - self.centre) / self.spread


@dataclass(frozen=True, slots=True)
class CrossSums(_Standardised):
    """sum of w x t, then of w x (1 - t), with t = (1 + clip(e / c, -1, 1)) / 2; c is `reach`.

    Their sum is sum w x and their difference sum w x e / c.  Bound: t is in [0, 1], so t**2 + (1 - t)**2 <= 1 and the norm is
    at most w ||x|| <= R.
    """

    reach: float
    kind: ClassVar[str] = "glm.cross/2"

    @property
    def width(self) -> int:
        return 2 * self.design.width

    @property
    def bound(self) -> float:
        return self.scale.radius

    def parameters(self) -> Parameters:
        return {**_Standardised.parameters(self), "reach": [self.reach]}

    def rows(self, cohort: Cohort) -> F64:
        return self.rows_from(*self.x(cohort))

    def rows_from(self, x: F64, weight: F64, y: F64) -> F64:
        """Rows of what `x` gives."""
        e = self.outcome_of(y) / self.reach
        t = (1 + (e if self.scale.exact else np.clip(e, -1, 1))) / 2
        rows = np.empty((self.width, len(y)))
        np.multiply(x, weight * t, out=rows[: self.design.width])
        np.multiply(x, weight * (1 - t), out=rows[self.design.width :])
        return rows.T


@dataclass(frozen=True, slots=True)
class Residuals(_Standardised):
    """sum of w x r: the gradient of the weighted squared error at beta, halved; then of c w q**2.

    r = clip(x'beta - e, -c, c) and q = clip((x'beta - e) / b, -1, 1), with c `reach` and b `square_reach`.
    Bound: ||w x r|| <= R c and c w q**2 <= c, hence c sqrt(R**2 + 1).
    """

    beta: tuple[float, ...]
    reach: float
    square_reach: float
    kind: ClassVar[str] = "glm.residual/2"

    @property
    def width(self) -> int:
        return self.design.width + 1

    @property
    def bound(self) -> float:
        return self.reach * math.hypot(self.scale.radius, 1.0)

    def parameters(self) -> Parameters:
        return {
            **_Standardised.parameters(self),
            "beta": list(self.beta),
            "reach": [self.reach],
            "square_reach": [self.square_reach],
        }

    def rows(self, cohort: Cohort) -> F64:
        x, weight, y = self.x(cohort)
        r = self.scale.predictor(x, np.array(self.beta)) - self.outcome_of(y)
        q = r / self.square_reach
        if not self.scale.exact:
            r, q = np.clip(r, -self.reach, self.reach), np.clip(q, -1, 1)
        rows = np.empty((self.width, x.shape[1]))
        np.multiply(x, weight * r, out=rows[:-1])
        rows[-1] = weight * self.scale.unit * self.reach * q**2
        return rows.T
