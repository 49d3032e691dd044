"""Columns as a study declares them: what a value may be, before anybody has seen one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ahh_federated.core.cohorts import F64

NOT_KNOWN = "not known"  # the level of a patient whose value is not known, where that is a level


@dataclass(frozen=True, slots=True)
class Numeric:
    """A measured column: public range and unit, codes that mean "not known", and what a value outside becomes."""

    name: str
    low: float
    high: float
    unit: str
    missing: tuple[float, ...] = ()
    outside: Literal["missing", "clip"] = "missing"

    @property
    def half(self) -> float:
        """Half the range: what one unit of [-1, 1] is in the column's unit."""
        return (self.high - self.low) / 2

    @property
    def middle(self) -> float:
        return (self.high + self.low) / 2

    def scaled(self, values: F64) -> F64:
        """Values in the unit, clipped to the range and mapped onto [-1, 1]; NaN stays NaN."""
        return 2.0 * (np.clip(values, self.low, self.high) - self.low) / (self.high - self.low) - 1.0

    def unscaled(self, value: float) -> float:
        """The inverse of `scaled` within the range, for one value."""
        return (value + 1.0) / 2.0 * (self.high - self.low) + self.low


@dataclass(frozen=True, slots=True)
class Levels:
    """A column of named levels; the first is the reference.  A cohort holds the level's index, or NaN."""

    name: str
    levels: tuple[str, ...]
    missing: tuple[str, ...] = ()

    def index(self, level: str) -> int:
        return self.levels.index(level)


Column = Numeric | Levels
