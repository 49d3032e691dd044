"""The terms of a design on the original scale: what x is at a value, where it bends, and x as an effect (lab/models/forms.py).

x = clip((u - centre) / spread, -limit, limit), u on [-1, 1]: a straight line in the value between two ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.terms import Term
from ahh_federated.core.columns import NOT_KNOWN, Levels
from ahh_federated.lab.models.forms import ByLevel, Curve, Product


@dataclass(frozen=True, slots=True)
class Terms:
    """A design and its released scale."""

    design: Design
    scale: Scale

    def place(self, term: Term) -> int:
        return self.design.terms.index(term)

    def x(self, j: int, u: float) -> float:
        """Term j at u, standardised and clipped."""
        limit = math.inf if self.scale.exact else self.design.limits[j]
        return min(max((u - self.scale.centre[j]) / self.scale.spread[j], -limit), limit)

    def ends(self, j: int) -> tuple[float, float]:
        """Between which u a measured term is not clipped."""
        centre, reach = self.scale.centre[j], self.design.limits[j] * self.scale.spread[j]
        return (-1.0, 1.0) if self.scale.exact else (max(centre - reach, -1.0), min(centre + reach, 1.0))

    def effect(self, j: int) -> Curve | ByLevel:
        """x of a main term as a function of its column; where that is not known, None or what its indicators say."""
        term, absent = self.design.terms[j], None
        at_zero, at_one = self.x(j, 0.0), self.x(j, 1.0)
        if self.design.indicators:
            absent = 0.0 if term.measured else at_one if term.level == NOT_KNOWN else at_zero
        if isinstance(term.column, Levels):
            return ByLevel(
                term.column.name, tuple(at_one if each == term.level else at_zero for each in term.column.levels), absent
            )
        u = self.ends(j) if term.measured else (-1.0, 1.0)
        value = tuple(self.x(j, each) for each in u) if term.measured else (at_zero, at_zero)
        return Curve(term.column.name, tuple(term.column.unscaled(each) for each in u), value, absent)

    def product(self, j: int) -> Product:
        """x of a declared interaction of two terms."""
        one, other = (self.effect(place) for place in self.design.factors(self.design.terms[j]))
        centre, spread = self.scale.centre[j], self.scale.spread[j]
        reach = self.design.limits[j] * spread
        if self.scale.exact:  # no clip: as far as the two can go
            reach = abs(centre) + max(map(abs, one.value)) * max(map(abs, other.value))
        return Product(1 / spread, centre, centre - reach, centre + reach, one, other)

    def input(self, j: int) -> Curve | ByLevel | Product:
        """x of any term but a hat."""
        assert self.design.terms[j].knot is None, "hats are parts of curves"
        return self.effect(j) if self.design.terms[j].by is None else self.product(j)
