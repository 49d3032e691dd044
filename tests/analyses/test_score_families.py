"""Evaluation by subgroup, of levels and of values, against the patients themselves and outside libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_score, r2_score, recall_score, roc_auc_score

from ahh_federated.analyses.accuracy import LevelsTable, ValueTable
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.groups import Groups
from ahh_federated.analyses.linear import Linear
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.models import Family, exponential
from ahh_federated.analyses.scores import LevelCounts, Scores, ScoreTable, ValueSums
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column
from ahh_federated.core.costs import Budget
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Exact, Round, Status
from ahh_federated.errors import Breach
from tests.analyses.drivers import exactly, noised, plain_sum, split
from tests.analyses.populations import AGE, BMI, CASE, SEX, ZONE, patients

GROUPS = Groups((SEX,))


@dataclass(frozen=True, eq=False)
class Stated:
    """A model whose linear predictor is one of the patients' columns, or two of them."""

    family: Family
    outcome: Column
    columns: tuple[str, ...]
    features: ClassVar[tuple[Column, ...]] = (AGE,)

    def parameters(self) -> Parameters:
        return {}

    def linear(self, cohort: Cohort) -> F64:
        each = [cohort[name] for name in self.columns]
        return each[0] if len(each) == 1 else np.stack(each, axis=1)


def asked(query: Query, columns: dict[str, F64]) -> Round:
    cohorts = split(columns, 3)
    replies: dict[str, Any] = {name: Exact(plain_sum(query, cohort)) for name, cohort in cohorts.items()}
    return Round(query, {**replies, "partner x": Status.OFFLINE})


def test_subgroups_are_judged_by_themselves_and_everybody_as_before() -> None:
    columns = patients(6000, seed=5)
    columns["sex"][::50] = np.nan
    fit = exactly(Logistic(Design((AGE, BMI, ZONE)), CASE, EXACT_ROUNDS, exact=True), split(patients(3000, seed=6), 2))
    assert isinstance(fit, Fit)
    analysis = Logistic(Design((AGE, BMI, ZONE)), CASE)
    plain = exactly(Scores(analysis, (0.2,)).of(fit), split(columns, 3))
    table = exactly(Scores(analysis, (0.2,), (SEX, ZONE)).of(fit), split(columns, 3))
    assert isinstance(table, ScoreTable)
    told = table.to_json()
    assert told["overall"] == plain.to_json()["overall"]
    assert [each["group"] for each in told["subgroups"]] == [
        *({"sex": level} for level in ("boy", "girl", "not known")),
        *({"zone": level} for level in ("north", "east", "south", "not known")),
    ]
    risk = fit.predict(Cohort.of(columns))
    for place, name in enumerate(("boy", "girl")):
        mine = columns["sex"] == place
        own = next(each for each in told["subgroups"] if each["group"] == {"sex": name})
        assert own["auroc"]["value"] == pytest.approx(roc_auc_score(columns["case"][mine], risk[mine]), abs=0.02)
    assert told["subgroups"][-1]["status"] == "too few"
    assert told["partners"].keys() == plain.to_json()["partners"].keys()


