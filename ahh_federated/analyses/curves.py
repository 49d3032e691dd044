"""A fitted additive model: one readable curve with a band for each measured predictor.

A column's curve at a value v is its part of the linear predictor, less what that part is on average:

    f(v) = sum over the column's own coordinates j of beta_j (x_j(v) - m_j),      m = E[x] as released

so f has mean zero over patients, and the curves of all columns can be compared.  It is straight between its breakpoints:
the knots, and the ends of the values that count.  Its variance is g' V g with g = x(v) - m and V the covariance of the
estimates (docs/dp-newton.md), sampling error and privacy noise apart.  Between breakpoints g is linear in v, so the
standard error is convex: a band drawn straight from breakpoint to breakpoint is never too narrow there.

Curves and bands come from the estimates, which no prior shrinks; the tables of the equation, which predict, do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.choice import Choice
from ahh_federated.analyses.coefficients import clip, entry, original
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.models import Family, outcome_spread
from ahh_federated.analyses.numbers import Z95
from ahh_federated.analyses.terms import PRODUCT_LIMIT, Term
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric
from ahh_federated.core.queries import Parameters


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Breakpoints in the column's unit, and there the curve's value and the two parts of its standard error."""

    column: Numeric
    at: F64
    value: F64
    sampling: F64
    privacy: F64

    @property
    def se(self) -> F64:
        return np.asarray(np.hypot(self.sampling, self.privacy))

    def to_json(self, name: str) -> dict[str, Any]:
        """`name`: what the values are called."""
        low, high = self.value - Z95 * self.se, self.value + Z95 * self.se
        values = {"at": self.at, name: self.value, "low": low, "high": high, "se": self.se}
        values |= {"se_sampling": self.sampling, "se_privacy": self.privacy}
        return {"unit": self.column.unit, **{key: array.tolist() for key, array in values.items()}}


