"""A number as it is reported: its value, its standard error from privacy noise, an interval, and a status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ahh_federated.core.releases import Status

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Number:
    """`se` is the standard error from privacy noise alone; `low` and `high` bound the 95 % interval."""

    value: float | None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    status: Status = Status.RELEASED

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "se": self.se, "low": self.low, "high": self.high, "status": str(self.status)}


def number(value: float, se: float, *, sampling: float = 0.0, least: float = -math.inf, most: float = math.inf) -> Number:
    """A number with a normal interval from its noise and, where it estimates a population, its sampling error.

    Where a number can only lie between `least` and `most`, what noise pushed past them is brought back.
    """
    if not (math.isfinite(value) and math.isfinite(se) and math.isfinite(sampling)):
        return Number(None, status=Status.FAILED)
    half = Z95 * math.hypot(se, sampling)
    value = min(max(value, least), most)
    return Number(value, se, max(value - half, least), min(value + half, most))


def share_used(used: float, unused: float, stderr: float, cells: int) -> Number:
    """The share of patients used, `used` being the sum of `cells` cells; `stderr` of each cell and of `unused`."""
    everybody = used + unused
    if everybody <= max(2 * stderr, 1.0):
        return missing(Status.BELOW)
    slope = math.hypot(math.sqrt(cells) * unused, used) / everybody**2
    return number(used / everybody, slope * stderr, least=0.0, most=1.0)


def missing(status: Status) -> Number:
    """A number that a partner did not release, and why."""
    return Number(None, status=status)
