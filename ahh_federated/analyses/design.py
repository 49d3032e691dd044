"""The design of a generalised linear model: from a patient's declared columns to a vector x on a public grid.

    x = (1, clip((u - centre) / spread, -4, 4), ...)

u is a measured value mapped onto [-1, 1], or the 0/1 indicator of a level other than the reference.  `centre` and
`spread` come from one private release of moments, so x is centred without looking at anybody.  x is truncated to
multiples of 2**-16 before anything is computed with it: linear predictors are then sums of integers below 2**53,
exact in float64, and depend on the patient alone whatever BLAS does.

A patient with a column that is not known gets x = NaN, hence counts as zero (complete cases), unless the design
has `indicators`: then "not known" is a level of its own, and a measured value not known sits at the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric

LIMIT = 4.0  # standard deviations
GRID = 2.0**16  # steps in one unit of x
LEAST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class Term:
    """One coordinate of u after the intercept: a column, and for an indicator its level."""

    column: Column
    level: str | None = None


@dataclass(frozen=True, slots=True)
class Design:
    """Public: the columns of a model, in order, and how values not known are treated."""

    features: tuple[Column, ...]
    indicators: bool = False

    @property
    def terms(self) -> tuple[Term, ...]:
        terms: list[Term] = []
        for column in self.features:
            levels = column.levels[1:] if isinstance(column, Levels) else (None,)
            terms += [Term(column, level) for level in levels]
            if self.indicators:
                terms.append(Term(column, NOT_KNOWN))
        return tuple(terms)

    @property
    def width(self) -> int:
        """Coefficients, the intercept included."""
        return 1 + len(self.terms)

    def terms_of(self, cohort: Cohort) -> list[F64]:
        """u, one array of shape (patients,) per term."""
        arrays: list[F64] = []
        for column in self.features:
            values = cohort[column.name]
            absent = np.isnan(values)
            if isinstance(column, Numeric):
                arrays.append(column.scaled(values))
            else:
                levels = [np.where(absent, np.nan, values == k) for k in range(1, len(column.levels))]
                arrays += [np.where(absent, 0.0, u) for u in levels] if self.indicators else levels
            if self.indicators:
                arrays.append(absent.astype(np.float64))
        return arrays

    def complete(self, cohort: Cohort) -> NDArray[np.bool_]:
        """Patients of whom every column is known, shape (patients,)."""
        known = [~np.isnan(cohort[column.name]) for column in self.features]
        return np.logical_and.reduce(known) if known else np.ones(len(cohort), dtype=bool)


@dataclass(frozen=True, slots=True)
class Scale:
    """Public after the moments were released: centre and spread of each term of u, and the radius R of x.

    `exact` switches clip, grid and weights off: laboratory and tests only.
    """

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    radius: float
    exact: bool = False

    @property
    def unit(self) -> float:
        """What x is a multiple of, inverted: grid steps in one unit of x."""
        return 1.0 if self.exact else GRID

    def standardised(self, design: Design, cohort: Cohort) -> F64:
        """x of shape (width, patients): multiples of 2**-16, times 2**16; in exact mode x itself, unclipped."""
        x = np.empty((design.width, len(cohort)))
        x[0] = self.unit
        for j, term in enumerate(design.terms):
            values, row = cohort[term.column.name], x[j + 1]
            if term.level == NOT_KNOWN:
                row[:] = np.where(np.isnan(values), self._steps(j, 1.0), self._steps(j, 0.0))
            elif isinstance(term.column, Numeric):
                self._measured(term.column, j, values, row)
                if design.indicators:
                    row[np.isnan(values)] = 0.0
            elif term.level is not None:
                row[:] = np.where(values == term.column.index(term.level), self._steps(j, 1.0), self._steps(j, 0.0))
                if not design.indicators:
                    row[np.isnan(values)] = np.nan
        return x

    def _measured(self, column: Numeric, j: int, values: F64, row: F64) -> None:
        """One multiplication and one addition from a value in its unit to its place on the grid."""
        per_unit = 2.0 / (column.high - column.low) / self.spread[j] * self.unit
        np.multiply(values, per_unit, out=row)
        np.add(row, self._position(j, -1.0) - column.low * per_unit, out=row)
        low, high = self._position(j, -1.0), self._position(j, 1.0)
        reach = math.inf if self.exact else LIMIT * GRID
        np.clip(row, max(low, -reach), min(high, reach), out=row)
        if not self.exact:
            np.trunc(row, out=row)

    def _position(self, j: int, u: float) -> float:
        return (u - self.centre[j]) / self.spread[j] * self.unit

    def _steps(self, j: int, u: float) -> float:
        """Where an indicator's 0 or 1 lies on the grid."""
        position = self._position(j, u)
        return position if self.exact else math.trunc(min(max(position, -LIMIT * GRID), LIMIT * GRID))

    def weights(self, x: F64) -> F64:
        """w = min(1, R**2 / ||x||**2), shape (patients,), so that w ||x|| <= R and w ||x||**2 <= R**2."""
        if self.exact:
            return np.ones(x.shape[1])
        length = np.einsum("ij,ij->j", x, x)  # integers below 2**53
        return np.asarray(np.minimum(1.0, (self.radius * GRID) ** 2 / length))

    def predictor(self, x: F64, beta: F64) -> F64:
        """x'beta, shape (patients,); exact integer arithmetic on beta rounded to a public power of two."""
        if self.exact:
            return np.asarray(beta @ x)
        reach = LIMIT * GRID * max(float(np.abs(beta).sum()), 1.0)
        scale = 2.0 ** math.floor(51 - math.log2(reach))
        return np.asarray((np.round(beta * scale) @ x) / (scale * self.unit))
