"""Straight lines of measured values, one for each coordinate of x.

A measured value v is u = -1 + 2 (v - low) / (high - low), a line; a hat (analyses/hats.py) is the lower of a line that rises
to its knot and one that falls from it, between 0 and 1.  A standardised line is a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ahh_federated.core.cohorts import F64


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Height at zero and slope, arrays of shape (lines, 1)."""

    height: F64
    slope: F64

    @classmethod
    def through(cls, zero: Sequence[float], one: Sequence[float]) -> Lines:
        """Those that are 0 at the first values and 1 at the second, in the unit of the values."""
        at, run = np.array(zero)[:, None], np.subtract(one, zero)[:, None]
        return cls(-at / run, 1 / run)

    def standardised(self, centre: F64, per_unit: F64) -> Lines:
        """Of (height - centre) * per_unit, arrays of shape (lines, 1)."""
        return Lines((self.height - centre) * per_unit, self.slope * per_unit)

    def at(self, values: F64, lines: slice, out: F64) -> None:
        """Heights of some lines at values of shape (patients,), into `out` of shape (lines, patients)."""
        np.multiply(self.slope[lines], values, out=out)
        np.add(out, self.height[lines], out=out)
