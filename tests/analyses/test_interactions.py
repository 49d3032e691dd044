"""Declared interactions: products of standardised terms, whose fit is the pooled one and whose bound is that of x."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from ahh_federated.analyses.coefficients import equation, original, table
from ahh_federated.analyses.design import GRID, Design, Scale
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.glm import FeatureMoments
from ahh_federated.analyses.linear import Linear
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.terms import FACTOR_LIMIT, PRODUCT_LIMIT, Term
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import Budget
from ahh_federated.errors import Misuse
from tests.analyses.drivers import exactly, noised, split
from tests.analyses.populations import ACTIVE, AGE, BMI, CASE, FEATURES, SEX, ZONE, matrix_of, patients

PAIRS = ((AGE, BMI), (BMI, SEX), (AGE, ZONE), (SEX, ZONE))
DESIGN = Design(FEATURES, interactions=PAIRS)
NAMES = [
    "age × bmi (per years × kg/m2)",
    "bmi × sex: girl (per kg/m2)",
    "age × zone: east (per years)",
    "age × zone: south (per years)",
    "sex: girl × zone: east",
    "sex: girl × zone: south",
]


def crossed_matrix(columns: dict[str, F64]) -> F64:
    """The design matrix with the same interactions, for an outside library."""
    m = matrix_of(columns)
    age, bmi, girl, east, south = m[:, 1], m[:, 2], m[:, 4], m[:, 5], m[:, 6]
    return np.column_stack([m, age * bmi, bmi * girl, age * east, age * south, girl * east, girl * south])


def rows_of(fit: Fit | LinearFit, *, odds: bool) -> list[dict[str, Any]]:
    return table(fit.design, fit.scale, np.array(fit.estimate), fit.sampling, fit.privacy, odds=odds)


def test_the_exact_fit_is_the_pooled_maximum_likelihood() -> None:
    columns = patients(5000, seed=31)
    fit = exactly(Logistic(DESIGN, CASE, EXACT_ROUNDS, exact=True), split(columns, 4))
    reference = sm.Logit(columns["case"], crossed_matrix(columns)).fit(disp=0, tol=1e-12, maxiter=100)
    rows = rows_of(fit, odds=True)
    assert [row["coefficient"] for row in rows] == pytest.approx(reference.params, rel=1e-6, abs=1e-6)
    assert [row["se"] for row in rows] == pytest.approx(reference.bse, rel=1e-6, abs=1e-6)
    assert [row["name"] for row in rows[7:]] == NAMES
    assert rows[8]["by"] == {"column": "sex", "level": "girl"}
    assert rows[7]["unit"] == "years × kg/m2"
    assert rows[11]["unit"] is None


def predicted(printed: dict[str, Any], cohort: Cohort) -> F64:
    """The linear predictor from the printed equation alone, complete cases or not."""

    def factor(part: dict[str, Any]) -> F64:
        values = cohort[part["column"]]
        if part["level"] is None:
            return np.where(np.isnan(values), part["centre"], np.clip(values, *part["clip"]))
        if part["level"] == "not known":
            return np.isnan(values).astype(np.float64)
        return (values == {"sex": SEX, "zone": ZONE}[part["column"]].index(part["level"])).astype(np.float64)

    eta = np.full(len(cohort), printed["intercept"])
    for term in printed["terms"]:
        eta += term["coefficient"] * factor(term) * (factor(term["by"]) if "by" in term else 1.0)
    return eta


def with_gaps(columns: dict[str, F64]) -> dict[str, F64]:
    rng = np.random.default_rng(9)
    return {n: np.where((rng.random(len(v)) < 0.1) & (n != "case"), np.nan, v) for n, v in columns.items()}


@pytest.mark.parametrize("indicators", [False, True])
def test_the_printed_equation_predicts_what_predict_says(indicators: bool) -> None:
    columns = patients(3000, seed=32)
    if indicators:
        columns = with_gaps(columns)
    design = Design(FEATURES, indicators, PAIRS)
    fit = noised(Logistic(design, CASE), split(columns, 3), Budget(6.0, 1e-5), 2)
    printed = equation(fit.design, fit.scale, np.array(fit.beta))
    cohort = Cohort.of(columns)
    assert predicted(printed, cohort) == pytest.approx(fit.linear(cohort), abs=2e-4)


def test_the_printed_equation_holds_far_out_in_the_tails_of_columns_that_interact() -> None:
    """Products beyond 15 are cut, which no equation per unit can say: the columns are cut before."""
    rng = np.random.default_rng(4)
    crp, dose = Numeric("crp", 0.0, 200.0, "mg/l"), Numeric("dose", 0.0, 200.0, "mg")
    columns = {column.name: np.minimum(np.exp(rng.normal(2, 1, 5000)), 200.0) for column in (crp, dose)}
    design = Design((crp, dose), interactions=((crp, dose),))
    columns["bmi"] = np.clip(
        20 + 0.1 * columns["crp"] + 0.001 * columns["crp"] * columns["dose"] + rng.normal(0, 2, 5000), 10, 40
    )
    fit = noised(Linear(design, BMI), split(columns, 2), Budget(8.0, 1e-5), 2)
    corner = Cohort.of({"crp": np.array([200.0, 200.0, 8.0]), "dose": np.array([200.0, 8.0, 200.0])})
    assert fit.beta[3] != 0
    step = BMI.half * abs(fit.beta[3])  # one unit of the product: from 16 to 15
    assert predicted(fit.to_json()["equation"], corner) == pytest.approx(fit.linear(corner), abs=step + 2e-3)
    assert (np.abs(fit.scale.standardised(design, corner)[1:3]) <= FACTOR_LIMIT * GRID).all()


def test_a_private_fit_finds_an_interaction() -> None:
    """Twice the slope of age for girls: the interval of the product excludes zero and holds the truth."""
    rng = np.random.default_rng(33)
    columns = patients(20_000, seed=33)
    slope = 0.15 * (1 + columns["sex"])
    columns["case"] = (slope * (columns["age"] - 9) + rng.logistic(size=20_000) > 0).astype(np.float64)
    fit = noised(Logistic(Design((AGE, SEX), interactions=((AGE, SEX),)), CASE), split(columns, 4), Budget(2.0, 1e-6), 5)
    (row,) = [row for row in rows_of(fit, odds=True) if "by" in row]
    assert np.exp(0.15) == pytest.approx(row["odds_ratio"], rel=0.1)
    assert 1 < row["low"] < np.exp(0.15) < row["high"]


def test_interactions_serve_a_measured_outcome_too() -> None:
    columns = patients(3000, seed=34)
    design = Design((AGE, ACTIVE, SEX), interactions=((AGE, ACTIVE), (SEX, AGE)))
    fit = exactly(Linear(design, BMI).exactly(), split(columns, 3))
    age, active, girl = columns["age"], columns["active"], columns["sex"]
    matrix = np.column_stack([np.ones(3000), age, active, girl, age * active, girl * age])
    reference = sm.OLS(columns["bmi"], matrix).fit()
    rows = rows_of(fit, odds=False)
    assert fit.coefficients() == pytest.approx(reference.params, rel=1e-6, abs=1e-6)
    assert np.hypot(*fit.standard_errors()) == pytest.approx(reference.bse, rel=1e-6)
    assert rows[5]["name"] == "sex: girl × age (per years)"


def test_products_ask_nothing_more() -> None:
    plain, crossed = FeatureMoments(Design(FEATURES), CASE), FeatureMoments(DESIGN, CASE)
    assert (plain.width, plain.bound) == (crossed.width, crossed.bound)
    cohort = Cohort.of(patients(50, seed=35))
    assert np.array_equal(plain.rows(cohort), crossed.rows(cohort))
    assert [line.kind for line in Logistic(DESIGN, CASE).schedule()] == [
        line.kind for line in Logistic(Design(FEATURES), CASE).schedule()
    ]


def corner(width: int) -> tuple[Design, Scale, Cohort]:
    """Patients at the ends of columns scaled so that both factors of every product are clipped."""
    columns = tuple(Numeric(f"x{j}", -1.0, 1.0, "units") for j in range(width))
    pairs = tuple((columns[i], columns[j]) for i in range(width) for j in range(i))
    design = Design(columns, interactions=pairs)
    scale = Scale((0.0,) * width + (0.0,) * len(pairs), (1e-3,) * width + (1.0,) * len(pairs), 5.0)
    rng = np.random.default_rng(36)
    return design, scale, Cohort.of({c.name: rng.choice([-1.0, 1.0, 0.37], 40) for c in columns})


def test_a_product_stays_within_its_limit_and_the_predictor_is_exact() -> None:
    """Against Python's integers, at the corner where the sum is largest: all coefficients on products at their limit."""
    design, scale, cohort = corner(8)
    x = scale.standardised(design, cohort)
    assert np.abs(x[1:9]).max() == FACTOR_LIMIT * GRID
    assert np.abs(x[9:]).max() == PRODUCT_LIMIT * GRID
    assert np.array_equal(x, np.trunc(x))
    for size in (1.0 / 28, 1.0, 2.0**-40, 1e5 / 3):
        beta = np.array([0.0] * 9 + [size] * 28)
        found = scale.predictor(x, beta)
        shift = 2.0 ** np.floor(52 - np.log2(PRODUCT_LIMIT * GRID * max(float(np.abs(beta).sum()), 1.0)))
        whole = [int(v) for v in np.round(beta * shift)]
        for patient in range(len(cohort)):
            total = sum(b * int(v) for b, v in zip(whole, x[:, patient], strict=True))
            assert abs(total) < 2**53
            assert float(found[patient]) == total / (shift * GRID)


