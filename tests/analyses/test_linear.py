"""Linear regression: noise off, ordinary least squares on the pooled rows; noise on, intervals that hold the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.gaussian import CrossSums, Residuals
from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.linear import Linear
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.numbers import Z95
from ahh_federated.analyses.scores import Scores
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Status
from ahh_federated.core.sums import integer_sum, integer_sum_slowly, sensitivity
from ahh_federated.errors import Breach, Misuse
from benchmarks.datasets import data_set
from tests.analyses.drivers import exactly, noised, split
from tests.analyses.populations import AGE, BMI, FEATURES, ZONE, matrix_of, patients
from tests.laws.own_integers import law_broken

DESIGN = Design(FEATURES)
VALUE = Numeric("value", -100.0, 100.0, "points")
TRUTH = np.array([10.0, 0.8, 1.2, -0.6, 4.0, -3.0, 5.0])  # points: intercept, age, bmi, active, girl, east, south
SD = 6.0


def people(size: int, seed: int) -> dict[str, F64]:
    """Patients whose value follows TRUTH with normal residuals of standard deviation SD."""
    columns = patients(size, seed)
    noise = np.random.default_rng(seed + 10**6).normal(0.0, SD, size)
    return {**columns, "value": np.clip(matrix_of(columns) @ TRUTH + noise, -100, 100)}


def exact_fit(design: Design, outcome: Numeric, columns: dict[str, F64], partners: int = 4) -> LinearFit:
    fit = exactly(Linear(design, outcome).exactly(), split(columns, partners))
    assert isinstance(fit, LinearFit)
    return fit


def agree(fit: LinearFit, reference: sm.regression.linear_model.RegressionResults) -> None:
    assert fit.coefficients() == pytest.approx(reference.params, rel=1e-6, abs=1e-6)
    assert fit.equation() == pytest.approx(reference.params, rel=1e-6, abs=1e-6)
    sampling, privacy = fit.standard_errors()
    assert sampling == pytest.approx(reference.bse, rel=1e-6)
    assert not privacy.any()
    assert fit.residual_sd.value == pytest.approx(math.sqrt(reference.scale), rel=1e-6)


@pytest.mark.parametrize(("size", "partners"), [(600, 1), (3000, 4)])
def test_the_exact_fit_is_ordinary_least_squares(size: int, partners: int) -> None:
    columns = people(size, seed=size)
    agree(exact_fit(DESIGN, VALUE, columns, partners), sm.OLS(columns["value"], matrix_of(columns)).fit())


def test_real_children_agree_with_an_outside_library() -> None:
    """Birth weight in NHANES by sex, the mother's age and smoking, ethnicity and income, over eight zones."""
    try:
        children = pd.concat(data_set("nhanes").frames().values())
    except Misuse as error:
        pytest.skip(str(error))
    features = (
        Levels("sex", ("male", "female")),
        Numeric("mother_age", 14.0, 45.0, "years"),
        Levels("smoked", ("no", "yes")),
        Levels("ethnicity", ("white-or-other", "hispanic", "black", "asian")),
        Numeric("income_ratio", 0.0, 5.0, "poverty lines"),
    )
    known = children.dropna(subset=["birth_weight", *(each.name for each in features)])
    columns: dict[str, F64] = {"birth_weight": known["birth_weight"].to_numpy(np.float64)}
    matrix = [np.ones(len(known))]
    for each in features:
        if isinstance(each, Levels):
            columns[each.name] = known[each.name].map(each.index).to_numpy(np.float64)
            matrix += [(columns[each.name] == k).astype(np.float64) for k in range(1, len(each.levels))]
        else:
            columns[each.name] = known[each.name].to_numpy(np.float64)
            matrix.append(columns[each.name])
    fit = exact_fit(Design(features), Numeric("birth_weight", 0.5, 6.5, "kg"), columns, 8)
    agree(fit, sm.OLS(columns["birth_weight"], np.column_stack(matrix)).fit())


def test_complete_cases_are_those_an_outside_library_would_use() -> None:
    columns, rng = people(3000, seed=41), np.random.default_rng(1)
    gone = {name: np.where(rng.random(3000) < 0.06, np.nan, values) for name, values in columns.items()}
    known = ~np.isnan(np.stack([gone[name] for name in ("value", *(c.name for c in FEATURES))])).any(axis=0)
    fit = exact_fit(DESIGN, VALUE, gone)
    agree(fit, sm.OLS(columns["value"][known], matrix_of({n: v[known] for n, v in columns.items()})).fit())
    found = fit.to_json()
    assert found["n"]["value"] == pytest.approx(known.sum())
    assert found["complete"]["value"] == pytest.approx(known.mean())


