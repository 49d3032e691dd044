"""Additive models: curves on public knots, their bands, and the public choice between curves and straight lines."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from ahh_federated.analyses.additive import Additive, with_curves
from ahh_federated.analyses.choice import ENOUGH, Choice
from ahh_federated.analyses.curves import AdditiveFit
from ahh_federated.analyses.design import GRID, Design
from ahh_federated.analyses.hats import DEFAULT, MOST, Knots
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.analyses.numbers import Z95
from ahh_federated.analyses.scaling import OFF, standardise
from ahh_federated.analyses.terms import LIMIT, Term
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Pooled
from ahh_federated.errors import Misuse
from tests.analyses.drivers import exactly, noised, split

AGE = Numeric("age", 0.0, 18.0, "years")
BMI = Numeric("bmi", 10.0, 40.0, "kg/m2")
SEX = Levels("sex", ("boy", "girl"))
CASE = Levels("case", ("no", "yes"))
VALUE = Numeric("value", -60.0, 60.0, "points")
AGES, BMIS = (2.0, 5.0, 10.0), (16.0, 22.0, 28.0, 34.0)
DESIGN = with_curves(Design((AGE, BMI, SEX)), {"age": AGES})
SHAPES = {
    "age": ([0.0, *AGES, 18.0], [-0.6, 0.4, 1.0, -0.2, -0.5]),
    "bmi": ([10.0, *BMIS, 40.0], [-0.4, -0.3, 0.3, 1.2, 1.6, 1.7]),
}
GIRL = 0.4


def shape(column: str, values: F64) -> F64:
    return np.asarray(np.interp(values, *SHAPES[column]))


def people(size: int, seed: int) -> dict[str, F64]:
    """A hump in age, a bend in BMI; the same linear predictor drives a case and a value (times ten, residuals of 8)."""
    rng = np.random.default_rng(seed)
    age = 18 * rng.beta(1.5, 1.5, size)
    bmi = np.clip(13 + 0.4 * age + rng.gamma(3, 1.8, size), 10, 40)
    sex = rng.integers(0, 2, size).astype(np.float64)
    eta = -1.2 + shape("age", age) + shape("bmi", bmi) + GIRL * sex
    case = (rng.random(size) < expit(eta)).astype(np.float64)
    return {"age": age, "bmi": bmi, "sex": sex, "case": case, "value": np.clip(10 * eta + rng.normal(0, 8, size), -60, 60)}


def hats(values: F64, knots: list[float]) -> list[F64]:
    """One column an interior knot: the function that is 1 there and 0 at every other, by another route."""
    return [np.interp(values, knots, np.eye(len(knots))[k]) for k in range(1, len(knots) - 1)]


def matrix_of(columns: dict[str, F64]) -> F64:
    age, bmi = columns["age"], columns["bmi"]
    curved = [*hats(age, SHAPES["age"][0]), *hats(bmi, SHAPES["bmi"][0])]
    return np.column_stack([np.ones(len(age)), age, bmi, columns["sex"], *curved])


def additive_fit(analysis: Additive, columns: dict[str, F64], budget: Budget, seed: int, partners: int = 3) -> AdditiveFit:
    fit = noised(analysis, split(columns, partners), budget, seed)
    assert isinstance(fit, AdditiveFit)
    return fit


# curves and bands


@pytest.mark.parametrize("outcome", [CASE, VALUE], ids=lambda column: column.name)
def test_the_exact_fit_and_its_bands_are_those_of_an_outside_library(outcome: Column) -> None:
    columns = people(4000, seed=1)
    fit = exactly(Additive(DESIGN, outcome).exactly(), split(columns, 4))
    matrix = matrix_of(columns)
    y = columns[outcome.name]
    reference = sm.Logit(y, matrix).fit(disp=0, tol=1e-12) if outcome is CASE else sm.OLS(y, matrix).fit()
    places = {"age": [1, 4, 5, 6], "bmi": [2, 7, 8, 9, 10]}
    for name, curve in fit.curves().items():
        at = {**{n: np.zeros(len(curve.at)) for n in columns}, name: curve.at}
        g = np.zeros((len(curve.at), matrix.shape[1]))
        g[:, places[name]] = (matrix_of(at) - matrix.mean(axis=0))[:, places[name]]
        assert curve.value == pytest.approx(g @ reference.params, rel=1e-5, abs=1e-5)
        assert curve.se == pytest.approx(np.sqrt(np.einsum("ij,jk,ik->i", g, reference.cov_params(), g)), rel=1e-4)
        assert not curve.privacy.any()
    intercept, girl = fit.to_json()["terms"]
    assert girl["coefficient"] == pytest.approx(reference.params[3], rel=1e-5)
    assert girl["se"] == pytest.approx(reference.bse[3], rel=1e-5)
    g = matrix.mean(axis=0)
    g[3] = 0.0
    assert intercept["coefficient"] == pytest.approx(g @ reference.params, rel=1e-5)
    cohort = Cohort.of(columns)
    expected = reference.predict(matrix)
    assert fit.predict(cohort) == pytest.approx(expected, abs=1e-4)


def test_a_private_curve_finds_the_hump_that_a_line_misses() -> None:
    columns, fresh = people(15_000, seed=2), people(15_000, seed=3)
    fit = additive_fit(Additive(DESIGN, CASE), columns, Budget(2.0, 1e-6), 4)
    line = noised(Logistic(Design((AGE, BMI, SEX)), CASE), split(columns, 3), Budget(2.0, 1e-6), 4)
    curve = fit.curves()["age"]
    height = dict(zip(curve.at, curve.value, strict=True))
    assert height[5.0] - height[0.0] > 0.8
    assert height[5.0] - height[10.0] > 0.8
    cohort = Cohort.of(fresh)
    assert roc_auc_score(fresh["case"], fit.predict(cohort)) > roc_auc_score(fresh["case"], line.predict(cohort)) + 0.02


def true_curve(fit: AdditiveFit, column: Numeric, factor: float = 1.0) -> F64:
    """The truth at the breakpoints, less what it is on average: on the model's own functions, which span it."""
    own = fit._own(column) > 0
    grid = np.linspace(column.low, column.high, 400)
    functions = np.column_stack([np.ones(len(grid)), fit._x(column, grid)[:, own]])
    weights, *_ = np.linalg.lstsq(functions, factor * shape(column.name, grid), rcond=None)
    beta = np.zeros(len(own))
    beta[own] = weights[1:]
    return np.asarray((fit._x(column, fit.curves()[column.name].at) - fit.mean * fit._own(column)) @ beta)


