"""A model fitted to each partner: intercept and slope of the outcome on the shared model's prediction.

A model that travels badly is mostly miscalibrated, seldom worse at ranking (Van Calster et al., "Calibration: the Achilles
heel of predictive analytics", BMC Medicine 2019).  One message of the same kind as an evaluation tells each partner's own
numbers; it is paid like everything else, and all the rest is free post-processing:

    two levels   logit p' = a + b logit p,   from patients by outcome and bin of the log odds     (`scores/2`)
    values       y' = a + b p,               from the sums of (1, y, p, y**2, p**2, y p)          (`scores.values/2`)

A partner's (a, b) is noisy, so it is drawn towards that of all partners together, and that towards (0, 1), as far as its
error asks: with V the covariance of its estimate (sampling error and privacy noise) and P the public prior spread between
partners, the part P (P + V)^-1 of the difference is kept (empirical Bayes, Efron & Morris, JASA 1975).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ahh_federated.analyses.groups import EVERYBODY, TOO_FEW, by_partner
from ahh_federated.analyses.metrics import FEWEST, Bins, gradient, recalibrated
from ahh_federated.analyses.models import Model, ModelAnalysis
from ahh_federated.analyses.numbers import number
from ahh_federated.analyses.scores import Scores
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Numeric
from ahh_federated.core.programs import Line, Program
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Pooled, Round, Status

_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Intercept and slope, and the two parts of their covariance, each of shape (2, 2)."""

    value: F64
    sampling: F64
    privacy: F64

    def drawn_to(self, other: F64, prior: F64) -> F64:
        keep = prior @ np.linalg.inv(prior + self.sampling + self.privacy)
        return np.asarray(other + keep @ (self.value - other))

    def to_json(self) -> dict[str, Any]:
        found = {}
        for k, name in enumerate(("intercept", "slope")):
            noise, sampling = math.sqrt(max(self.privacy[k, k], 0.0)), math.sqrt(max(self.sampling[k, k], 0.0))
            found[name] = number(float(self.value[k]), noise, sampling=sampling).to_json()
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """The answer of `recalibration`.  `used` holds each partner's (a, b), drawn as said above.

    For a measured outcome the intercept is in the outcome's unit.
    """

    ask: str
    model: Model
    overall: Estimate | None
    partners: dict[str, Estimate | Status | None]
    prior: F64

    @property
    def used(self) -> dict[str, tuple[float, float]]:
        """(intercept, slope) by partner; of all together, drawn towards no change, where a partner has none of its own."""
        unchanged = np.array([0.0, 1.0])
        everybody = unchanged if self.overall is None else self.overall.drawn_to(unchanged, self.prior)
        found = {}
        for name, each in self.partners.items():
            own = each.drawn_to(everybody, self.prior) if isinstance(each, Estimate) else everybody
            found[name] = (float(own[0]), float(own[1]))
        return found

    def to_json(self) -> dict[str, Any]:
        used = self.used
        partners: dict[str, Any] = {}
        for name, each in self.partners.items():
            said = each.to_json() if isinstance(each, Estimate) else {}
            status = Status.RELEASED if isinstance(each, Estimate) else each or TOO_FEW
            partners[name] = {"status": str(status), **said, "used": dict(zip(("intercept", "slope"), used[name], strict=True))}
        overall = {"status": TOO_FEW} if self.overall is None else {"status": str(Status.RELEASED), **self.overall.to_json()}
        return {"outcome": self.model.outcome.name, "family": self.model.family, "overall": overall, "partners": partners}


@dataclass(frozen=True, slots=True)
class Recalibration:
    """The analysis `recalibration`: one step.  `ask` is the id of the model's ask."""

    model: ModelAnalysis
    ask: str = "model"
    fit: Model | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.ask,)

    def of(self, *models: Model) -> Recalibration:
        return replace(self, fit=models[0])

    def exactly(self) -> Recalibration:
        return replace(self, model=self.model.exactly())

    @property
    def _scores(self) -> Scores:
        return Scores(self.model, (), (), self.ask, self.fit)

    def schedule(self) -> Sequence[Line]:
        return self._scores.schedule()

    def query(self, kind: str, parameters: Parameters) -> Query:
        return self._scores.query(kind, parameters)

    def program(self) -> Program:
        assert self.fit is not None, "a recalibration needs a fitted model"
        scores = self._scores
        replies: Round = yield scores.asked()
        everybody = self._estimate(scores, replies.total())
        partners: dict[str, Estimate | Status | None] = {
            name: part if isinstance(part, Status) else self._estimate(scores, part)
            for name, part in by_partner(replies, EVERYBODY).items()
        }
        return Adapted(self.ask, self.fit, everybody, partners, self._prior)

    @property
    def _prior(self) -> F64:
        """Between partners: the intercept's spread in logits, or a twentieth of a measured outcome's range; the slope's."""
        outcome = self.model.outcome
        unit = (outcome.high - outcome.low) / 10 if isinstance(outcome, Numeric) else 1.0
        return np.diag([(0.5 * unit) ** 2, 0.25**2])

    def _estimate(self, scores: Scores, total: Pooled) -> Estimate | None:
        if self.model.family == "binary":
            return _of_risks(scores.bins(), total)
        return _of_values(scores.seen(), total)


def _of_risks(bins: Bins, total: Pooled) -> Estimate | None:
    found = recalibrated(bins, total)
    if found is None:
        return None
    value, slope = found
    cells = np.maximum(total.values, 0.0)
    return Estimate(value, (slope * cells) @ slope.T, total.stderr**2 * slope @ slope.T)


def _of_values(outcome: Numeric, total: Pooled) -> Estimate | None:
    sums = total.values
    if sums[0] < max(FEWEST, 5 * total.stderr):
        return None
    value = _regressed(sums)
    slope = gradient(_regressed, sums)
    residual = max(float(sums[3] - value @ np.array([sums[1], sums[5]])) / float(sums[0]), _LEAST_VARIANCE)
    sampling = residual * np.linalg.inv(_normal(sums))
    jacobian = np.array([[outcome.half, -outcome.middle], [0.0, 1.0]])
    in_unit = jacobian @ value + np.array([outcome.middle, 0.0])
    noise = total.stderr**2 * slope @ slope.T
    return Estimate(in_unit, jacobian @ sampling @ jacobian.T, jacobian @ noise @ jacobian.T)


def _normal(sums: F64) -> F64:
    n, p = max(float(sums[0]), 1.0), float(sums[2])
    square = max(float(sums[4]), p * p / n + _LEAST_VARIANCE * n)
    return np.array([[n, p], [p, square]])


def _regressed(sums: F64) -> F64:
    """Intercept and slope of the outcome on the prediction, both on [-1, 1]."""
    return np.asarray(np.linalg.solve(_normal(sums), np.array([sums[1], sums[5]])))
