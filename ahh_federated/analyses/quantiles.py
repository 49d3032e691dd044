"""Quantiles of a measured column from a binary tree of counts over its public range.

    sum over patients of the unit vectors of the patient's cell at every level of the tree

Bound sqrt(levels): a patient is in one cell of each level.  The coordinator makes the noisy tree consistent by least
squares (Hay, Rastogi, Miklau & Suciu, "Boosting the accuracy of differentially private histograms through
consistency", VLDB 2010, section 4), which is free, and inverts the cumulative counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from ahh_federated.analyses.histograms import bin_of
from ahh_federated.analyses.numbers import Z95, Number, missing
from ahh_federated.analyses.onehot import one_hot
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.programs import Line, Program
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Pooled, Round, Status

LEVELS = 7  # 128 leaves


@dataclass(frozen=True, slots=True)
class TreeCounts:
    """Counts in 2, 4, ... 2**LEVELS equal cells of the public range, coarse levels first."""

    column: Numeric
    kind: ClassVar[str] = "quantiles/1"

    @property
    def width(self) -> int:
        return int(2 ** (LEVELS + 1) - 2)

    @property
    def bound(self) -> float:
        return math.sqrt(LEVELS)

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        leaf = bin_of(self.column, 2**LEVELS, cohort)
        levels = range(1, LEVELS + 1)
        return np.concatenate([one_hot(np.floor(leaf / 2 ** (LEVELS - k)), 2**k).T for k in levels]).T

    def patients(self, total: F64) -> float | None:
        return float(total[:2].sum())


@dataclass(frozen=True, slots=True)
class QuantileTable:
    """The answer: a number a probability, in the column's unit, overall and per partner."""

    column: Numeric
    probabilities: tuple[float, ...]
    overall: list[Number]
    partners: dict[str, list[Number]]

    def to_json(self) -> dict[str, Any]:
        return {
            "column": self.column.name,
            "unit": self.column.unit,
            "probabilities": list(self.probabilities),
            "overall": [n.to_json() for n in self.overall],
            "partners": {name: [n.to_json() for n in each] for name, each in self.partners.items()},
        }


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The analysis `quantiles`: one step."""

    column: Numeric
    probabilities: tuple[float, ...]

    def schedule(self) -> Sequence[Line]:
        query = TreeCounts(self.column)
        return [Line(query.kind, query.width, 1.0)]

    def program(self) -> Program:
        replies: Round = yield TreeCounts(self.column)
        partners = {
            name: [missing(reply) for _ in self.probabilities] if isinstance(reply, Status) else self._decode(replies.of(name))
            for name, reply in sorted(replies.replies.items())
        }
        return QuantileTable(self.column, self.probabilities, self._decode(replies.total()), partners)

    def query(self, kind: str, parameters: Parameters) -> Query:
        return TreeCounts(self.column)

    def _decode(self, total: Pooled) -> list[Number]:
        cumulate, spread = _least_squares()
        cumulative, s = cumulate @ total.values, spread * total.stderr
        if cumulative[-1] <= max(1.0, 2 * s[-1]):
            return [missing(Status.BELOW) for _ in self.probabilities]
        return [self._invert(cumulative, s, p) for p in self.probabilities]

    def _invert(self, cumulative: F64, s: F64, p: float) -> Number:
        """The value below which a share p lies; the interval inverts the band of the cumulative counts."""
        n = cumulative[-1]
        value = self._crossing(cumulative, p * n)
        low = self._crossing(cumulative + Z95 * s, p * n)
        high = self._crossing(cumulative - Z95 * s, p * n)
        return Number(value, (high - low) / (2 * Z95), min(low, value), max(high, value))

    def _crossing(self, cumulative: F64, target: float) -> float:
        rising = np.maximum.accumulate(np.concatenate([[0.0], cumulative]))
        cell = int(np.searchsorted(rising, target, side="left"))
        if cell == 0:
            return self.column.low
        if cell >= len(rising):
            return self.column.high
        within = (target - rising[cell - 1]) / (rising[cell] - rising[cell - 1])
        cells = len(rising) - 1
        return float(self.column.low + (cell - 1 + within) / cells * (self.column.high - self.column.low))


@cache
def _least_squares() -> tuple[F64, F64]:
    """From the noisy tree to cumulative leaf counts, shape (leaves, width), and their errors per unit of noise."""
    design = _tree()
    cumulate = np.cumsum(np.linalg.pinv(design), axis=0)
    return cumulate, np.sqrt(np.sum(cumulate**2, axis=1))


def _tree() -> F64:
    """The matrix that turns leaf counts into the counts of all cells, shape (width, leaves)."""
    levels = [np.kron(np.eye(2**k), np.ones((1, 2 ** (LEVELS - k)))) for k in range(1, LEVELS + 1)]
    return np.concatenate(levels)
