"""Noise off, the federated fit is the pooled one; noise on, it degrades as it should."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Status
from tests.analyses.drivers import exactly, noised, split
from tests.analyses.populations import ACTIVE, AGE, BMI, CASE, FEATURES, SEX, TRUTH, ZONE, matrix_of, patients

DESIGN = Design(FEATURES)


def exact_fit(design: Design, columns: dict[str, F64], partners: int = 4) -> Fit:
    fit = exactly(Logistic(design, CASE, EXACT_ROUNDS, exact=True), split(columns, partners))
    assert isinstance(fit, Fit)
    return fit


def agree(fit: Fit, reference: sm.discrete.discrete_model.BinaryResults) -> None:
    assert fit.coefficients() == pytest.approx(reference.params, rel=1e-6, abs=1e-6)
    assert fit.equation() == pytest.approx(reference.params, rel=1e-6, abs=1e-6)
    sampling, privacy = fit.standard_errors()
    assert sampling == pytest.approx(reference.bse, rel=1e-6, abs=1e-6)
    assert not privacy.any()


@pytest.mark.parametrize(("size", "partners"), [(600, 1), (3000, 4), (20_000, 6)])
def test_the_exact_fit_is_the_pooled_maximum_likelihood(size: int, partners: int) -> None:
    columns = patients(size, seed=size)
    reference = sm.Logit(columns["case"], matrix_of(columns)).fit(disp=0, tol=1e-12)
    agree(exact_fit(DESIGN, columns, partners), reference)


def test_a_second_library_agrees() -> None:
    columns = patients(4000, seed=11)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(matrix_of(columns)[:, 1:], columns["case"])
    fit = exact_fit(DESIGN, columns)
    assert fit.coefficients() == pytest.approx([float(model.intercept_[0]), *model.coef_[0]], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("event_rate", [0.03, 0.5, 0.9])
def test_rare_and_common_outcomes_agree_too(event_rate: float) -> None:
    columns = patients(5000, seed=12)
    score = matrix_of(columns) @ TRUTH
    cut = np.quantile(score + np.random.default_rng(3).logistic(size=5000), 1 - event_rate)
    columns["case"] = (score + np.random.default_rng(3).logistic(size=5000) > cut).astype(np.float64)
    agree(exact_fit(DESIGN, columns), sm.Logit(columns["case"], matrix_of(columns)).fit(disp=0, tol=1e-12, maxiter=100))


def test_strong_effects_agree_too() -> None:
    """Linear predictors from about -15 to 15: far from what the surrogate assumes."""
    columns = patients(5000, seed=13)
    rng = np.random.default_rng(4)
    score = 1.5 * (columns["age"] - 9) + 2.0 * columns["sex"] - 0.4 * (columns["active"] - 5)
    columns["case"] = (score + rng.logistic(size=5000) > 0).astype(np.float64)
    agree(exact_fit(DESIGN, columns), sm.Logit(columns["case"], matrix_of(columns)).fit(disp=0, tol=1e-12, maxiter=100))


def with_gaps(columns: dict[str, F64], seed: int) -> dict[str, F64]:
    rng = np.random.default_rng(seed)
    gone = {name: np.where(rng.random(len(values)) < 0.08, np.nan, values) for name, values in columns.items() if name != "age"}
    return {**columns, **gone}


def test_complete_cases_are_those_an_outside_library_would_use() -> None:
    columns = with_gaps(patients(4000, seed=14), seed=5)
    known = ~np.isnan(np.stack(list(columns.values()))).any(axis=0)
    used = {name: values[known] for name, values in columns.items()}
    fit = exact_fit(DESIGN, columns)
    agree(fit, sm.Logit(used["case"], matrix_of(used)).fit(disp=0, tol=1e-12))
    found = fit.to_json()
    assert found["n"]["value"] == pytest.approx(known.sum())
    assert found["events"]["value"] == pytest.approx(used["case"].sum())
    assert found["complete"]["value"] == pytest.approx(known.mean())


def test_not_known_as_a_level_is_a_column_of_its_own() -> None:
    columns = with_gaps(patients(4000, seed=15), seed=6)
    known = ~np.isnan(columns["case"])
    used = {name: values[known] for name, values in columns.items()}
    bmi, zone = used["bmi"], used["zone"]
    centre = np.nanmean(bmi)
    terms = [np.ones(known.sum()), np.where(np.isnan(bmi), centre, bmi), np.isnan(bmi), zone == 1, zone == 2, np.isnan(zone)]
    matrix = np.stack([np.asarray(term, dtype=np.float64) for term in terms], axis=1)
    reference = sm.Logit(used["case"], matrix).fit(disp=0, tol=1e-12)
    fit = exact_fit(Design((BMI, ZONE), indicators=True), columns)
    others = [1, 3, 4, 5]
    assert fit.coefficients()[others] == pytest.approx(reference.params[others], rel=1e-5, abs=1e-5)
    assert np.asarray(fit.predict(Cohort.of(used))) == pytest.approx(reference.predict(matrix), abs=1e-6)


def test_predictions_are_those_of_the_equation() -> None:
    columns = patients(1000, seed=16)
    for fit in (exact_fit(DESIGN, columns), noised(Logistic(DESIGN, CASE), split(columns, 3), Budget(8.0, 1e-5), 1)):
        cohort = Cohort.of({"age": [9.0], "bmi": [19.0], "active": [4.0], "sex": [1.0], "zone": [2.0]})
        logit = fit.equation() @ [1.0, 9.0, 19.0, 4.0, 1.0, 0.0, 1.0]
        assert fit.predict(cohort)[0] == pytest.approx(1 / (1 + np.exp(-logit)), abs=2e-4)
        assert np.isnan(fit.predict(Cohort.of({**{n: cohort[n] for n in cohort.columns}, "bmi": np.array([np.nan])}))[0])


def test_the_printed_equation_predicts_what_predict_says() -> None:
    """From the JSON alone: clip the value, multiply, add, logistic."""
    columns = patients(2000, seed=17)
    fit = noised(Logistic(DESIGN, CASE), split(columns, 3), Budget(6.0, 1e-5), 2)
    equation = fit.to_json()["equation"]
    cohort = Cohort.of(columns)
    logits = np.full(len(cohort), equation["intercept"])
    for term in equation["terms"]:
        values = cohort[term["column"]]
        if term["level"] is None:
            logits += term["coefficient"] * np.clip(values, *term["clip"])
        else:
            levels = (SEX if term["column"] == "sex" else ZONE).levels
            logits += term["coefficient"] * (values == levels.index(term["level"]))
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(fit.predict(cohort), abs=2e-4)


def test_a_silent_partner_is_left_out_of_every_sum() -> None:
    columns = patients(3000, seed=18)
    cohorts = split(columns, 4)
    silent = {"partner 3": Status.OFFLINE, "partner 9": Status.REFUSED}
    rest = {name: cohort for name, cohort in cohorts.items() if name != "partner 3"}
    analysis = Logistic(DESIGN, CASE, EXACT_ROUNDS, exact=True)
    fit = exactly(analysis, rest, silent)
    assert fit.partners == tuple(sorted(rest))
    assert fit.coefficients() == pytest.approx(exactly(analysis, rest).coefficients(), abs=1e-12)


def test_a_large_budget_comes_near_the_exact_fit() -> None:
    columns = patients(20_000, seed=19)
    reference = sm.Logit(columns["case"], matrix_of(columns)).fit(disp=0)
    fit = noised(Logistic(DESIGN, CASE), split(columns, 3), Budget(8.0, 1e-5), 3)
    assert np.abs(fit.coefficients() - reference.params).max() / reference.bse.max() < 1.0
    assert (np.abs(fit.coefficients() - reference.params) < 1.0 * reference.bse).all()


def test_a_tiny_budget_still_gives_a_sober_model() -> None:
    columns = patients(300, seed=20)
    for seed in range(5):
        fit = noised(Logistic(DESIGN, CASE), split(columns, 3), Budget(0.05, 1e-6), seed)
        risk = fit.predict(Cohort.of(columns))
        assert ((risk > 0) & (risk < 1)).all()
        assert np.isfinite(fit.coefficients()).all()
        assert (fit.standard_errors()[1] > 0).all()


def test_an_empty_cohort_gives_a_model_without_warnings() -> None:
    empty = {
        f"partner {k}": Cohort.of({name: np.zeros(0) for name in ("age", "bmi", "active", "sex", "zone", "case")})
        for k in range(2)
    }
    for seed in range(5):
        fit = noised(Logistic(DESIGN, CASE), empty, Budget(1.0, 1e-6), seed)
        assert np.isfinite(fit.coefficients()).all()
        assert isinstance(fit.to_json(), dict)


def test_the_fit_names_its_terms_in_the_order_of_its_coefficients() -> None:
    fit = exact_fit(Design((AGE, ACTIVE, ZONE)), patients(800, seed=21))
    terms = fit.to_json()["terms"]
    assert [(term["column"], term["level"]) for term in terms] == [
        (None, None),
        ("age", None),
        ("active", None),
        ("zone", "east"),
        ("zone", "south"),
    ]
    assert [term["coefficient"] for term in terms] == pytest.approx(list(fit.coefficients()))
    for term in terms:
        assert term["low"] < term["odds_ratio"] < term["high"]
        assert np.log(term["high"] / term["low"]) / 2 == pytest.approx(1.959963984540054 * term["se"], rel=1e-9)