def test_the_matrix_to_the_original_scale_is_the_expanded_product() -> None:
    design = Design((AGE, SEX), interactions=((AGE, SEX),))
    scale = Scale((0.1, 0.4, 0.05), (0.3, 0.49, 1.1), 3.0)
    per_year, shift = 2 / 18 / 0.3, -2 / 18 / 0.3 * AGE.unscaled(0.1)
    beta = np.array([0.2, -0.7, 0.3, 1.3])
    found = original(design, scale) @ beta
    for age, girl in ((3.0, 0.0), (17.0, 1.0)):
        one, other = per_year * age + shift, (girl - 0.4) / 0.49
        eta = beta @ [1.0, one, other, (one * other - 0.05) / 1.1]
        assert found @ [1.0, age, girl, age * girl] == pytest.approx(eta)


@pytest.mark.parametrize("pairs", [((AGE, AGE),), ((AGE, ACTIVE),), ((AGE, SEX), (SEX, AGE))])
def test_an_interaction_is_between_two_features_once(pairs: tuple[tuple[Numeric | Levels, Numeric | Levels], ...]) -> None:
    with pytest.raises(Misuse, match="interaction"):
        Design((AGE, SEX), interactions=pairs)


def test_the_factors_of_a_product_are_found_among_the_main_terms() -> None:
    term = Term(AGE, None, (ZONE, "south"))
    assert term in DESIGN.terms
    assert [DESIGN.main[place] for place in DESIGN.factors(term)] == [Term(AGE), Term(ZONE, "south")]
