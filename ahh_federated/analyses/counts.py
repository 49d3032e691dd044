"""Counts of patients, in one cell or in the cells of a cross-table.

    sum over patients of e[cell(patient)]

Bound 1: a patient adds one unit vector (L2 norm 1), or nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ahh_federated.analyses.numbers import Number, missing, number
from ahh_federated.analyses.onehot import one_hot
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import NOT_KNOWN, Levels
from ahh_federated.core.programs import Line, Program
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Round, Status


@dataclass(frozen=True, slots=True)
class CellCounts:
    """How many patients fall in each cell of the cross-table of `by`; every column has a last level "not known"."""

    by: tuple[Levels, ...]
    kind: ClassVar[str] = "count/1"

    @property
    def width(self) -> int:
        return math.prod(len(column.levels) + 1 for column in self.by)

    @property
    def bound(self) -> float:
        return 1.0

    def parameters(self) -> Parameters:
        return {}

    def rows(self, cohort: Cohort) -> F64:
        cell = np.zeros(len(cohort))
        for column in self.by:
            known = len(column.levels)
            code = np.where(np.isnan(cohort[column.name]), known, cohort[column.name])
            cell = cell * (known + 1) + code
        return one_hot(cell, self.width)

    def patients(self, total: F64) -> float | None:
        return float(total.sum())

    def labels(self) -> list[dict[str, str]]:
        """The levels of each cell, in the order of the sum."""
        names = [column.name for column in self.by]
        levels = [(*column.levels, NOT_KNOWN) for column in self.by]
        return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*levels)]


@dataclass(frozen=True, slots=True)
class CountTable:
    """The answer: for each cell its levels, the number over all partners, and each partner's own."""

    by: tuple[str, ...]
    cells: tuple[tuple[dict[str, str], Number, dict[str, Number]], ...]

    def to_json(self) -> dict[str, Any]:
        cells = [
            {"levels": levels, "overall": overall.to_json(), "partners": {name: n.to_json() for name, n in each.items()}}
            for levels, overall, each in self.cells
        ]
        return {"by": list(self.by), "cells": cells}


@dataclass(frozen=True, slots=True)
class Counts:
    """The analysis `count`: one step."""

    by: tuple[Levels, ...]

    def schedule(self) -> Sequence[Line]:
        query = CellCounts(self.by)
        return [Line(query.kind, query.width, 1.0)]

    def program(self) -> Program:
        query = CellCounts(self.by)
        replies = yield query
        overall, each = per_cell(replies)
        table = zip(query.labels(), overall, each, strict=True)
        return CountTable(tuple(column.name for column in self.by), tuple(table))

    def query(self, kind: str, parameters: Parameters) -> Query:
        return CellCounts(self.by)


def per_cell(replies: Round) -> tuple[list[Number], list[dict[str, Number]]]:
    """Every cell as a number overall and per partner; a partner that released nothing keeps its status."""
    total = replies.total()
    overall = [number(float(value), total.stderr) for value in total.values]
    each: list[dict[str, Number]] = [{} for _ in overall]
    for name, reply in sorted(replies.replies.items()):
        for cell, numbers in enumerate(each):
            if isinstance(reply, Status):
                numbers[name] = missing(reply)
            else:
                numbers[name] = number(float(reply.values[cell]), reply.stderr)
    return overall, each
