"""Coefficients as they are read: on the scale of the columns, by name, with intervals; and the equation that predicts.

A main term is x = slope v + shift, with v the value in its unit or the 0/1 of a level.  A product of two, with its own
centre c and spread s, is

    ((slope_a v_a + shift_a)(slope_b v_b + shift_b) - c) / s,

so its coefficient also reaches the coefficients of both columns and the intercept.  A hat is (h - c) / s.  All of it is
linear in the coefficients: one matrix turns those of x into those per unit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import log_ndtr

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.numbers import Z95
from ahh_federated.analyses.terms import Term
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Levels, Numeric


def original(design: Design, scale: Scale) -> F64:
    """The matrix that turns coefficients of x into coefficients per unit, shape (width, width)."""
    matrix = np.eye(design.width)
    for j, term in enumerate(design.terms, start=1):
        centre, spread = scale.centre[j - 1], scale.spread[j - 1]
        if term.by is not None:
            a, b = design.factors(term)
            (slope_a, shift_a), (slope_b, shift_b) = _line(design, scale, a), _line(design, scale, b)
            matrix[j, j] = slope_a * slope_b / spread
            matrix[a + 1, j], matrix[b + 1, j] = slope_a * shift_b / spread, shift_a * slope_b / spread
            matrix[0, j] = (shift_a * shift_b - centre) / spread
        elif term.knot is not None:
            matrix[j, j], matrix[0, j] = 1 / spread, -centre / spread
        else:
            matrix[j, j], matrix[0, j] = _line(design, scale, j - 1)
    return matrix


def _line(design: Design, scale: Scale, j: int) -> tuple[float, float]:
    """Slope and shift of a main term, per unit of its column."""
    term, centre, spread = design.terms[j], scale.centre[j], scale.spread[j]
    if term.measured and isinstance(term.column, Numeric):
        slope = 2 / (term.column.high - term.column.low) / spread
        return slope, -slope * term.column.unscaled(centre)
    return 1 / spread, -centre / spread


def clip(design: Design, scale: Scale, column: Numeric) -> list[float]:
    """Values too many spreads from the centre of a measured column, or outside its public range, count as these."""
    j = design.terms.index(Term(column))
    centre, reach = scale.centre[j], design.limits[j] * scale.spread[j]
    if scale.exact:
        return [column.low, column.high]
    low, high = max(centre - reach, -1.0), min(centre + reach, 1.0)
    return [column.unscaled(low), column.unscaled(high)]


def name_of(term: Term) -> str:
    label = _factor(term)
    if term.by is not None:
        label = f"{label} × {_factor(Term(*term.by))}"
    elif term.knot is not None:
        label = f"{label}, hat {term.knot + 1}"
    unit = unit_of(term)
    return f"{label} (per {unit})" if unit else label


def unit_of(term: Term) -> str | None:
    """The unit that a coefficient is per: none for an indicator."""
    factors = [Term(term.column, term.level), *([Term(*term.by)] if term.by is not None else [])]
    units = [factor.column.unit for factor in factors if factor.measured and isinstance(factor.column, Numeric)]
    return " × ".join(units) if units and term.knot is None else None


def _factor(term: Term) -> str:
    label = term.column.name.replace("_", " ")
    return label if term.level is None else f"{label}: {term.level}"


def entry(term: Term | None, value: float, sampling: float, privacy: float, *, odds: bool) -> dict[str, Any]:
    """One row of a table of coefficients; with `odds` the interval is that of the odds ratio, without that of the coefficient.

    Args:
        term: None for the intercept.
        sampling, privacy: the two parts of the coefficient's standard error.
    """
    se = math.hypot(sampling, privacy)
    low, high = value - Z95 * se, value + Z95 * se
    row: dict[str, Any] = {
        "name": name_of(term) if term else "(intercept)",
        "column": term.column.name if term else None,
        "level": term.level if term else None,
        "unit": unit_of(term) if term else None,
        "coefficient": float(value),
        "se_privacy": float(privacy),
        "se_sampling": float(sampling),
        "se": se,
    }
    if term is not None and term.by is not None:
        row["by"] = {"column": term.by[0].name, "level": term.by[1]}
    interval = {"odds_ratio": ratio(value), "low": ratio(low), "high": ratio(high)} if odds else {"low": low, "high": high}
    return {**row, **interval, "p": float(2 * np.exp(log_ndtr(-abs(value) / se))) if se > 0 else None}


def table(design: Design, scale: Scale, estimate: F64, sampling: F64, privacy: F64, *, odds: bool) -> list[dict[str, Any]]:
    """A row for the intercept and for each term, on the scale of the columns.

    Args:
        estimate: coefficients of x, shape (width,).
        sampling, privacy: the two parts of their covariance, shape (width, width).
    """
    matrix = original(design, scale)
    values = matrix @ estimate
    errors = [np.sqrt(np.maximum(np.diag(matrix @ part @ matrix.T), 0.0)) for part in (sampling, privacy)]
    return [entry(t, *row, odds=odds) for t, *row in zip([None, *design.terms], values, *errors, strict=True)]


def equation(design: Design, scale: Scale, beta: F64) -> dict[str, Any]:
    """The linear predictor: intercept + sum of coefficient times the clipped value, the 0/1 of a level, or a product of two."""
    values = original(design, scale) @ beta
    terms = []
    for j, term in enumerate(design.terms, start=1):
        row: dict[str, Any] = {"column": term.column.name, "level": term.level, "coefficient": float(values[j])}
        if term.by is not None:
            one, other = design.factors(term)
            row |= _clipped(design, scale, one)
            row["by"] = {"column": term.by[0].name, "level": term.by[1], **_clipped(design, scale, other)}
        elif term.knot is None:
            row |= _clipped(design, scale, j - 1)
        terms.append(row)
    return {"intercept": float(values[0]), "terms": terms}


def _clipped(design: Design, scale: Scale, j: int) -> dict[str, Any]:
    """What a measured main term's value is clipped to, and what stands in where it is not known."""
    term = design.terms[j]
    if not (term.measured and isinstance(term.column, Numeric)):
        return {}
    return {"clip": clip(design, scale, term.column), "centre": term.column.unscaled(scale.centre[j])}


def references(design: Design) -> dict[str, str]:
    """The reference level of each column of levels."""
    return {column.name: column.levels[0] for column in design.features if isinstance(column, Levels)}


def ratio(value: float) -> float:
    """e**value, bounded so that it stays a number."""
    return math.exp(min(float(value), 700.0))
