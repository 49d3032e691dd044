"""x, against its definition term by term."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ahh_federated.analyses.design import GRID, Design, Scale
from ahh_federated.analyses.hats import Knots
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.errors import Misuse
from tests.laws.cohorts import plausible_cohort
from tests.laws.registry import COMPLETE_CASES, CROSSED, CURVED, INDICATORS, scale

DESIGNS = {"complete cases": COMPLETE_CASES, "indicators": INDICATORS, "products": CROSSED, "hats": CURVED}
COHORT = plausible_cohort(500, 3)
every_design = pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS.keys())


def by_definition(design: Design, scale: Scale, cohort: Cohort) -> F64:
    """(u - centre) / spread, by the formulas of design.py and hats.py; a value not known sits at the centre."""
    u = [*design.terms_of(cohort)]
    x: list[F64] = []

    def add(values: F64) -> None:
        z = (values - scale.centre[len(x)]) / scale.spread[len(x)]
        x.append(np.where(np.isnan(z), 0.0, z) if design.indicators else z)

    for values in u:
        add(values)
    for term in design.terms[len(u) :]:
        if term.by is not None:
            one, other = design.factors(term)
            add(x[one] * x[other])
    for knots in design.knots:
        for hat in knots.hats(knots.column.scaled(cohort[knots.column.name])):
            add(hat)
    return np.stack([np.ones(len(cohort)), *x])


@every_design
def test_an_exact_x_is_its_definition(design: Design) -> None:
    exact = replace(scale(design, np.random.default_rng(1)), exact=True)
    x, expected = exact.standardised(design, COHORT), by_definition(design, exact, COHORT)
    assert np.isnan(expected).any() != design.indicators
    np.testing.assert_allclose(x, expected, rtol=1e-9, atol=1e-9)


@every_design
def test_on_the_grid_it_is_truncated_and_within_the_limits(design: Design) -> None:
    drawn = scale(design, np.random.default_rng(1))
    x, exact = drawn.standardised(design, COHORT), by_definition(design, drawn, COHORT)
    known = ~np.isnan(exact).any(axis=0)
    limits = np.array([1.0, *design.limits])[:, None]
    product = np.array([False, *(term.by is not None for term in design.terms)])
    assert (x[:, known] == np.trunc(x[:, known])).all()
    assert (np.abs(x[:, known]) <= limits * GRID).all()
    assert np.abs(x[:, known] / GRID - np.clip(exact, -limits, limits)[:, known])[~product].max() < 1.001 / GRID
    assert (np.abs(exact) > limits)[:, known].any()  # something was clipped


@every_design
def test_however_many_columns_are_computed_together_x_is_the_same(design: Design, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = scale(design, np.random.default_rng(1))
    together = drawn.standardised(design, COHORT)
    monkeypatch.setattr("ahh_federated.analyses.design._AT_ONCE", 1)
    np.testing.assert_array_equal(drawn.standardised(design, COHORT), together)


def test_a_run_has_equally_many_terms_of_each_of_its_columns() -> None:
    columns = tuple(Numeric(name, 0.0, 10.0, "u") for name in "abcd")
    knots = tuple(Knots.equal(column, count) for column, count in zip(columns, (4, 4, 2, 4), strict=True))
    design = Design((*columns, Levels("e", ("x", "y", "z"))), knots=knots)
    level = (slice(4, 5), slice(5, 6))
    assert [(run.terms, run.columns) for run in design.runs] == [
        (slice(0, 4), columns),
        *((at, design.features[4:]) for at in level),
        (slice(6, 14), columns[:2]),
        (slice(14, 16), columns[2:3]),
        (slice(16, 20), columns[3:]),
    ]


def test_a_feature_given_twice_is_refused() -> None:
    a, b = Numeric("a", 0.0, 1.0, "u"), Numeric("b", 0.0, 1.0, "u")
    with pytest.raises(Misuse, match="a feature is given twice"):
        Design((a, b, a))


@every_design
@pytest.mark.parametrize("centre", [-1e300, -50.0, 50.0, 1e300])
def test_whatever_the_centre_x_is_within_the_limits(design: Design, centre: float) -> None:
    terms = design.width - 1
    x = Scale((centre,) * terms, (1e-3,) * terms, 1.0).standardised(design, COHORT)
    limits = np.array([1.0, *design.limits])[:, None]
    assert (np.abs(x) <= limits * GRID)[:, ~np.isnan(x).any(axis=0)].all()


@pytest.mark.parametrize(("low", "high"), [(1e308, 1.5e308), (1.7e9, 1.7e9 + 60), (-1e-300, 1e-300), (-1.0, 1e300)])
def test_whatever_the_range_its_ends_are_the_ends(low: float, high: float) -> None:
    design = Design((Numeric("a", low, high, "u"),))
    x = Scale.plain(design).standardised(design, Cohort.of({"a": np.array([low, high])}))[1]
    assert np.abs(x - np.array([-GRID, GRID])).max() <= 1  # truncated


@every_design
def test_a_scale_of_another_length_does_not_fit(design: Design) -> None:
    short = Scale((0.0,), (1.0,), 3.0)
    with pytest.raises(ValueError, match="a scale of 1 terms"):
        short.standardised(design, COHORT)
