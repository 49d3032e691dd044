"""A fitted logistic regression: the equation for prediction, the estimates for inference, on the original scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, log_ndtr

from ahh_federated.analyses.design import LIMIT, Design, Scale
from ahh_federated.analyses.numbers import Z95, Number, missing, number
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.releases import Status

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
    `predictor`: mean and standard deviation of the linear predictor over patients, as the releases tell them.
    """

    design: Design
    outcome: Levels
    scale: Scale
    beta: tuple[float, ...]
    estimate: tuple[float, ...]
    sampling: F64
    privacy: F64
    used: Used
    predictor: tuple[float, float]
    partners: tuple[str, ...]
    rounds: int

    def to_original(self) -> F64:
        """The matrix that turns coefficients of x into coefficients per unit, shape (width, width)."""
        matrix = np.eye(self.design.width)
        for j, term in enumerate(self.design.terms, start=1):
            centre, spread = self.scale.centre[j - 1], self.scale.spread[j - 1]
            if isinstance(term.column, Numeric) and term.level is None:
                slope = 2 / (term.column.high - term.column.low) / spread
                matrix[j, j] = slope
                matrix[0, j] = -slope * term.column.unscaled(centre)
            else:
                matrix[j, j] = 1 / spread
                matrix[0, j] = -centre / spread
        return matrix

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

    def predict(self, cohort: Cohort) -> F64:
        """The predicted risk, shape (patients,), NaN where a needed column is not known."""
        x = self.scale.standardised(self.design, cohort)
        return np.asarray(expit(self.scale.predictor(x, np.array(self.beta))))

    def to_json(self) -> dict[str, Any]:
        se, patients = self.used.stderr, self.used.without + self.used.events
        return {
            "outcome": self.outcome.name,
            "reference": {c.name: c.levels[0] for c in self.design.features if isinstance(c, Levels)},
            "n": number(patients, math.sqrt(2) * se, least=0.0).to_json(),
            "events": number(self.used.events, se, least=0.0).to_json(),
            "complete": _share(patients, self.used.unused, se).to_json(),
            "terms": self._terms(),
            "equation": self._equation(),
            "rounds": self.rounds,
            "partners": list(self.partners),
            "notes": [_SEPARATED] if self.predictor[1] > _STRONG and not self.scale.exact else [],
        }

    def _terms(self) -> list[dict[str, Any]]:
        names = ["(intercept)", *(_name(term.column.name, term) for term in self.design.terms)]
        terms: list[dict[str, Any]] = []
        sampling, privacy = self.standard_errors()
        for j, value in enumerate(self.coefficients()):
            term = self.design.terms[j - 1] if j else None
            se = math.hypot(sampling[j], privacy[j])
            measured = term is not None and term.level is None and isinstance(term.column, Numeric)
            terms.append(
                {
                    "name": names[j],
                    "column": term.column.name if term else None,
                    "level": term.level if term else None,
                    "unit": term.column.unit if term and measured and isinstance(term.column, Numeric) else None,
                    "coefficient": float(value),
                    "se_privacy": float(privacy[j]),
                    "se_sampling": float(sampling[j]),
                    "se": se,
                    "odds_ratio": _exp(value),
                    "low": _exp(value - Z95 * se),
                    "high": _exp(value + Z95 * se),
                    "p": float(2 * np.exp(log_ndtr(-abs(value) / se))) if se > 0 else None,
                }
            )
        return terms

    def _equation(self) -> dict[str, Any]:
        values = self.equation()
        terms = []
        for j, term in enumerate(self.design.terms, start=1):
            entry: dict[str, Any] = {"column": term.column.name, "level": term.level, "coefficient": float(values[j])}
            if isinstance(term.column, Numeric) and term.level is None:
                entry["clip"] = self._clip(term.column, j)
                entry["centre"] = term.column.unscaled(self.scale.centre[j - 1])
            terms.append(entry)
        return {"intercept": float(values[0]), "terms": terms}

    def _clip(self, column: Numeric, j: int) -> list[float]:
        """Values beyond four spreads of the centre, or outside the public range, count as these."""
        centre, spread = self.scale.centre[j - 1], self.scale.spread[j - 1]
        if self.scale.exact:
            return [column.low, column.high]
        low, high = max(centre - LIMIT * spread, -1.0), min(centre + LIMIT * spread, 1.0)
        return [column.unscaled(low), column.unscaled(high)]


def _share(used: float, unused: float, se: float) -> Number:
    """The share of patients used; `used` is the sum of two cells."""
    everybody = used + unused
    if everybody <= max(2 * se, 1.0):
        return missing(Status.BELOW)
    slope = math.hypot(math.sqrt(2) * unused, used) / everybody**2
    return number(used / everybody, slope * se, least=0.0, most=1.0)


def _name(column: str, term: Any) -> str:
    label = column.replace("_", " ")
    if term.level is not None:
        return f"{label}: {term.level}"
    return f"{label} (per {term.column.unit})"


def _exp(value: float) -> float:
    return math.exp(min(float(value), 700.0))