def held(outcome: Column, size: int, epsilon: float, replicates: int) -> tuple[F64, F64]:
    """Shares of bands that hold the truth at the interior knots: with the noise in them, and without."""
    full, alone = [], []
    for seed in range(replicates):
        fit = additive_fit(Additive(DESIGN, outcome), people(size, seed), Budget(epsilon, 1e-6), seed, partners=6)
        for column, knots in ((AGE, AGES), (BMI, BMIS)):
            curve = fit.curves()[column.name]
            inside = np.isin(curve.at, knots)
            error = np.abs(curve.value - true_curve(fit, column, 10.0 if outcome is VALUE else 1.0))[inside]
            full.append(error < Z95 * curve.se[inside])
            alone.append(error < Z95 * curve.sampling[inside])
    return np.concatenate(full), np.concatenate(alone)


def test_bands_hold_the_truth_and_bands_without_the_noise_do_not() -> None:
    full, alone = held(CASE, 6000, 1.0, replicates=12)
    assert full.mean() >= 0.88
    assert alone.mean() < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [CASE, VALUE], ids=lambda column: column.name)
@pytest.mark.parametrize(("size", "epsilon"), [(6000, 1.0), (20_000, 1.0), (20_000, 4.0)])
def test_coverage_of_the_bands_is_nominal(outcome: Column, size: int, epsilon: float) -> None:
    """A hundred replicates of seven knots, of which those of one fit hang together."""
    full, _ = held(outcome, size, epsilon, replicates=100)
    assert 0.93 <= full.mean() <= 0.98


# what is written