def test_a_large_budget_comes_near_the_exact_fit() -> None:
    columns = people(20_000, seed=42)
    reference = sm.OLS(columns["value"], matrix_of(columns)).fit()
    fit = noised(Linear(DESIGN, VALUE), split(columns, 3), Budget(8.0, 1e-5), 3)
    assert (np.abs(fit.coefficients() - reference.params) < 1.5 * reference.bse).all()
    assert fit.residual_sd.value == pytest.approx(SD, rel=0.03)
    assert fit.spread[0] == pytest.approx(columns["value"].mean(), abs=0.5)
    assert fit.spread[1] == pytest.approx((matrix_of(columns) @ TRUTH).std(), rel=0.1)


def test_the_printed_equation_predicts_what_predict_says() -> None:
    columns = people(2000, seed=43)
    fit = noised(Linear(DESIGN, VALUE), split(columns, 3), Budget(6.0, 1e-5), 2)
    printed, cohort = fit.to_json()["equation"], Cohort.of(columns)
    value = np.full(len(cohort), printed["intercept"])
    for term in printed["terms"]:
        column = {each.name: each for each in FEATURES}[term["column"]]
        known = cohort[column.name]
        part = known == column.index(term["level"]) if isinstance(column, Levels) else np.clip(known, *term["clip"])
        value += term["coefficient"] * part
    assert value == pytest.approx(fit.predict(cohort), abs=2e-2)
    assert fit.parameters()["beta"] == list(fit.beta)
    rebuilt = Linear(DESIGN, VALUE).predictor(fit.parameters())
    assert np.array_equal(rebuilt.linear(cohort), fit.linear(cohort))


def test_a_row_has_its_coefficient_in_the_middle_of_its_interval() -> None:
    rows = noised(Linear(DESIGN, VALUE), split(people(3000, seed=44), 3), Budget(2.0, 1e-5), 2).to_json()["terms"]
    assert [row["column"] for row in rows] == [None, "age", "bmi", "active", "sex", "zone", "zone"]
    for row in rows:
        assert row["low"] + row["high"] == pytest.approx(2 * row["coefficient"])
        assert row["high"] - row["low"] == pytest.approx(2 * Z95 * math.hypot(row["se_sampling"], row["se_privacy"]))
        assert "odds_ratio" not in row


def test_residuals_at_the_solution_repair_what_one_solve_leaves() -> None:
    """Against the same releases' first solution: the round of residuals removes the Gram matrix's noise times beta."""
    columns = people(5000, seed=45)
    cohorts, mean = split(columns, 3), matrix_of(columns) @ TRUTH
    errors = {
        rounds: np.mean(
            [
                (noised(Linear(DESIGN, VALUE, rounds), cohorts, Budget(1.0, 1e-6), seed).predict(Cohort.of(columns)) - mean) ** 2
                for seed in range(4)
            ]
        )
        for rounds in (1, 3)
    }
    assert errors[3] < errors[1] < 0.25 * mean.var()


def test_a_silent_partner_is_left_out_of_every_sum() -> None:
    cohorts = split(people(3000, seed=46), 4)
    rest = {name: cohort for name, cohort in cohorts.items() if name != "partner 3"}
    fit = exactly(Linear(DESIGN, VALUE).exactly(), rest, {"partner 3": Status.OFFLINE})
    assert fit.partners == tuple(sorted(rest))
    assert fit.coefficients() == pytest.approx(exactly(Linear(DESIGN, VALUE).exactly(), rest).coefficients(), abs=1e-9)


@pytest.mark.parametrize("size", [0, 300])
def test_a_tiny_budget_and_an_empty_cohort_give_a_sober_model(size: int) -> None:
    columns = people(size, seed=47)
    for seed in range(4):
        fit = noised(Linear(DESIGN, VALUE), split(columns, 3), Budget(0.05, 1e-6), seed)
        assert np.isfinite(fit.coefficients()).all()
        assert (fit.standard_errors()[1] > 0).all()
        assert np.isfinite(fit.predict(Cohort.of(columns))).all()
        assert isinstance(fit.to_json(), dict)


def test_scores_read_a_linear_model() -> None:
    columns = people(4000, seed=48)
    analysis = Linear(DESIGN, VALUE)
    cohorts = split(columns, 3)
    fit = noised(analysis, cohorts, Budget(8.0, 1e-5), 1)
    found = exactly(Scores(analysis, ()).of(fit), cohorts).to_json()
    assert found["overall"]["r2"]["value"] == pytest.approx(
        1 - np.var(columns["value"] - fit.predict(Cohort.of(columns))) / np.var(columns["value"]), abs=0.01
    )