@dataclass(frozen=True, slots=True, eq=False)
class AdditiveFit:
    """A regression on hats, read as curves.  `mean`: E[x]; `choice`: whether the hats are in use.

    Curves are in log odds (an outcome of two levels) or in the outcome's unit.
    """

    regression: Fit | LinearFit
    mean: F64
    choice: Choice

    @property
    def family(self) -> Family:
        return self.regression.family

    @property
    def outcome(self) -> Column:
        return self.regression.outcome

    @property
    def features(self) -> tuple[Column, ...]:
        return self.regression.features

    @property
    def spread(self) -> tuple[float, float]:
        return self.regression.spread

    @property
    def outcome_spread(self) -> tuple[float, float] | None:
        return outcome_spread(self.regression)

    @property
    def partners(self) -> tuple[str, ...]:
        return self.regression.partners

    @property
    def rounds(self) -> int:
        return self.regression.rounds

    def parameters(self) -> Parameters:
        return self.regression.parameters()

    def linear(self, cohort: Cohort) -> F64:
        """The log odds, or the value in the outcome's unit, shape (patients,), NaN where a needed column is not known."""
        return self.regression.linear(cohort)

    def predict(self, cohort: Cohort) -> F64:
        """The risk, or the value in the outcome's unit, shape (patients,)."""
        return np.asarray(expit(self.linear(cohort))) if self.family == "binary" else self.linear(cohort)

    def curves(self) -> dict[str, Curve]:
        """The curve of each measured column, by name."""
        return {column.name: self._curve(column) for column in self.features if isinstance(column, Numeric)}

    def _curve(self, column: Numeric) -> Curve:
        at = self._breakpoints(column)
        return Curve(column, at, *self._contrasts(self._x(column, at) - self.mean * self._own(column)))

    def _contrasts(self, g: F64) -> tuple[F64, F64, F64]:
        """g'beta for each row of g, and the two parts of its standard error, all in the unit of the curves."""
        fit, unit = self.regression, self._unit
        parts = (np.maximum(np.einsum("ij,jk,ik->i", g, part, g), 0.0) for part in (fit.sampling, fit.privacy))
        sampling, privacy = (unit * np.sqrt(part) for part in parts)
        return unit * (g @ np.array(fit.estimate)), sampling, privacy

    @property
    def _unit(self) -> float:
        """What one unit of x'beta is: of log odds, or in the outcome's unit."""
        return self.outcome.half if isinstance(self.outcome, Numeric) else 1.0

    @property
    def _zero(self) -> float:
        """What x'beta = 0 is."""
        return self.outcome.middle if isinstance(self.outcome, Numeric) else 0.0

    def _own(self, column: Column) -> F64:
        """1 for the coordinates of x that depend on this column alone, 0 for the others."""
        return np.array([0.0, *(float(t.column == column and t.by is None) for t in self.regression.design.terms)])

    def _x(self, column: Column, values: F64) -> F64:
        """The column's own coordinates of x at given values, zero elsewhere, shape (values, width)."""
        design, scale = self.regression.design, self.regression.scale
        made_up = {each.name: values if each == column else np.zeros(len(values)) for each in design.features}
        x = scale.standardised(design, Cohort.of(made_up, len(values))).T / scale.unit
        return np.asarray(np.where(self._own(column) > 0, x, 0.0))

    def _breakpoints(self, column: Numeric) -> F64:
        """Where the curve may bend: the ends of the range, of what is not clipped, and the knots in use."""
        design = self.regression.design
        ends = clip(design, self.regression.scale, column)
        knots = [at for each in design.knots if each.column == column and self.choice.curves for at in each.interior]
        return np.unique([column.low, column.high, *ends, *knots])

    def to_json(self) -> dict[str, Any]:
        regression = self.regression.to_json()
        name = "log_odds" if self.family == "binary" else "value"
        return {
            **{key: value for key, value in regression.items() if key not in ("terms", "equation", "notes")},
            "family": self.family,
            "curves": {column: curve.to_json(name) for column, curve in self.curves().items()},
            "terms": self._terms(),
            "interactions": self._interactions(),
            "equation": self._equation(),
            "choice": self.choice.to_json(),
            "notes": [self.choice.explained(), *regression["notes"]],
        }

    def _terms(self) -> list[dict[str, Any]]:
        """The intercept, at the mean of every curve and the reference of every other column; and what is no curve.

        A level is compared with the reference, a measured value not known with the mean.
        """
        design = self.regression.design
        base = np.eye(design.width)[0]
        rows: list[tuple[Term | None, F64]] = [(None, base)]
        for column in design.features:
            against = self.mean * self._own(column)
            if isinstance(column, Levels):
                against, *levels = self._x(column, np.arange(len(column.levels), dtype=np.float64))
                rows += [(Term(column, level), x - against) for level, x in zip(column.levels[1:], levels, strict=True)]
            if design.indicators:
                rows.append((Term(column, NOT_KNOWN), self._x(column, np.array([np.nan]))[0] - against))
            base += against
        values, *errors = self._contrasts(np.array([g for _, g in rows]))
        values[0] += self._zero
        return [entry(t, *row, odds=self.family == "binary") for (t, _), *row in zip(rows, values, *errors, strict=True)]

    def _interactions(self) -> list[dict[str, Any]]:
        """A row for each product of two terms, per unit of both."""
        design = self.regression.design
        places = [j for j, term in enumerate(design.terms) if term.by is not None]
        g = original(design, self.regression.scale)[[j + 1 for j in places]]
        found = zip(places, *self._contrasts(g), strict=True)
        return [entry(design.terms[j], *row, odds=self.family == "binary") for j, *row in found]

    def _equation(self) -> dict[str, Any]:
        """Tables that predict: the intercept, and what each column and each product adds.

        A measured column's table is straight between its points, as `numpy.interp` reads it; a product is that of its two
        tables, held between -15 and 15.  All that is lost is the grid of x, 2**-16.
        """
        design = self.regression.design
        beta = self._unit * np.array(self.regression.beta)
        tables = [self._table(column, beta) for column in design.features]
        products = []
        for j, term in enumerate(design.terms):
            if term.by is not None:
                ones = [np.eye(design.width)[place + 1] for place in design.factors(term)]
                factors = [self._table(column, one) for column, one in zip((term.column, term.by[0]), ones, strict=True)]
                products.append({"coefficient": float(beta[j + 1]), "limit": PRODUCT_LIMIT, "factors": factors})
        return {"intercept": self._zero + float(beta[0]), "columns": tables, "products": products}

    def _table(self, column: Column, beta: F64) -> dict[str, Any]:
        """x'beta of a column's own coordinates: at its breakpoints or levels, and where it is not known."""
        unknown = float((self._x(column, np.array([np.nan])) @ beta)[0]) if self.regression.design.indicators else None
        if isinstance(column, Numeric):
            at = self._breakpoints(column)
            found: dict[str, Any] = {"at": at.tolist(), "value": (self._x(column, at) @ beta).tolist()}
        else:
            values = self._x(column, np.arange(len(column.levels), dtype=np.float64)) @ beta
            found = {"levels": dict(zip(column.levels, values.tolist(), strict=True))}
        return {"column": column.name, **found, "not_known": unknown}