def tabled(equation: dict[str, Any], cohort: Cohort) -> F64:
    """Predict from the tables alone."""

    def part(table: dict[str, Any]) -> F64:
        values = cohort[table["column"]]
        if "at" in table:
            found = np.interp(values, table["at"], table["value"])
        else:
            found = np.array(list(table["levels"].values()))[np.nan_to_num(values).astype(int)]
        unknown = np.nan if table["not_known"] is None else table["not_known"]
        return np.where(np.isnan(values), unknown, found)

    value = equation["intercept"] + sum(part(table) for table in equation["columns"])
    for product in equation["products"]:
        one, other = (part(table) for table in product["factors"])
        value = value + product["coefficient"] * np.clip(one * other, -product["limit"], product["limit"])
    return np.asarray(value)


@pytest.mark.parametrize("outcome", [CASE, VALUE], ids=lambda column: column.name)
@pytest.mark.parametrize("indicators", [False, True])
def test_the_tables_predict_what_predict_says(outcome: Column, indicators: bool) -> None:
    columns, rng = people(8000, seed=6), np.random.default_rng(7)
    gone = {name: np.where(rng.random(8000) < 0.08, np.nan, columns[name]) for name in ("age", "bmi", "sex")}
    design = with_curves(Design((AGE, BMI, SEX), indicators, ((AGE, BMI), (BMI, SEX))))
    fit = additive_fit(Additive(design, outcome), {**columns, **gone}, Budget(6.0, 1e-5), 8)
    content = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    cohort = Cohort.of({**columns, **gone})
    expected = fit.linear(cohort)
    assert np.isnan(expected).any() != indicators
    assert tabled(content["equation"], cohort) == pytest.approx(expected, abs=2e-2 if outcome is VALUE else 1e-3, nan_ok=True)
    assert [row["name"] for row in content["interactions"]] == ["age × bmi (per years × kg/m2)", "bmi × sex: girl (per kg/m2)"]
    rebuilt = Additive(design, outcome).predictor(fit.parameters())
    assert np.array_equal(rebuilt.linear(cohort), expected, equal_nan=True)


def test_an_answer_has_a_curve_for_each_measured_column_and_rows_for_the_rest() -> None:
    found = additive_fit(Additive(DESIGN, CASE), people(8000, seed=9), Budget(4.0, 1e-5), 1).to_json()
    assert list(found["curves"]) == ["age", "bmi"]
    assert [(row["column"], row["level"]) for row in found["terms"]] == [(None, None), ("sex", "girl")]
    age = found["curves"]["age"]
    assert age["unit"] == "years"
    assert {0.0, *AGES, 18.0} <= set(age["at"]) and age["at"] == sorted(age["at"])
    for low, value, high, se in zip(age["low"], age["log_odds"], age["high"], age["se"], strict=True):
        assert (low, high) == pytest.approx((value - Z95 * se, value + Z95 * se))
    assert np.hypot(age["se_sampling"], age["se_privacy"]) == pytest.approx(np.array(age["se"]))
    assert (found["family"], found["rounds"], found["interactions"]) == ("binary", 5, [])
    assert found["notes"][0].startswith("Curves: with so many patients, this budget")
    assert "value" in additive_fit(Additive(DESIGN, VALUE), people(8000, seed=9), Budget(4.0, 1e-5), 1).to_json()["curves"]["age"]


def test_a_curve_is_zero_on_average_over_patients() -> None:
    columns = people(20_000, seed=10)
    fit = additive_fit(Additive(DESIGN, CASE), columns, Budget(8.0, 1e-5), 1)
    for name, curve in fit.curves().items():
        assert np.interp(columns[name], curve.at, curve.value).mean() == pytest.approx(0.0, abs=0.03)


def test_the_standard_error_between_breakpoints_is_below_the_straight_line() -> None:
    fit = additive_fit(Additive(DESIGN, CASE), people(6000, seed=11), Budget(2.0, 1e-5), 1)
    curve = fit.curves()["age"]
    between = np.linspace(0, 18, 300)
    _, *parts = fit._contrasts(fit._x(AGE, between) - fit.mean * fit._own(AGE))
    assert (np.hypot(*parts) <= np.interp(between, curve.at, curve.se) + 1e-4).all()


# curves or straight lines


