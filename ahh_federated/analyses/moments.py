"""Mean and standard deviation of measured columns.

    sum over patients of (1, z, z**2) per column, z = the value mapped onto [-1, 1] by the public range

Bound sqrt(3 p) for p columns: 1 + z**2 + z**4 <= 3 for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ahh_federated.analyses.numbers import Number, missing, number
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.programs import Line, Program
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Pooled, Round, Status


@dataclass(frozen=True, slots=True)
class MomentSums:
    """Number known, sum and sum of squares of each column on [-1, 1]; a value not known adds zero to its three."""

    columns: tuple[Numeric, ...]
    kind: ClassVar[str] = "moments/1"

    @property
    def width(self) -> int:
        return 3 * len(self.columns)

    @property
    def bound(self) -> float:
        return math.sqrt(3 * len(self.columns))

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        rows = np.zeros((self.width, len(cohort)))
        for j, column in enumerate(self.columns):
            z = column.scaled(cohort[column.name])
            known = ~np.isnan(z)
            rows[3 * j] = known
            rows[3 * j + 1] = np.where(known, z, 0.0)
            rows[3 * j + 2] = np.where(known, z * z, 0.0)
        return rows.T

    def patients(self, total: F64) -> float | None:
        return float(total[::3].max())


@dataclass(frozen=True, slots=True)
class Moment:
    """How many patients have a known value, its mean and its standard deviation, in the column's unit."""

    count: Number
    mean: Number
    sd: Number

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count.to_json(), "mean": self.mean.to_json(), "sd": self.sd.to_json()}


@dataclass(frozen=True, slots=True)
class MomentTable:
    """The answer: one moment a column, overall and per partner."""

    columns: tuple[Numeric, ...]
    overall: tuple[Moment, ...]
    partners: dict[str, tuple[Moment, ...]]

    def to_json(self) -> dict[str, Any]:
        table = {}
        for j, column in enumerate(self.columns):
            each = {name: moments[j].to_json() for name, moments in self.partners.items()}
            table[column.name] = {"unit": column.unit, **self.overall[j].to_json(), "partners": each}
        return {"columns": table}


@dataclass(frozen=True, slots=True)
class Moments:
    """The analysis `moments`: one step."""

    columns: tuple[Numeric, ...]

    def schedule(self) -> Sequence[Line]:
        query = MomentSums(self.columns)
        return [Line(query.kind, query.width, 1.0)]

    def program(self) -> Program:
        replies: Round = yield MomentSums(self.columns)
        partners = {
            name: tuple(missing_moment(reply) for _ in self.columns)
            if isinstance(reply, Status)
            else decode(self.columns, replies.of(name))
            for name, reply in sorted(replies.replies.items())
        }
        return MomentTable(self.columns, decode(self.columns, replies.total()), partners)

    def query(self, kind: str, parameters: Parameters) -> Query:
        return MomentSums(self.columns)


def missing_moment(status: Status) -> Moment:
    return Moment(missing(status), missing(status), missing(status))


def decode(columns: tuple[Numeric, ...], total: Pooled) -> tuple[Moment, ...]:
    """Moments from a sum; standard errors by the delta method, privacy noise alone."""
    return tuple(_moment(column, total.values[3 * j : 3 * j + 3], total.stderr) for j, column in enumerate(columns))


def _moment(column: Numeric, sums: F64, s: float) -> Moment:
    n, total, squares = (float(value) for value in sums)
    if n <= max(1.0, 2 * s):  # the noise alone could be all of it
        return Moment(number(n, s), missing(Status.BELOW), missing(Status.BELOW))
    half = column.half
    mean, square = total / n, squares / n
    variance = square - mean**2
    noise = s / n * float(np.linalg.norm([-(square - 2 * mean**2), -2 * mean, 1.0]))
    sd = missing(Status.BELOW)
    if variance > 2 * noise:  # else the noise alone could be all of it
        sd = number(half * math.sqrt(variance), half * noise / (2 * math.sqrt(variance)), least=0.0)
    return Moment(number(n, s), number(column.unscaled(mean), half * s / n * math.hypot(1.0, mean)), sd)
