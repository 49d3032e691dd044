"""A fitted logistic regression: the equation for prediction, the estimates for inference, on the original scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.coefficients import equation, original, references, table
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.models import Equation, Family
from ahh_federated.analyses.numbers import number, share_used
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Levels
from ahh_federated.core.queries import Parameters

_STRONG = 2.0  # standard deviations of the linear predictor; an AUROC of about 0.9
_SEPARATED = (
    "This model tells cases from the others so well that the few messages of the fit do not settle its coefficients: "
    "the intervals of the odds ratios are too narrow."
)


@dataclass(frozen=True, slots=True)
class Used:
    """Patients used without the event and with it, those not used, and the standard error of each number."""

    without: float
    events: float
    unused: float
    stderr: float


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Everything here is released or derived from releases.

    `beta` (shrunk) and `estimate` (not shrunk) are on the scale of x; `sampling` and `privacy` are the two parts of
    the estimate's covariance.
    `spread`: mean and standard deviation of the linear predictor over patients, as the releases tell them.
    """

    design: Design
    outcome: Levels
    scale: Scale
    beta: tuple[float, ...]
    estimate: tuple[float, ...]
    sampling: F64
    privacy: F64
    used: Used
    spread: tuple[float, float]
    partners: tuple[str, ...]
    rounds: int

    def to_original(self) -> F64:
        """The matrix that turns coefficients of x into coefficients per unit, shape (width, width)."""
        return original(self.design, self.scale)

    def coefficients(self) -> F64:
        """Log odds per unit, intercept first, not shrunk."""
        return np.asarray(self.to_original() @ np.array(self.estimate))

    def standard_errors(self) -> tuple[F64, F64]:
        """Of `coefficients`: the sampling part and the privacy part."""
        matrix = self.to_original()
        parts = (matrix @ self.sampling @ matrix.T, matrix @ self.privacy @ matrix.T)
        sampling, privacy = (np.sqrt(np.maximum(np.diag(part), 0.0)) for part in parts)
        return sampling, privacy

    def equation(self) -> F64:
        """Log odds per unit, intercept first, shrunk: for prediction."""
        return np.asarray(self.to_original() @ np.array(self.beta))

    @property
    def family(self) -> Family:
        return "binary"

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    def _predictor(self) -> Equation:
        return Equation(self.family, self.design, self.outcome, self.scale, self.beta)

    def parameters(self) -> Parameters:
        return self._predictor().parameters()

    def linear(self, cohort: Cohort) -> F64:
        """The predicted log odds, shape (patients,), NaN where a needed column is not known."""
        return self._predictor().linear(cohort)

    def predict(self, cohort: Cohort) -> F64:
        """The predicted risk, shape (patients,), NaN where a needed column is not known."""
        return np.asarray(expit(self.linear(cohort)))

    def to_json(self) -> dict[str, Any]:
        se, patients = self.used.stderr, self.used.without + self.used.events
        return {
            "outcome": self.outcome.name,
            "reference": references(self.design),
            "n": number(patients, math.sqrt(2) * se, least=0.0).to_json(),
            "events": number(self.used.events, se, least=0.0).to_json(),
            "complete": share_used(patients, self.used.unused, se, 2).to_json(),
            "terms": table(self.design, self.scale, np.array(self.estimate), self.sampling, self.privacy, odds=True),
            "equation": equation(self.design, self.scale, np.array(self.beta)),
            "rounds": self.rounds,
            "partners": list(self.partners),
            "notes": [_SEPARATED] if self.spread[1] > _STRONG and not self.scale.exact else [],
        }
