"""A fitted linear regression: the equation for prediction, the estimates for inference, in the outcome's unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ahh_federated.analyses.coefficients import equation, original, references, table
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.models import Equation, Family
from ahh_federated.analyses.numbers import Number, number, share_used
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Numeric
from ahh_federated.core.queries import Parameters


@dataclass(frozen=True, slots=True)
class Target:
    """A measured outcome, mapped onto [-1, 1] and standardised by its released centre and spread: e = (y - centre) / spread."""

    outcome: Numeric
    centre: float
    spread: float

    def coefficients(self, beta: F64) -> tuple[float, ...]:
        """Of y on [-1, 1], from those of e."""
        moved = self.spread * beta
        moved[0] += self.centre
        return tuple(float(value) for value in moved)

    def sd(self, variance: float) -> float:
        """A standard deviation in the outcome's unit, from a variance of e."""
        return self.outcome.half * self.spread * math.sqrt(max(variance, 0.0))


@dataclass(frozen=True, slots=True)
class Counted:
    """Patients used and not used, and the standard error of each number."""

    used: float
    unused: float
    stderr: float


@dataclass(frozen=True, slots=True, eq=False)
class LinearFit:
    """Everything here is released or derived from releases.

    `beta` (shrunk) and `estimate` (not shrunk) are coefficients of x, for the outcome on [-1, 1]; `sampling` and `privacy` are
    the two parts of the estimate's covariance.
    `spread`: mean and standard deviation of the predicted value over patients, in the outcome's unit.
    """

    design: Design
    outcome: Numeric
    scale: Scale
    beta: tuple[float, ...]
    estimate: tuple[float, ...]
    sampling: F64
    privacy: F64
    used: Counted
    residual_sd: Number
    spread: tuple[float, float]
    partners: tuple[str, ...]
    rounds: int

    @property
    def family(self) -> Family:
        return "continuous"

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    @property
    def outcome_spread(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the outcome, in its unit."""
        rest = self.residual_sd.value
        return None if rest is None else (self.spread[0], math.hypot(self.spread[1], rest))

    def _predictor(self) -> Equation:
        return Equation(self.family, self.design, self.outcome, self.scale, self.beta)

    def parameters(self) -> Parameters:
        return self._predictor().parameters()

    def linear(self, cohort: Cohort) -> F64:
        """The predicted value in the outcome's unit, shape (patients,), NaN where a needed column is not known."""
        return self._predictor().linear(cohort)

    predict = linear

    def _in_unit(self, beta: tuple[float, ...]) -> F64:
        """Coefficients of x, for the outcome in its unit."""
        values = self.outcome.half * np.array(beta)
        values[0] += self.outcome.middle
        return values

    def coefficients(self) -> F64:
        """Outcome units per unit, intercept first, not shrunk."""
        return np.asarray(original(self.design, self.scale) @ self._in_unit(self.estimate))

    def standard_errors(self) -> tuple[F64, F64]:
        """Of `coefficients`: the sampling part and the privacy part."""
        matrix = self.outcome.half * original(self.design, self.scale)
        sampling, privacy = (
            np.sqrt(np.maximum(np.diag(matrix @ part @ matrix.T), 0.0)) for part in (self.sampling, self.privacy)
        )
        return sampling, privacy

    def equation(self) -> F64:
        """Outcome units per unit, intercept first, shrunk: for prediction."""
        return np.asarray(original(self.design, self.scale) @ self._in_unit(self.beta))

    def to_json(self) -> dict[str, Any]:
        square = self.outcome.half**2
        estimate = self._in_unit(self.estimate)
        return {
            "outcome": self.outcome.name,
            "unit": self.outcome.unit,
            "reference": references(self.design),
            "n": number(self.used.used, self.used.stderr, least=0.0).to_json(),
            "complete": share_used(self.used.used, self.used.unused, self.used.stderr, 1).to_json(),
            "residual_sd": self.residual_sd.to_json(),
            "terms": table(self.design, self.scale, estimate, square * self.sampling, square * self.privacy, odds=False),
            "equation": equation(self.design, self.scale, self._in_unit(self.beta)),
            "rounds": self.rounds,
            "partners": list(self.partners),
            "notes": [],
        }