def test_levels_are_judged_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(3)
    columns = patients(5000, seed=7)
    logits = rng.normal(size=(3, 5000)) + 1.5 * np.stack([columns["zone"] == k for k in range(3)])
    columns |= {f"logit {k}": logits[k] for k in range(3)}
    query = LevelCounts(Stated("levels", ZONE, ("logit 0", "logit 1", "logit 2")), GROUPS)
    told = LevelsTable(ZONE, asked(query, columns), GROUPS).to_json()
    true, chosen = columns["zone"], logits.argmax(axis=0)
    overall = told["overall"]
    assert told["n"]["value"] == 5000
    assert overall["accuracy"]["value"] == pytest.approx(accuracy_score(true, chosen))
    assert overall["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(true, chosen))
    for k, level in enumerate(ZONE.levels):
        assert overall["sensitivity"][level]["value"] == pytest.approx(recall_score(true, chosen, labels=[k], average="macro"))
        assert overall["ppv"][level]["value"] == pytest.approx(precision_score(true, chosen, labels=[k], average="macro"))
        assert told["confusion"][level][ZONE.levels[0]]["value"] == ((true == k) & (chosen == 0)).sum()
    girls = columns["sex"] == 1
    own = next(each for each in told["subgroups"] if each["group"] == {"sex": "girl"})
    assert own["accuracy"]["value"] == pytest.approx(accuracy_score(true[girls], chosen[girls]))
    assert told["partners"]["partner x"] == {"status": "offline"}


def test_a_level_that_is_never_chosen_has_too_few_and_counts_stay_as_noise_left_them() -> None:
    cells = np.array([300.0, 20, -4, 30, 200, -0.5, 40, 5, 0.0])
    query = LevelCounts(Stated("levels", ZONE, ("logit 0", "logit 1", "logit 2")))
    told = LevelsTable(ZONE, Round(query, {"partner": Exact(cells)})).to_json()
    overall, (north, _, south) = told["overall"], ZONE.levels
    assert told["confusion"][north][south]["value"] == -4
    assert overall["ppv"][south] == {"value": None, "se": None, "low": None, "high": None, "status": "too few"}
    assert overall["accuracy"]["status"] == overall["balanced_accuracy"]["status"] == overall["sensitivity"][south]["status"]
    assert overall["accuracy"]["status"] == "released"


@pytest.mark.parametrize("family", ["continuous", "count"])
def test_values_are_judged_in_their_unit(family: Family) -> None:
    rng = np.random.default_rng(8)
    columns = patients(5000, seed=9)
    predicted = 12 + 0.9 * (columns["bmi"] - 12) + rng.normal(0, 2, 5000)
    predicted = np.clip(predicted, 11, 39)
    columns["eta"] = np.log(predicted) if family == "count" else predicted
    told = ValueTable(BMI, family, asked(ValueSums(Stated(family, BMI, ("eta",)), groups=GROUPS), columns), GROUPS).to_json()
    error, overall = predicted - columns["bmi"], told["overall"]
    assert overall["r2"]["value"] == pytest.approx(r2_score(columns["bmi"], predicted), rel=1e-9)
    assert overall["rmse"]["value"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-9)
    assert overall["mean_error"]["value"] == pytest.approx(error.mean(), rel=1e-6)
    assert overall["calibration_slope"]["value"] == pytest.approx(np.polyfit(predicted, columns["bmi"], 1)[0], rel=1e-9)
    assert told["unit"] == "kg/m2"
    assert overall["rmse"]["low"] < overall["rmse"]["value"] < overall["rmse"]["high"]


@pytest.mark.parametrize("seed", range(20))
def test_roots_and_ratios_of_what_drowns_in_noise_are_too_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bmi = rng.normal(25, 1, 500)
    columns = {"bmi": bmi, "eta": bmi + rng.normal(0, 0.5, 500)}
    query = ValueSums(Stated("continuous", BMI, ("eta",)))
    sums = plain_sum(query, Cohort.of(columns))

    def told(noise: float) -> dict[str, dict[str, Any]]:
        reply = Exact(sums + rng.normal(0, noise, len(sums)), noise)
        return dict(ValueTable(BMI, "continuous", Round(query, {"one": reply})).to_json()["overall"])

    loud, quiet = told(20.0), told(0.02)
    for name in ("r2", "rmse", "calibration_slope"):
        assert loud[name]["status"] == "too few" and loud[name]["value"] is None
        assert quiet[name]["status"] == "released" and quiet[name]["low"] >= (0 if name != "r2" else 0.5)
    assert loud["mean_error"]["status"] == "released"


def test_a_prediction_beyond_the_range_counts_as_its_end_and_one_not_known_not_at_all() -> None:
    columns = {"bmi": np.array([20.0, 20.0, np.nan]), "eta": np.array([1e9, np.nan, 20.0]), "sex": np.zeros(3)}
    sums = plain_sum(ValueSums(Stated("continuous", BMI, ("eta",))), Cohort.of(columns))
    y = BMI.scaled(np.array([20.0]))[0]
    assert sums == pytest.approx([1, y, 1, y * y, 1, y])


def test_the_exponential_is_one_patients_own() -> None:
    values = np.random.default_rng(1).normal(0, 5, 1001)
    whole = exponential(values)
    assert whole == pytest.approx(np.exp(values), rel=1e-14)
    for cut in (1, 3, 500):
        assert np.array_equal(exponential(values[cut:]), whole[cut:])
    assert exponential(np.array([1e6]))[0] == pytest.approx(np.exp(30.0))


def line() -> tuple[Linear, LinearFit]:
    analysis = Linear(Design((AGE, SEX)), BMI)
    fit = noised(analysis, split(patients(8000, seed=21), 2), Budget(4.0, 1e-6), 1)
    assert isinstance(fit, LinearFit)
    return analysis, fit


def test_values_are_looked_at_where_they_are() -> None:
    """Four standard deviations around the mean: a wide range costs the evaluation nothing."""
    analysis, fit = line()
    bmi = patients(8000, seed=21)["bmi"]
    seen = Scores(analysis, ()).of(fit).seen()
    assert BMI.low <= seen.low < bmi.mean() - 2.5 * bmi.std()
    assert bmi.mean() + 3.5 * bmi.std() < seen.high < BMI.high
    columns = patients(4000, seed=22)
    exact = exactly(Scores(analysis, ()).of(fit), split(columns, 2)).to_json()["overall"]
    predicted = fit.predict(Cohort.of(columns))
    assert exact["r2"]["value"] == pytest.approx(r2_score(columns["bmi"], predicted), abs=0.01)
    found = noised(Scores(analysis, ()).of(fit), split(columns, 4), Budget(1.0, 1e-6), 5).to_json()["overall"]
    assert found["r2"]["status"] == "released"
    assert found["r2"]["low"] < exact["r2"]["value"] < found["r2"]["high"]
    assert found["r2"]["high"] - found["r2"]["low"] < 0.8


@pytest.mark.parametrize("window", [[0.5, 0.4], [0.0, 0.001], [-2.0, 1.0], [0.0], [0.0, 1.5]])
def test_a_window_that_is_none_is_a_breach(window: list[float]) -> None:
    analysis, fit = line()
    query = next(Scores(analysis, ()).of(fit).program())
    assert np.array_equal(Scores(analysis, ()).query(query.kind, query.parameters()).window, query.window)
    with pytest.raises(Breach):
        Scores(analysis, ()).query(query.kind, {**query.parameters(), "window": window})
