"""Outcomes: what a network's outputs mean, where they start, and one patient's residual d loss / d outputs.

    family      outputs            loss of a patient                          residual
    binary      log odds           w (log(1 + e**eta) - y eta)                w (p - y)
    levels      a logit a level    -w log p_y                                 w (p_k - [y = k])
    continuous  (y - c) / s        half a square                              eta - e
    count       log of the mean    (m - y eta) / sqrt(c), m = e**eta          (m - y) / sqrt(c)

w is the declared weight of the patient's level.  e = (y - c) / s is the outcome on [-1, 1] with its released centre and spread;
a count's c is its released mean, which brings residuals to order one, and m is at most the end of the public range.
Every residual is clipped to a public bound, element by element (Huber's loss, where the loss is a square).

Everything is element by element, or a sum over levels in a fixed order; `exponential` rounds no value by its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.models import Family, exponential, softmax
from ahh_federated.analyses.scaling import FEWEST, outcome_scale, rounded
from ahh_federated.core.cohorts import F64, Bools, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.releases import Pooled
from ahh_federated.errors import Misuse

REACH = 4.0  # of a residual of a measured outcome
MOST_WEIGHT = 100.0
_LEAST_SHARE = 0.005  # of a level, where predictions start
_LEAST_MEAN = 1e-3  # of a count, as a part of its range


@dataclass(frozen=True, slots=True)
class Outcome:
    """Public: the outcome's column, its family and the declared weights of its levels (none: all weigh one).

    Raises:
        Misuse: when the column has not the family, or the weights are not one for each level.
    """

    column: Column
    family: Family
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        column, levels = self.column, len(self.column.levels) if isinstance(self.column, Levels) else 0
        wanted = {"binary": levels == 2, "levels": levels >= 2, "continuous": not levels, "count": not levels}
        if not wanted.get(self.family, False):
            raise Misuse(f"the outcome {column.name!r} is no {self.family} outcome: two levels are binary, more are levels")
        if self.family == "count" and isinstance(column, Numeric) and not (column.low >= 0 and column.high >= 1):
            raise Misuse(f"the outcome {column.name!r} is no count: its range begins at 0 or above and reaches 1")
        if self.weights and (len(self.weights) != levels or not all(0.01 <= w <= MOST_WEIGHT for w in self.weights)):
            raise Misuse(f"class_weights are {levels} numbers from 0.01 to {MOST_WEIGHT:g}, one for each level of the outcome")

    @property
    def outputs(self) -> int:
        return len(self.column.levels) if self.family == "levels" and isinstance(self.column, Levels) else 1

    @property
    def most(self) -> float:
        """The bound of a residual's absolute value."""
        return max(self.weights, default=1.0) if isinstance(self.column, Levels) else REACH

    @property
    def scaled(self) -> bool:
        """Whether residuals need a released centre and spread."""
        return isinstance(self.column, Numeric)

    def values(self, cohort: Cohort) -> tuple[F64, Bools]:
        """The outcome, zero where it is not known, and whether it is; shape (patients,)."""
        y = cohort[self.column.name]
        known = np.isfinite(y) if isinstance(self.column, Numeric) else np.isin(y, range(len(self.column.levels)))
        return np.where(known, y, 0.0), np.asarray(known)

    def residual(self, eta: F64, y: F64, centre: float, spread: float) -> F64:
        """d loss / d outputs, shape (patients, outputs), of absolute value at most `most`."""
        if isinstance(self.column, Levels):
            hit = y[:, None] == np.arange(len(self.column.levels))
            raw = softmax(eta) - hit if self.family == "levels" else expit(eta) - y[:, None]
            weight = np.array(self.weights or (1.0,) * hit.shape[1])[np.where(hit.any(axis=1), y, 0.0).astype(np.int64)]
            raw = raw * weight[:, None]
        elif self.family == "continuous":
            raw = eta - ((self.column.scaled(y) - centre) / spread)[:, None]
        else:
            mean = np.minimum(exponential(eta), self.column.high)
            raw = (mean - np.clip(y, self.column.low, self.column.high)[:, None]) / math.sqrt(centre)
        return np.asarray(np.clip(raw, -self.most, self.most))

    def scale(self, moments: Pooled) -> tuple[float, float]:
        """Centre and spread of a measured outcome from the released moments; (0, 1) for levels."""
        if isinstance(self.column, Levels):
            return 0.0, 1.0
        if self.family == "continuous":
            return outcome_scale(moments)
        n = max(float(moments.values[0]), FEWEST)
        mean = self.column.unscaled(min(max(float(moments.values[-2]) / n, -1.0), 1.0))
        return rounded(np.array(max(mean, _LEAST_MEAN * self.column.high)))[0], 1.0

    def start(self, counts: F64, centre: float) -> F64:
        """The first outputs, shape (outputs,): what the released counts (a number a level), or the mean, say of everybody."""
        if self.family == "continuous":
            return np.zeros(1)
        if self.family == "count":
            return np.array([math.log(centre)])
        weighted = np.maximum(counts, 0.0) * np.array(self.weights or (1.0,) * len(counts))
        shares = np.maximum(weighted / max(float(weighted.sum()), 1.0), _LEAST_SHARE)
        logs = np.log(shares)
        return np.asarray(logs - logs.mean() if self.family == "levels" else logs[1:] - logs[:1])

    def linear(self, eta: F64, centre: float, spread: float) -> F64:
        """A model's linear predictor (analyses/models.py) from the network's outputs."""
        if self.family == "levels":
            return eta
        if self.family == "continuous" and isinstance(self.column, Numeric):
            return np.asarray((centre + spread * eta[:, 0] + 1.0) * self.column.half + self.column.low)
        return eta[:, 0]