# what a coordinator may send

extreme = st.sampled_from([0.0, 1e-3, 1.0, -1.0, 4.0, 5e-324, 1e16, -1e200, 1e308]) | st.floats(-3, 3)
least = st.sampled_from([1e-3, 0.06, 1.0, 1e6, 1e200]) | st.floats(1e-3, 3)


def sent(design: Design, centre: float, spread: float, beta: float, reach: float) -> dict[str, list[float]]:
    terms = design.width - 1
    scale = {"centre": [centre] * terms, "spread": [spread] * terms, "radius": [spread * 2]}
    reaches = {"reach": [reach], "square_reach": [reach / 2]}
    return {**scale, "outcome_centre": [centre], "outcome_spread": [spread], "beta": [beta] * design.width, **reaches}


@pytest.mark.parametrize("kind", [CrossSums.kind, Residuals.kind])
@settings(max_examples=40, deadline=None)
@given(centre=extreme, spread=least, beta=extreme, reach=least, seed=st.integers(0, 10**6))
def test_what_a_node_accepts_it_can_compute(
    kind: str, centre: float, spread: float, beta: float, reach: float, seed: int
) -> None:
    design = Design((AGE, ZONE), True, ((AGE, ZONE),), (Knots(AGE, (2.0, 5.0)),))
    try:
        query = Linear(design, BMI).query(kind, sent(design, centre, spread, beta, reach))
    except Breach:
        return
    columns = people(6, seed)
    columns["age"][0], columns["zone"][1], columns["bmi"][2], columns["bmi"][3] = np.nan, np.nan, np.nan, 40.0
    cohort = Cohort.of(columns)
    whole = integer_sum(query, cohort)
    assert [int(value) for value in whole] == integer_sum_slowly(query, cohort)
    for patient in range(6):
        change = whole - integer_sum(query, cohort.keep(np.arange(6) != patient))
        assert sum(int(value) ** 2 for value in change) <= sensitivity(query) ** 2
    assert law_broken(query, cohort, np.random.default_rng(seed), chunks=(1, 4), threads=()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"outcome_spread": [0.0]},
        {"outcome_spread": []},
        {"outcome_centre": [1]},
        {"reach": [0.0]},
        {"square_reach": [0.0]},
        {"beta": [0.0]},
        {"radius": [0.0]},
    ],
)
def test_numbers_that_do_not_fit_are_a_breach(change: dict[str, list[float]]) -> None:
    given = sent(DESIGN, 0.1, 0.4, 0.2, 3.0)
    assert Linear(DESIGN, VALUE).query(Residuals.kind, given).width == DESIGN.width + 1
    with pytest.raises(Breach):
        Linear(DESIGN, VALUE).query(Residuals.kind, {**given, **change})


def test_a_linear_regression_asks_nothing_else() -> None:
    for kind in ("glm.score/2", "glm.residual/1", ""):
        with pytest.raises(Breach, match="asks no query"):
            Linear(DESIGN, VALUE).query(kind, sent(DESIGN, 0.1, 0.4, 0.2, 3.0))


# intervals


@dataclass(frozen=True)
class Coverage:
    full: F64
    sampling_only: F64


def measured(size: int, epsilon: float, replicates: int) -> Coverage:
    full, alone = [], []
    for seed in range(replicates):
        fit = noised(Linear(DESIGN, VALUE), split(people(size, seed), 6), Budget(epsilon, 1e-6), seed)
        sampling, privacy = fit.standard_errors()
        error = np.abs(fit.coefficients() - TRUTH)
        full.append(error < Z95 * np.hypot(sampling, privacy))
        alone.append(error < Z95 * sampling)
    return Coverage(np.mean(full, axis=0), np.mean(alone, axis=0))


def test_intervals_hold_the_truth_and_intervals_without_the_noise_do_not() -> None:
    found = measured(2000, 1.0, replicates=30)
    assert 0.90 <= found.full.mean() <= 0.99
    assert found.sampling_only.mean() < 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("size", "epsilon"), [(2000, 1.0), (2000, 4.0), (20_000, 1.0), (20_000, 4.0)])
def test_coverage_is_nominal(size: int, epsilon: float) -> None:
    """Two hundred replicates: a share of .95 over seven coefficients has a standard error below .01."""
    found = measured(size, epsilon, replicates=200)
    assert 0.93 <= found.full.mean() <= 0.98
    assert found.full.min() >= 0.88