def test_the_choice_is_by_patients_budget_and_partners() -> None:
    """The first release tells all three: its standard error is sqrt(partners) / (mu sqrt(share))."""
    for n, mu, partners in ((2000, 0.34, 1), (2000, 0.34, 6), (20_000, 0.05, 4)):
        complete = Pooled(np.array([0.9 * n, 0.1 * n, 77.0]), np.sqrt(partners) / (mu * np.sqrt(0.02)))
        choice = Choice.of(complete, 0.02)
        assert choice.signal == pytest.approx(n * mu / np.sqrt(partners))
        assert choice.curves == (n * mu / np.sqrt(partners) >= ENOUGH)
    assert Choice.of(Pooled(np.array([5.0, 3.0, 0.0]), 0.0), 0.02).curves
    assert not Choice.of(Pooled(np.array([-50.0, 3.0, 0.0]), 9.0), 0.02).curves


def moments(design: Design, n: float = 900.0) -> Pooled:
    rows = [1.0]
    for term in design.main:
        rows += [0.1, 0.12] if term.measured else [0.3]
    return Pooled(n * np.array(rows), 2.0)


def test_hats_that_are_switched_off_are_zero_for_everybody_and_out_of_the_radius() -> None:
    plain = Design((AGE, BMI, SEX))
    off = standardise(DESIGN, moments(DESIGN), curves=False)
    assert off.scale.radius == standardise(plain, moments(plain)).scale.radius
    assert off.scale.radius < standardise(DESIGN, moments(DESIGN)).scale.radius
    assert list(off.used) == list(range(plain.width))
    extremes = np.array([0.0, 2.0, 5.0, 5.000001, 10.0, 18.0, 99.0, -1e300])
    cohort = Cohort.of({"age": extremes, "bmi": np.linspace(-20, 60, 8), "sex": np.ones(8)})
    x = off.scale.standardised(DESIGN, cohort)
    assert not x[plain.width :].any()
    assert np.array_equal(x[: plain.width], standardise(plain, moments(plain)).scale.standardised(plain, cohort))
    assert 1 / OFF < 1 / GRID


def test_too_few_patients_get_straight_lines_by_the_same_messages() -> None:
    columns = people(900, seed=12)
    few = additive_fit(Additive(DESIGN, CASE), columns, Budget(0.5, 1e-5), 2)
    many = additive_fit(Additive(DESIGN, CASE), people(9000, seed=12), Budget(4.0, 1e-5), 2)
    assert (few.choice.curves, many.choice.curves) == (False, True)
    assert few.rounds == many.rounds == 5
    hats_at = [j + 1 for j, term in enumerate(DESIGN.terms) if term.knot is not None]
    assert not np.array(few.regression.beta)[hats_at].any()
    assert np.array(many.regression.beta)[hats_at].all()
    curve = few.curves()["bmi"]
    assert not set(BMIS) & set(curve.at)
    assert few.to_json()["notes"][0].startswith("Straight lines: ")
    assert len(few.curves()["age"].at) <= 4


def test_the_choice_sees_no_outcome() -> None:
    columns = people(2000, seed=13)
    turned = {**columns, "case": 1 - columns["case"], "age": columns["age"][::-1].copy()}
    one, other = (additive_fit(Additive(DESIGN, CASE), each, Budget(1.0, 1e-5), 3) for each in (columns, turned))
    assert one.choice.signal == pytest.approx(other.choice.signal, rel=1e-9)


def test_both_outcomes_have_the_schedule_of_their_regression_on_the_same_design() -> None:
    for outcome in (CASE, VALUE):
        analysis = Additive(DESIGN, outcome)
        lines = analysis.schedule()
        assert len(lines) == 5
        assert sum(line.share for line in lines) == pytest.approx(1.0)
        lean = 2 if outcome is CASE else 0  # how lopsided age and BMI are, which a regression without a surrogate need not know
        assert lines[1].width == DESIGN.width**2 + 2 * DESIGN.width + lean


def test_an_empty_cohort_and_a_tiny_budget_give_a_sober_model() -> None:
    for size in (0, 200):
        columns = people(size, seed=14)
        for outcome in (CASE, VALUE):
            fit = additive_fit(Additive(DESIGN, outcome), columns, Budget(0.05, 1e-6), 1)
            assert np.isfinite(fit.predict(Cohort.of(people(50, seed=15)))).all()
            json.dumps(fit.to_json(), allow_nan=False)


