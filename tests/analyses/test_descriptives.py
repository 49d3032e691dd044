"""Counts, moments, histograms and quantiles: noise off they are numpy's; noise on, their intervals keep their word."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ahh_federated.analyses.counts import NOT_KNOWN, Counts
from ahh_federated.analyses.histograms import Histogram
from ahh_federated.analyses.moments import Moments
from ahh_federated.analyses.quantiles import LEVELS, Quantiles
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Status
from tests.analyses.drivers import exactly, noised, split
from tests.analyses.populations import ACTIVE, AGE, BMI, SEX, ZONE, patients

SILENT = {"partner x": Status.REFUSED, "partner y": Status.BELOW}


@pytest.fixture(scope="module")
def columns() -> dict[str, F64]:
    found = patients(5000, seed=31)
    rng = np.random.default_rng(32)
    return {name: np.where(rng.random(5000) < 0.05, np.nan, values) for name, values in found.items()}


def value(number: dict[str, Any]) -> float:
    assert number["status"] == "released"
    return float(number["value"])


def test_counts_are_those_of_the_pooled_table(columns: dict[str, F64]) -> None:
    table = exactly(Counts((SEX, ZONE)), split(columns, 3), SILENT).to_json()
    cells = {tuple(cell["levels"].values()): cell for cell in table["cells"]}
    assert len(cells) == 3 * 4

    def among(column: Levels, values: F64) -> dict[str, F64]:
        return {**{level: values == k for k, level in enumerate(column.levels)}, NOT_KNOWN: np.isnan(values)}

    for (sex, is_sex), (zone, is_zone) in itertools.product(
        among(SEX, columns["sex"]).items(), among(ZONE, columns["zone"]).items()
    ):
        cell = cells[sex, zone]
        assert value(cell["overall"]) == (is_sex & is_zone).sum()
        parts = [cell["partners"][f"partner {k}"] for k in range(3)]
        assert sum(value(part) for part in parts) == value(cell["overall"])
        assert cell["partners"]["partner x"] == {"value": None, "se": None, "low": None, "high": None, "status": "refused"}
        assert cell["partners"]["partner y"]["status"] == "below threshold"


def test_a_count_of_all_counts_all(columns: dict[str, F64]) -> None:
    table = exactly(Counts(()), split(columns, 3)).to_json()
    assert [value(cell["overall"]) for cell in table["cells"]] == [5000.0]


def test_moments_are_those_of_numpy(columns: dict[str, F64]) -> None:
    table = exactly(Moments((AGE, BMI, ACTIVE)), split(columns, 4), SILENT).to_json()["columns"]
    for column in (AGE, BMI, ACTIVE):
        known = columns[column.name][~np.isnan(columns[column.name])]
        found = table[column.name]
        assert found["unit"] == column.unit
        assert value(found["count"]) == len(known)
        assert value(found["mean"]) == pytest.approx(known.mean(), rel=1e-12)
        assert value(found["sd"]) == pytest.approx(known.std(), rel=1e-9)
        assert found["partners"]["partner x"]["mean"]["status"] == "refused"


def test_moments_of_each_partner_are_its_own(columns: dict[str, F64]) -> None:
    cohorts = split(columns, 3)
    table = exactly(Moments((BMI,)), cohorts).to_json()["columns"]["bmi"]["partners"]
    for name, cohort in cohorts.items():
        assert value(table[name]["mean"]) == pytest.approx(np.nanmean(cohort["bmi"]), rel=1e-12)
        assert value(table[name]["sd"]) == pytest.approx(np.nanstd(cohort["bmi"]), rel=1e-9)


@pytest.mark.parametrize("bins", [2, 7, 20, 64])
def test_histograms_are_those_of_numpy(columns: dict[str, F64], bins: int) -> None:
    table = exactly(Histogram(BMI, bins), split(columns, 3), SILENT).to_json()
    known = columns["bmi"][~np.isnan(columns["bmi"])]
    expected, cuts = np.histogram(known, bins=bins, range=(BMI.low, BMI.high))
    assert [value(number) for number in table["overall"]] == expected.tolist()
    assert table["edges"] == pytest.approx(cuts.tolist())
    assert [number["status"] for number in table["partners"]["partner x"]] == ["refused"] * bins


def test_the_ends_of_the_range_fall_in_the_first_and_last_bin() -> None:
    values = np.array([BMI.low, BMI.high, np.nextafter(BMI.high, 0), -5.0, 99.0, np.nan])
    table = exactly(Histogram(BMI, 10), {"a": Cohort.of({"bmi": values})}).to_json()
    assert [value(number) for number in table["overall"]] == [2.0, *[0.0] * 8, 3.0]


def test_a_histogram_of_levels_counts_levels(columns: dict[str, F64]) -> None:
    table = exactly(Histogram(ZONE, 3), split(columns, 3)).to_json()
    assert table["levels"] == list(ZONE.levels)
    assert [value(number) for number in table["overall"]] == [float((columns["zone"] == k).sum()) for k in range(3)]


PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@pytest.mark.parametrize("column", [AGE, BMI, ACTIVE], ids=lambda column: column.name)
def test_quantiles_are_numpys_within_a_leaf(columns: dict[str, F64], column: Any) -> None:
    table = exactly(Quantiles(column, PROBABILITIES), split(columns, 3), SILENT).to_json()
    known = columns[column.name][~np.isnan(columns[column.name])]
    leaf = (column.high - column.low) / 2**LEVELS
    found = [value(number) for number in table["overall"]]
    assert found == pytest.approx(np.quantile(known, PROBABILITIES).tolist(), abs=1.01 * leaf)
    assert found == sorted(found)
    assert {number["status"] for number in table["partners"]["partner y"]} == {"below threshold"}


def test_too_few_patients_have_neither_moments_nor_quantiles() -> None:
    few = {"a": Cohort.of({"bmi": np.array([20.0])}), "b": Cohort.of({"bmi": np.zeros(0)})}
    moments = noised(Moments((BMI,)), few, Budget(0.5, 1e-6), 1).to_json()["columns"]["bmi"]
    assert moments["mean"]["status"] == moments["sd"]["status"] == "below threshold"
    quantiles = noised(Quantiles(BMI, (0.5,)), few, Budget(0.5, 1e-6), 1).to_json()
    assert quantiles["overall"][0]["status"] == "below threshold"


REPLICATES = 150


def held(numbers: list[dict[str, Any]], exact: list[float]) -> F64:
    return np.array([number["low"] <= truth <= number["high"] for number, truth in zip(numbers, exact, strict=True)])


def test_intervals_of_counts_and_moments_hold_the_exact_value(columns: dict[str, F64]) -> None:
    """Their interval is for the value in these patients: privacy noise alone."""
    cohorts, budget = split(columns, 3), Budget(1.0, 1e-6)
    counts, moments = [], []
    exact_count = [float((columns["sex"] == k).sum()) for k in (0, 1)] + [float(np.isnan(columns["sex"]).sum())]
    exact_moment = [float(np.nanmean(columns["bmi"])), float(np.nanstd(columns["bmi"]))]
    for seed in range(REPLICATES):
        table = noised(Counts((SEX,)), cohorts, budget, seed).to_json()
        counts.append(held([cell["overall"] for cell in table["cells"]], exact_count))
        moment = noised(Moments((BMI,)), cohorts, budget, seed).to_json()["columns"]["bmi"]
        moments.append(held([moment["mean"], moment["sd"]], exact_moment))
    for found in (np.mean(counts), np.mean(moments)):
        assert 0.90 <= found <= 0.985


def test_intervals_of_quantiles_hold_the_exact_value(columns: dict[str, F64]) -> None:
    cohorts, budget, probabilities = split(columns, 2), Budget(1.0, 1e-6), (0.25, 0.5, 0.9)
    analysis = Quantiles(AGE, probabilities)
    exact = [value(number) for number in exactly(analysis, cohorts).to_json()["overall"]]
    found = [held(noised(analysis, cohorts, budget, seed).to_json()["overall"], exact) for seed in range(40)]
    assert np.mean(found) >= 0.90
