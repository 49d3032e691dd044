"""The coordinates of x after the intercept, and where each of them lies.

    measured value   u = -1 + 2 (v - low) / (high - low), a straight line of the value v
    level            1 for who has it, else 0
    product          of two standardised terms
    hat              the lower of a line that rises to its knot and one that falls from it, between 0 and 1
                     (analyses/hats.py)

Each of them is (u - centre) / spread when it is standardised, and a standardised line is a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses.hats import Knots
from ahh_federated.core.cohorts import F64, Bools
from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric

LIMIT = 8.0  # of a term, in standard deviations; hats never reach it (analyses/scaling.py)
FACTOR_LIMIT = 4.0  # of a measured one that interacts, so that a product of two is at most 16
PRODUCT_LIMIT = 15.0  # of a product of two terms, and of every coordinate of x


@dataclass(frozen=True, slots=True)
class Term:
    """One coordinate of x after the intercept.

    A column, and for an indicator its level; with `by` its product with the term of another column; with `knot` the hat of
    that interior knot.
    """

    column: Column
    level: str | None = None
    by: tuple[Column, str | None] | None = None
    knot: int | None = None

    @property
    def measured(self) -> bool:
        """A measured value as it is: no indicator, product or hat."""
        return isinstance(self.column, Numeric) and self.level is None and self.by is None and self.knot is None

    def has(self, values: F64) -> Bools:
        """Of an indicator: whose value, or index of a level, is this level."""
        if self.level == NOT_KNOWN:
            return np.isnan(values)
        assert isinstance(self.column, Levels) and self.level is not None, f"{self} is no indicator"
        return np.asarray(values == self.column.index(self.level))

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest u."""
        return (-math.inf, math.inf) if self.by is not None else (-1.0 if self.measured else 0.0, 1.0)


def limits_of(terms: Sequence[Term]) -> tuple[float, ...]:
    """What |x| of each term is clipped to."""
    factors = {Term(*factor) for term in terms if term.by is not None for factor in ((term.column, term.level), term.by)}
    return tuple(
        PRODUCT_LIMIT if term.by is not None else FACTOR_LIMIT if term.measured and term in factors else LIMIT for term in terms
    )


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Of every term, arrays of shape (terms, 1): its ends, what |x| is clipped to, and two lines as height at zero and slope.

    A measured value has one line, the rising one; of levels and products only the ends count.
    """

    low: F64
    high: F64
    limit: F64
    rising: tuple[F64, F64]
    falling: tuple[F64, F64]
    whole: bool = False

    @classmethod
    def of(cls, terms: Sequence[Term], knots: Sequence[Knots]) -> Lines:
        """Of u, for values in their unit."""
        ends: dict[Column, tuple[float, ...]] = {each.column: each.ends for each in knots}
        limits = limits_of(terms)
        table = np.array([(*term.ends, most, *_lines(term, ends)) for term, most in zip(terms, limits, strict=True)])
        low, high, limit, height, slope, fallen, fall = table.reshape(-1, 7).T[:, :, None]
        return cls(low, high, limit, (height, slope), (fallen, fall))

    def standardised(self, centre: F64, spread: F64) -> Lines:
        """Of (u - centre) / spread, arrays of shape (terms, 1)."""
        low, high = ((end - centre) / spread for end in (self.low, self.high))
        rising, falling = (((height - centre) / spread, slope / spread) for height, slope in (self.rising, self.falling))
        return Lines(low, high, self.limit, rising, falling)

    def on_grid(self, steps: float) -> Lines:
        """In grid steps, `steps` of which are one unit, as whole numbers within the limit.

        Each end by itself: a hostile centre puts the whole range beyond the limit.
        """
        low, high = (np.trunc(np.clip(end, -self.limit, self.limit) * steps) for end in (self.low, self.high))
        rising, falling = ((height * steps, slope * steps) for height, slope in (self.rising, self.falling))
        return Lines(low, high, self.limit * steps, rising, falling, whole=True)

    def measured(self, terms: slice, values: F64, out: F64) -> None:
        """Of values of shape (columns, patients) into `out` of shape (terms, patients), equally many terms of each column."""
        _along(self.rising, terms, values, out)
        self.cut(terms, out)

    def hats(self, terms: slice, values: F64, out: F64) -> None:
        """Likewise."""
        down = np.empty_like(out)
        _along(self.rising, terms, values, out)
        _along(self.falling, terms, values, down)
        np.minimum(out, down, out=out)
        self.cut(terms, out)

    def cut(self, terms: slice, out: F64) -> None:
        """Between the ends."""
        np.clip(out, self.low[terms], self.high[terms], out=out)
        if self.whole:
            np.trunc(out, out=out)


def _lines(term: Term, ends: Mapping[Column, tuple[float, ...]]) -> tuple[float, float, float, float]:
    """Height at zero and slope, of the rising line and of the falling one; zero where a term has none."""
    if term.knot is not None:
        left, top, right = ends[term.column][term.knot : term.knot + 3]
        rise, fall = 1 / (top - left), 1 / (top - right)
        return -left * rise, rise, -right * fall, fall
    if isinstance(term.column, Numeric) and term.measured:
        slope = 2 / (term.column.high - term.column.low)
        return -1 - term.column.low * slope, slope, 0.0, 0.0
    return 0.0, 0.0, 0.0, 0.0


def _along(lines: tuple[F64, F64], terms: slice, values: F64, out: F64) -> None:
    height, slope = (by_column(each[terms], len(values)) for each in lines)
    along = by_column(out, len(values))
    np.multiply(slope, values[:, None, :], out=along)
    np.add(along, height, out=along)


def by_column(array: F64, columns: int) -> F64:
    """The same memory of shape (columns, terms of each, ...), from one of shape (terms, ...)."""
    return array.reshape(columns, len(array) // columns, *array.shape[1:])