# knots


def test_hats_are_one_at_their_knot_and_sum_with_the_ends_to_one() -> None:
    knots = Knots(AGE, AGES)
    points = np.array(knots.points)
    assert points[[0, -1]].tolist() == [-1.0, 1.0]
    at = knots.hats(points)
    assert at[:, 1:-1] == pytest.approx(np.eye(3))
    assert not at[:, [0, -1]].any()
    u = np.linspace(-1, 1, 999)
    middle = (u >= points[1]) & (u <= points[3])
    total = knots.hats(u).sum(axis=0)
    assert total[middle] == pytest.approx(1.0)
    assert np.isnan(knots.hats(np.array([np.nan]))).all()
    assert Knots.equal(AGE).interior == pytest.approx((3.6, 7.2, 10.8, 14.4))
    assert len(Knots.equal(AGE).interior) == DEFAULT


def test_no_hat_is_ever_clipped() -> None:
    """A clipped hat would bend where no knot is: the spread's floor prevents it, wherever the patients are."""
    for mean in (-0.99, -0.3, 0.0, 0.9):
        for spread in (0.07, 0.3, 0.7):
            total = np.array([1.0, mean, mean**2 + spread**2, mean, mean**2 + spread**2, 0.5]) * 1e6
            standard = standardise(DESIGN, Pooled(total, 1.0))
            for j, term in enumerate(DESIGN.terms):
                if term.knot is not None:
                    centre, width = standard.scale.centre[j], standard.scale.spread[j]
                    assert max(centre, 1 - centre) / width <= LIMIT * (1 + 1e-9)


def test_the_prior_gram_of_a_curve_is_that_of_patients_drawn_from_the_mixture() -> None:
    rng = np.random.default_rng(16)
    total = np.array([1.0, 0.2, 0.2**2 + 0.3**2, -0.1, 0.1**2 + 0.4**2, 0.4]) * 1e7
    standard = standardise(DESIGN, Pooled(total, 1.0))
    size = 400_000
    drawn = {}
    for column, mean, spread in ((AGE, 0.2, 0.3), (BMI, -0.1, 0.4)):
        u = np.where(rng.random(size) < 0.2, rng.uniform(-1, 1, size), np.clip(rng.normal(mean, spread, size), -1, 1))
        drawn[column.name] = (u + 1) / 2 * (column.high - column.low) + column.low
    drawn["sex"] = (rng.random(size) < 0.4).astype(np.float64)
    x = standard.scale.standardised(DESIGN, Cohort.of(drawn)) / GRID
    gram = x @ x.T / size
    assert standard.gram == pytest.approx(gram, abs=0.02)
    assert standard.scale.radius**2 == pytest.approx(np.trace(gram), rel=0.01)


@pytest.mark.parametrize(
    "interior",
    [
        (),
        (5.0, 5.0),
        (10.0, 5.0),
        (0.0, 5.0),
        (5.0, 18.0),
        (19.0,),
        (5.0, 5.000001),
        (float("nan"),),
        tuple(0.5 * k for k in range(1, 30)),
    ],
)
def test_cut_points_that_do_not_rise_inside_the_range_are_misuse(interior: tuple[float, ...]) -> None:
    with pytest.raises(Misuse, match=f"1 to {MOST} cut-points"):
        Knots(AGE, interior)


def test_knots_belong_to_features_once() -> None:
    with pytest.raises(Misuse, match="no feature"):
        Design((AGE,), knots=(Knots.equal(BMI),))
    with pytest.raises(Misuse, match="twice"):
        Design((AGE,), knots=(Knots.equal(AGE), Knots(AGE, AGES)))
    with pytest.raises(Misuse, match="'sex'"):
        with_curves(Design((AGE, SEX)), {"sex": (1.0,)})
    assert [t.knot for t in with_curves(Design((AGE, SEX))).terms] == [None, None, 0, 1, 2, 3]
    assert Term(AGE, knot=1) in DESIGN.terms
