"""The law where float BLAS would break it: many patients, many columns, several threads; and a checker with teeth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ahh_federated.analyses import glm
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.models import Equation
from ahh_federated.analyses.scores import RiskCounts
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.sums import integer_sum, patient_integers
from tests.laws.own_integers import law_broken

PATIENTS, TERMS = 50_000, 30
DESIGN = Design(tuple(Numeric(f"x{j}", 0.0, 10.0, "units") for j in range(TERMS)))
CASE = Levels("case", ("no", "yes"))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Values in tenths, so that many linear predictors fall on, or next to, a step of some grid."""
    rng = np.random.default_rng(7)
    columns = {f"x{j}": rng.integers(0, 101, PATIENTS) / 10 for j in range(TERMS)}
    columns["case"] = rng.integers(0, 2, PATIENTS).astype(np.float64)
    return Cohort.of(columns)


def large_queries() -> list[Query]:
    scale = Scale((0.1,) * TERMS, (0.3,) * TERMS, 5.0)
    beta = (0.1, *(0.1 * (-1) ** j * (1 + j % 3) for j in range(TERMS)))
    return [
        glm.Gram(DESIGN, CASE, scale),
        glm.ClassSums(DESIGN, CASE, scale),
        glm.Score(DESIGN, CASE, scale, beta),
        glm.Information(DESIGN, CASE, scale, beta),
        RiskCounts(Equation("binary", DESIGN, CASE, scale, beta), tuple(np.arange(-3.0, 3.0, 0.1))),
    ]


@pytest.mark.parametrize("query", large_queries(), ids=lambda query: query.kind)
def test_every_patient_keeps_their_integers_in_a_large_cohort(query: Query, cohort: Cohort) -> None:
    assert law_broken(query, cohort, np.random.default_rng(8), chunks=(64, 1000, 16384), alone=200) is None


@pytest.mark.parametrize("query", large_queries(), ids=lambda query: query.kind)
def test_chunks_and_a_patient_more_or_less_change_nothing_else(query: Query, cohort: Cohort) -> None:
    whole = integer_sum(query, cohort)
    for chunk in (1009, PATIENTS):
        assert np.array_equal(integer_sum(query, cohort, chunk=chunk), whole)
    mask = np.ones(PATIENTS, dtype=bool)
    mask[12_345] = False
    one = patient_integers(query, cohort.part(12_345, 12_346)).astype(np.int64)[0]
    own = one if len(one) == query.width else np.outer(one, one).ravel()
    assert np.array_equal(whole - integer_sum(query, cohort.keep(mask)), own)


@dataclass(frozen=True, slots=True)
class FloatProducts:
    """Naive: a float matrix product over patients, as one would first write it."""

    kind: ClassVar[str] = "naive.products/1"
    width: int = 8
    bound: float = 2.0**20 / 1000

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def rows(self, cohort: Cohort) -> F64:
        x = np.stack([cohort[f"x{j}"] for j in range(TERMS)], axis=1)
        weights = np.array([[0.1 * (1 + (j * k) % 3) for k in range(self.width)] for j in range(TERMS)])
        return x @ weights


@dataclass(frozen=True, slots=True)
class CentredByTheCohort(FloatProducts):
    """Naive: values centred by the mean of whoever is there."""

    kind: ClassVar[str] = "naive.centred/1"

    def rows(self, cohort: Cohort) -> F64:
        x = np.stack([cohort[f"x{j}"] for j in range(self.width)], axis=1)
        return x - x.mean(axis=0)


@dataclass(frozen=True, slots=True)
class NumberedByOrder(FloatProducts):
    """Naive: a contribution that depends on the row's place in the table."""

    kind: ClassVar[str] = "naive.numbered/1"

    def rows(self, cohort: Cohort) -> F64:
        fold = np.arange(len(cohort)) % 2
        return np.repeat(fold[:, None].astype(np.float64), self.width, axis=1)


@pytest.mark.parametrize("naive", [FloatProducts(), CentredByTheCohort(), NumberedByOrder()], ids=lambda query: query.kind)
def test_the_checker_catches_naive_queries(naive: Query, cohort: Cohort) -> None:
    assert law_broken(naive, cohort, np.random.default_rng(9), chunks=(64, 1000)) is not None


def test_the_checker_catches_float_products_by_chunks_alone(cohort: Cohort) -> None:
    """The subtle one: in the same order, only the size of the matrix product differs."""
    naive, some = FloatProducts(), cohort.part(0, 10_000)
    whole = patient_integers(naive, some).astype(np.int64)
    parts = np.concatenate([patient_integers(naive, part).astype(np.int64) for part in some.parts(1)])
    changed = np.flatnonzero((whole != parts).any(axis=1))
    assert len(changed) > 0
    assert np.abs(whole - parts).max() == 1
