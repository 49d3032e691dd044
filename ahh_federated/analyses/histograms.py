"""How patients spread over the bins of a measured column or over the levels of a column.

    sum over patients of e[bin(patient)]

Bound 1: a patient adds one unit vector, or nothing when the value is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ahh_federated.analyses.counts import per_cell
from ahh_federated.analyses.numbers import Number
from ahh_federated.analyses.onehot import one_hot
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Numeric
from ahh_federated.core.programs import Line, Program
from ahh_federated.core.queries import Parameters, Query


@dataclass(frozen=True, slots=True)
class BinCounts:
    """Patients in `bins` equal bins over the column's public range (the last is closed), or in its levels."""

    column: Column
    bins: int
    kind: ClassVar[str] = "histogram/1"

    @property
    def width(self) -> int:
        return self.bins

    @property
    def bound(self) -> float:
        return 1.0

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        return one_hot(bin_of(self.column, self.bins, cohort), self.bins)

    def patients(self, total: F64) -> float | None:
        return float(total.sum())


def bin_of(column: Column, bins: int, cohort: Cohort) -> F64:
    """Each patient's bin, shape (patients,), NaN where not known."""
    values = cohort[column.name]
    if not isinstance(column, Numeric):
        return values
    return np.minimum(np.floor((column.scaled(values) + 1.0) * (bins / 2)), bins - 1)


def edges(column: Numeric, bins: int) -> F64:
    """The bins + 1 public edges, in the column's unit."""
    return np.linspace(column.low, column.high, bins + 1)


@dataclass(frozen=True, slots=True)
class HistogramTable:
    """The answer: a number a bin, overall and per partner."""

    column: Column
    bins: int
    overall: list[Number]
    partners: dict[str, list[Number]]

    def to_json(self) -> dict[str, Any]:
        if isinstance(self.column, Numeric):
            axis = {"unit": self.column.unit, "edges": edges(self.column, self.bins).tolist()}
        else:
            axis = {"unit": "", "levels": list(self.column.levels)}
        return {
            "column": self.column.name,
            **axis,
            "overall": [n.to_json() for n in self.overall],
            "partners": {name: [n.to_json() for n in each] for name, each in self.partners.items()},
        }


@dataclass(frozen=True, slots=True)
class Histogram:
    """The analysis `histogram`: one step."""

    column: Column
    bins: int

    def schedule(self) -> Sequence[Line]:
        query = BinCounts(self.column, self.bins)
        return [Line(query.kind, query.width, 1.0)]

    def program(self) -> Program:
        replies = yield BinCounts(self.column, self.bins)
        overall, each = per_cell(replies)
        partners = {name: [cell[name] for cell in each] for name in sorted(replies.replies)}
        return HistogramTable(self.column, self.bins, overall, partners)

    def query(self, kind: str, parameters: Parameters) -> Query:
        return BinCounts(self.column, self.bins)
