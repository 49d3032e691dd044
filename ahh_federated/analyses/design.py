"""The design of a generalised linear model: from a patient's declared columns to a vector x on a public grid.

    x = (1, clip((u - centre) / spread, -8, 8) ..., products ..., hats ...)

u is a measured value mapped onto [-1, 1], or the 0/1 indicator of a level other than the reference.  `centre` and
`spread` come from one private release of moments, so x is centred without looking at anybody.  x is truncated to
multiples of 2**-16 before anything is computed with it: linear predictors are then sums of integers below 2**53,
exact in float64, and depend on the patient alone whatever BLAS does.

A declared interaction multiplies two standardised terms, so it is nearly uncorrelated with both and needs no moments
of its own; measured ones that interact are clipped at 4, and their product, at most 16, to 15 (see `Scale.predictor`).
A column with knots also has hats (analyses/hats.py), standardised by public numbers.

A patient with a column that is not known gets x = NaN, hence counts as zero (complete cases), unless the design
has `indicators`: then "not known" is a level of its own, and a measured value not known sits at the centre.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.terms import PRODUCT_LIMIT, Lines, Term, by_column, limits_of
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric
from ahh_federated.errors import Misuse

GRID = 2.0**16  # steps in one unit of x
LEAST_SPREAD = 1e-3
_AT_ONCE = 1 << 17  # coordinates of x that are computed together, 1 MiB: more would leave a processor's cache in between


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbours among the terms that can be computed together: equally many of each of these columns."""

    terms: slice
    columns: tuple[Column, ...]

    def split(self, patients: int) -> Iterator[Run]:
        """Runs of fewer columns, for so many patients."""
        each = (self.terms.stop - self.terms.start) // len(self.columns)
        columns = max(1, _AT_ONCE // (each * max(patients, 1)))
        for first in range(0, len(self.columns), columns):
            part = self.columns[first : first + columns]
            start = self.terms.start + first * each
            yield Run(slice(start, start + len(part) * each), part)


@dataclass(frozen=True, slots=True)
class Design:
    """Public: the columns of a model, in order, how values not known are treated, which pairs interact, which curve.

    `main`: the terms of the columns themselves, in the order of `terms_of`; `terms`: these, then products, then hats.
    `measured`: where measured values stand in x.  `runs`: all terms, in order.  `limits`: what |x| of each term is clipped to.

    Raises:
        Misuse: when a feature is given twice, or an interaction or knots name a column that is no feature, or the same one twice.
    """

    features: tuple[Column, ...]
    indicators: bool = False
    interactions: tuple[tuple[Column, Column], ...] = ()
    knots: tuple[Knots, ...] = ()
    main: tuple[Term, ...] = field(init=False, repr=False, compare=False)
    terms: tuple[Term, ...] = field(init=False, repr=False, compare=False)
    measured: tuple[int, ...] = field(init=False, repr=False, compare=False)
    runs: tuple[Run, ...] = field(init=False, repr=False, compare=False)
    limits: tuple[float, ...] = field(init=False, repr=False, compare=False)
    lines: Lines = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(set(self.features)) < len(self.features):
            raise Misuse("a feature is given twice: drop one of the two")
        for one, other in self.interactions:
            if one == other or one not in self.features or other not in self.features:
                raise Misuse(f"the interaction of {one.name!r} and {other.name!r} is not between two of the features: name two")
        if len({frozenset((one.name, other.name)) for one, other in self.interactions}) < len(self.interactions):
            raise Misuse("an interaction is declared twice: drop one of the two")
        curved = [knots.column for knots in self.knots]
        if len(set(curved)) < len(curved) or not set(curved) <= set(self.features):
            raise Misuse("knots are given twice for a column, or for one that is no feature: give them once for a feature")
        main = tuple(Term(c, level) for c in self.features for level in (*_levels(c), *((NOT_KNOWN,) if self.indicators else ())))
        products = (Term(a, k, (b, m)) for a, b in self.interactions for k in _levels(a) for m in _levels(b))
        hats = (Term(knots.column, knot=k) for knots in self.knots for k in range(len(knots.interior)))
        object.__setattr__(self, "main", main)
        object.__setattr__(self, "terms", (*main, *products, *hats))
        object.__setattr__(self, "measured", tuple(j for j, term in enumerate(main, start=1) if term.measured))
        object.__setattr__(self, "runs", tuple(_runs(self.terms, self.knots)))
        object.__setattr__(self, "limits", limits_of(self.terms))
        object.__setattr__(self, "lines", Lines.of(self.terms, self.knots))

    @property
    def width(self) -> int:
        """Coefficients, the intercept included."""
        return 1 + len(self.terms)

    def factors(self, term: Term) -> tuple[int, int]:
        """Where the two terms of a product stand among `terms`."""
        assert term.by is not None, f"{term} is no product"
        return self.main.index(Term(term.column, term.level)), self.main.index(Term(*term.by))

    def terms_of(self, cohort: Cohort) -> list[F64]:
        """u, one array of shape (patients,) for each of the main terms."""
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


def _runs(terms: Sequence[Term], knots: Sequence[Knots]) -> Iterator[Run]:
    """Measured neighbours are one, and so are the hats of columns that have equally many; every other term is one by itself."""
    hats: dict[Column, int] = {each.column: len(each.interior) for each in knots}

    def alike(j: int) -> tuple[bool, int]:
        measured, knot = terms[j].measured, terms[j].knot
        return knot is not None, hats[terms[j].column] if knot is not None else -1 if measured else j

    for _, run in groupby(range(len(terms)), alike):
        places = list(run)
        yield Run(slice(places[0], places[-1] + 1), tuple(dict.fromkeys(terms[j].column for j in places)))


def _levels(column: Column) -> tuple[str | None, ...]:
    return column.levels[1:] if isinstance(column, Levels) else (None,)


@dataclass(frozen=True, slots=True)
class Scale:
    """Public after the moments were released: centre and spread of each term, and the radius R of x.

    `exact` switches clip, grid and weights off: laboratory and tests only.
    """

    centre: tuple[float, ...]
    spread: tuple[float, ...]
    radius: float
    exact: bool = False

    @classmethod
    def plain(cls, design: Design) -> Scale:
        """One that no data have a part in: for what is the same on every scale."""
        terms = design.width - 1
        return cls((0.0,) * terms, (1.0,) * terms, 1.0)

    @property
    def unit(self) -> float:
        """What x is a multiple of, inverted: grid steps in one unit of x."""
        return 1.0 if self.exact else GRID

    def standardised(self, design: Design, cohort: Cohort) -> F64:
        """x of shape (width, patients): multiples of 2**-16, times 2**16; in exact mode x itself, unclipped."""
        x, lines = np.empty((design.width, len(cohort))), self._lines(design)
        x[0] = self.unit
        rows = x[1:]
        for run in design.runs:
            if design.terms[run.terms.start].by is not None:
                self._product(design, lines, run.terms.start, rows)
            else:
                for part in run.split(len(cohort)):
                    _of_columns(design, lines, part, cohort, rows[part.terms])
        return x

    def _product(self, design: Design, lines: Lines, j: int, rows: F64) -> None:
        one, other = (rows[factor] for factor in design.factors(design.terms[j]))
        rows[j] = (one * other / self.unit**2 - self.centre[j]) / self.spread[j] * self.unit
        lines.cut(slice(j, j + 1), rows[j : j + 1])

    def _lines(self, design: Design) -> Lines:
        if not len(self.centre) == len(self.spread) == len(design.terms):
            raise ValueError(f"a scale of {len(self.centre)} terms does not fit a design of {len(design.terms)}")
        lines = design.lines.standardised(np.array(self.centre)[:, None], np.array(self.spread)[:, None])
        return lines if self.exact else lines.on_grid(GRID)

    def weights(self, x: F64) -> F64:
        """w = min(1, R**2 / ||x||**2), shape (patients,), so that w ||x|| <= R and w ||x||**2 <= R**2."""
        if self.exact:
            return np.ones(x.shape[1])
        length = np.einsum("ij,ij->j", x, x)  # integers below 2**53
        return np.asarray(np.minimum(1.0, (self.radius * GRID) ** 2 / length))

    def predictor(self, x: F64, beta: F64) -> F64:
        """x'beta, shape (patients,); exact integer arithmetic on beta rounded to a public power of two.

        No coordinate exceeds 15, so a partial sum is at most 2**52 + 15 * 2**15 * width: below 2**53 up to a width of 2**30,
        and exact.
        """
        if self.exact:
            return np.asarray(beta @ x)
        reach = PRODUCT_LIMIT * GRID * max(float(np.abs(beta).sum()), 1.0)
        scale = 2.0 ** math.floor(52 - math.log2(reach))
        return np.asarray((np.round(beta * scale) @ x) / (scale * self.unit))


def _of_columns(design: Design, lines: Lines, run: Run, cohort: Cohort, out: F64) -> None:
    """x of a run that is no product."""
    first, terms = design.terms[run.terms.start], run.terms
    values = np.stack([cohort[column.name] for column in run.columns])
    if first.level is not None:
        out[:] = np.where(first.has(values), lines.high[terms], lines.low[terms])
        if not design.indicators:
            out[np.isnan(values)] = np.nan
        return
    along = lines.measured if first.measured else lines.hats
    along(terms, values, out)
    if design.indicators:
        np.copyto(by_column(out, len(values)), 0.0, where=np.isnan(values)[:, None, :])
