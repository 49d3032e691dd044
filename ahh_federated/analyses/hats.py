"""Piecewise-linear curves on public knots.

A measured value on its range, mapped onto [-1, 1], with knots -1 = k_0 < k_1 < ... < k_m < k_(m+1) = 1.  The hat of the
interior knot k_i is 1 there, 0 at both neighbours and beyond, and straight between:

    h_i(u) = max(0, min((u - k_(i-1)) / (k_i - k_(i-1)), (k_(i+1) - u) / (k_(i+1) - k_i)))

The constant, u itself and the m interior hats span all continuous piecewise-linear functions with these knots: such a
function has m + 2 values, and it is zero everywhere only when all m + 2 coefficients are.  De Boor, "A practical guide to
splines" (2001), chapter IX.  A hat is computed element by element, so a patient's depends on that patient alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Numeric
from ahh_federated.errors import Misuse

DEFAULT = 4  # interior knots, equally spaced: six with the ends of the range
MOST = 20
LEAST_GAP = 1e-3  # between neighbouring knots, as a part of the range


@dataclass(frozen=True, slots=True)
class Knots:
    """The interior knots of one column, in its unit and rising; the ends of its public range are knots as well.

    `points`: all of them on [-1, 1].

    Raises:
        Misuse: when they do not rise strictly inside the range.
    """

    column: Numeric
    interior: tuple[float, ...]
    points: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        column, least = self.column, LEAST_GAP * (self.column.high - self.column.low)
        rising = all(b - a >= least for a, b in pairwise(self.ends))
        if not (1 <= len(self.interior) <= MOST and rising):
            raise Misuse(
                f"the knots of {column.name!r} do not rise inside its range of {column.low:g} to {column.high:g} {column.unit}: "
                f"give 1 to {MOST} cut-points, each above the one before"
            )
        points = column.scaled(np.array(self.ends))
        object.__setattr__(self, "points", tuple(float(u) for u in points))

    @property
    def ends(self) -> tuple[float, ...]:
        """All knots in the column's unit, with the ends of the range."""
        return self.column.low, *self.interior, self.column.high

    @classmethod
    def equal(cls, column: Numeric, count: int = DEFAULT) -> Knots:
        """`count` interior knots at equal distances."""
        step = (column.high - column.low) / (count + 1)
        return cls(column, tuple(column.low + step * k for k in range(1, count + 1)))

    def hats(self, u: F64) -> F64:
        """All h_i at values on [-1, 1], shape (hats, values), NaN where u is."""
        left, knot, right = (np.array(self.points[k : k + len(self.interior)])[:, None] for k in range(3))
        return np.asarray(np.maximum(0.0, np.minimum((u - left) / (knot - left), (right - u) / (right - knot))))
