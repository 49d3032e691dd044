"""From the released numbers of a model to its form on the original scale (lab/models/forms.py).

A term is a straight line in its column's value between two ends (lab/models/terms.py); a hat bends it at its knot and at its
neighbours, and where the clip cuts it.  So the terms of one column add up to one piecewise-linear curve, given by its values at
these points, and nothing is approximated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.models import Equation
from ahh_federated.analyses.terms import LIMIT, Term
from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric
from ahh_federated.lab.models.forms import F64, ByLevel, Curve, Layer, Line, Network, Sum
from ahh_federated.lab.models.terms import Terms
from ahh_federated.neural.fit import NeuralPredictor


def sum_of(equation: Equation) -> Sum:
    """The equation as an intercept and effects; in the outcome's unit when that is measured."""
    made = _Columns(equation)
    parts = [made.levels(each) if isinstance(each, Levels) else made.measured(each) for each in equation.features]
    places = [j for j, term in enumerate(equation.design.terms) if term.by is not None]
    products = tuple(made.terms.product(j).times(equation.beta[j + 1]) for j in places)
    intercept = math.fsum([equation.beta[0], *(constant for constant, _ in parts)])
    found = Sum(intercept, tuple(effect for _, effect in parts), products)
    if equation.family == "continuous" and isinstance(equation.outcome, Numeric):
        return found.moved(equation.outcome.middle, equation.outcome.half)
    return found


def network_of(predictor: NeuralPredictor) -> Network:
    """The network on its standardised terms, its outputs in the outcome's unit when that is measured."""
    terms, point = Terms(predictor.design, predictor.point.scale), predictor.point
    weights = predictor.network.weights(np.array(point.theta))
    layers = tuple(Layer(matrix.T, bias) for matrix, bias in weights.layers)
    inputs = tuple(terms.input(j) for j in range(len(predictor.design.terms)))
    found = Network(inputs, predictor.network.activation, layers, None if weights.direct is None else weights.direct.T)
    if predictor.family == "continuous" and isinstance(predictor.outcome, Numeric):
        return found.moved(predictor.outcome.unscaled(point.centre), point.spread * predictor.outcome.half)
    return found


class _Columns:
    """The part of an equation that depends on one column alone, and the constant of it that goes to the intercept."""

    def __init__(self, equation: Equation) -> None:
        self.terms = Terms(equation.design, equation.scale)
        self._equation = equation

    def levels(self, column: Levels) -> tuple[float, ByLevel]:
        """The effect of each level, zero at the reference."""
        known, unknown = self._unknown(column)
        terms = [Term(column, level) for level in column.levels[1:]]
        value = [math.fsum(self._part(term, float(term.level == level)) for term in terms) for level in column.levels]
        absent = None if unknown is None else unknown - known
        return known + value[0], ByLevel(column.name, tuple(each - value[0] for each in value), absent)

    def measured(self, column: Numeric) -> tuple[float, Line | Curve]:
        """A line, or a curve that is zero at the column's centre."""
        known, unknown = self._unknown(column)
        j = self.terms.place(Term(column))
        centre, ends = self.terms.scale.centre[j], self.terms.ends(j)
        knots = next((each for each in self.terms.design.knots if each.column == column and self._in_use(each)), None)
        if knots is None:
            slope = self._equation.beta[j + 1] / self.terms.scale.spread[j] / column.half
            zero = known - slope * column.unscaled(centre)
            low, high = (column.unscaled(u) for u in ends)
            return zero, Line(column.name, slope, low, high, None if unknown is None else unknown - zero)
        points = np.unique([-1.0, *ends, *self._bends(knots), 1.0])
        constant = known + float(self._height(knots, np.array([centre]))[0])
        value = tuple(float(each) for each in self._height(knots, points) + (known - constant))
        at = tuple(column.unscaled(float(u)) for u in points)
        return constant, Curve(column.name, at, value, None if unknown is None else unknown - constant)

    def _part(self, term: Term, u: float) -> float:
        j = self.terms.place(term)
        return self._equation.beta[j + 1] * self.terms.x(j, u)

    def _unknown(self, column: Column) -> tuple[float, float | None]:
        """What the indicator of "not known" adds where the column is known, and where it is not."""
        if not self.terms.design.indicators:
            return 0.0, None
        return self._part(Term(column, NOT_KNOWN), 0.0), self._part(Term(column, NOT_KNOWN), 1.0)

    def _in_use(self, knots: Knots) -> bool:
        """Whether any hat counts: an additive model may be of straight lines (analyses/choice.py)."""
        hats = (self.terms.place(Term(knots.column, knot=number)) for number in range(len(knots.interior)))
        return any(self._equation.beta[j + 1] for j in hats)

    def _bends(self, knots: Knots) -> Iterator[float]:
        """Where a curve may bend: its knots, and where the clip cuts a hat."""
        yield from knots.points
        for number in range(0 if self.terms.scale.exact else len(knots.interior)):
            hat = Term(knots.column, knot=number)
            j = self.terms.place(hat)
            left, knot, right = knots.points[number : number + 3]
            for reach in (-LIMIT, LIMIT):
                height = self.terms.scale.centre[j] + reach * self.terms.scale.spread[j]
                if 0 < height < 1:
                    yield left + height * (knot - left)
                    yield right - height * (right - knot)

    def _height(self, knots: Knots, points: F64) -> F64:
        """The curve at points on [-1, 1]: the straight term and the hats."""
        found = np.array([self._part(Term(knots.column), float(u)) for u in points])
        for number, heights in enumerate(knots.hats(points)):
            found += np.array([self._part(Term(knots.column, knot=number), float(h)) for h in heights])
        return found
