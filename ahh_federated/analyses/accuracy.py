"""What is said of a model of levels, and of a model of measured or counted outcomes.

Levels: a table of outcome by likeliest level gives accuracy, balanced accuracy, and for each level its sensitivity and
positive predictive value.  Values: six sums give R**2, the root mean squared error, the mean error and the calibration
slope (the outcome regressed on the prediction).

Standard errors by the delta method: privacy noise is independent with one known variance in every cell; sampling error is
Poisson in the cells of a table, and that of normal errors for values (Var of a mean square m is 2 m**2 / n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ahh_federated.analyses.groups import EVERYBODY, TOO_FEW, Groups, figures_by_part
from ahh_federated.analyses.metrics import FEWEST, gradient
from ahh_federated.analyses.numbers import Number, number
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.releases import Pooled, Round

Figures = dict[str, Any]
_LEAST_VARIANCE = 1e-6  # of a value on [-1, 1]
_CLEAR = 3.0  # standard errors of its noise that a mean square must measure before a root or a ratio of it is told


@dataclass(frozen=True, slots=True, eq=False)
class LevelsTable:
    """The answer of `scores` for an outcome of several levels."""

    outcome: Levels
    replies: Round
    groups: Groups = EVERYBODY

    def to_json(self) -> dict[str, Any]:
        everybody = self.groups.split(self.replies.total())[0]
        k, s = len(self.outcome.levels), everybody.stderr
        cells = zip(everybody.values, ((a, b) for a in self.outcome.levels for b in self.outcome.levels), strict=True)
        confusion: dict[str, dict[str, Any]] = {level: {} for level in self.outcome.levels}
        for value, (true, chosen) in cells:
            confusion[true][chosen] = number(float(value), s).to_json()
        return {
            "family": "levels",
            "outcome": self.outcome.name,
            "levels": list(self.outcome.levels),
            "n": number(float(everybody.values.sum()), s * k, least=0.0).to_json(),
            "confusion": confusion,
            **figures_by_part(self.replies, self.groups, self._figures),
        }

    def _figures(self, part: Pooled) -> Figures | None:
        cells = part.values
        k = len(self.outcome.levels)
        if cells.sum() < max(FEWEST, 3 * part.stderr * k):
            return None

        def figure(function: Callable[[F64], float]) -> dict[str, Any]:
            slope = gradient(function, cells)
            if not np.isfinite(slope).all():  # a level that nobody has, or nobody is given
                return {**Number(None).to_json(), "status": TOO_FEW}
            noise, sampling = part.stderr * float(np.linalg.norm(slope)), math.sqrt(float(slope**2 @ np.maximum(cells, 0.0)))
            return number(function(cells), noise, sampling=sampling, least=0.0, most=1.0).to_json()

        def share(i: int, axis: int) -> Callable[[F64], float]:
            def of(values: F64) -> float:
                table = values.reshape(k, k)
                whole = float(table.sum(axis=axis)[i])
                return float(table[i, i]) / whole if whole > 1 else math.nan

            return of

        sensitivity = [share(i, 1) for i in range(k)]
        return {
            "n": number(float(cells.sum()), part.stderr * k, least=0.0).to_json(),
            "accuracy": figure(lambda c: float(np.trace(c.reshape(k, k)) / c.sum())),
            "balanced_accuracy": figure(lambda c: math.fsum(of(c) for of in sensitivity) / k),
            "sensitivity": {level: figure(of) for level, of in zip(self.outcome.levels, sensitivity, strict=True)},
            "ppv": {level: figure(share(i, 0)) for i, level in enumerate(self.outcome.levels)},
        }


@dataclass(frozen=True, slots=True, eq=False)
class ValueTable:
    """The answer of `scores` for a measured or counted outcome; figures in the outcome's unit."""

    outcome: Numeric
    family: str
    replies: Round
    groups: Groups = EVERYBODY

    def to_json(self) -> dict[str, Any]:
        everybody = self.groups.split(self.replies.total())[0]
        return {
            "family": self.family,
            "outcome": self.outcome.name,
            "unit": self.outcome.unit,
            "n": number(float(everybody.values[0]), everybody.stderr, least=0.0).to_json(),
            **figures_by_part(self.replies, self.groups, self._figures),
        }

    def _figures(self, part: Pooled) -> Figures | None:
        sums = part.values
        if sums[0] < max(FEWEST, 5 * part.stderr):
            return None
        n, half = float(sums[0]), self.outcome.half
        residual = max(_mean_square(sums), _LEAST_VARIANCE)
        r2 = _r2(sums)

        def noise_of(function: Callable[[F64], float]) -> float:
            return part.stderr * float(np.linalg.norm(gradient(function, sums)))

        def figure(
            function: Callable[[F64], float],
            sampling: float,
            unit: float = 1.0,
            rests: Callable[[F64], float] | None = None,
            **ends: float,
        ) -> dict[str, Any]:
            """Unless what it rests on, a mean square, drowns in noise: a root or a ratio of that says nothing."""
            if rests is not None and rests(sums) < _CLEAR * noise_of(rests):
                return {**Number(None).to_json(), "status": TOO_FEW}
            return number(function(sums) * unit, noise_of(function) * unit, sampling=sampling * unit, **ends).to_json()

        return {
            "n": number(n, part.stderr, least=0.0).to_json(),
            "r2": figure(
                _r2, 2 * math.sqrt(max(r2, 0.0)) * (1 - min(r2, 1.0)) / math.sqrt(n), rests=lambda c: _spread(c, 1, 3), most=1.0
            ),
            "rmse": figure(
                lambda c: math.sqrt(max(_mean_square(c), 0.0)), math.sqrt(residual / (2 * n)), half, rests=_mean_square, least=0.0
            ),
            "mean_error": figure(lambda c: float((c[2] - c[1]) / c[0]), math.sqrt(residual / n), half),
            "calibration_slope": figure(
                _slope, math.sqrt(residual / n / _variance(sums, 2, 4)), rests=lambda c: _spread(c, 2, 4)
            ),
        }


def _mean_square(sums: F64) -> float:
    return float((sums[3] - 2 * sums[5] + sums[4]) / sums[0])


def _spread(sums: F64, first: int, square: int) -> float:
    return float(sums[square] / sums[0] - (sums[first] / sums[0]) ** 2)


def _variance(sums: F64, first: int, square: int) -> float:
    return max(_spread(sums, first, square), _LEAST_VARIANCE)


def _r2(sums: F64) -> float:
    return 1 - _mean_square(sums) / _variance(sums, 1, 3)


def _slope(sums: F64) -> float:
    covariance = float(sums[5] / sums[0] - sums[1] * sums[2] / sums[0] ** 2)
    return covariance / _variance(sums, 2, 4)
