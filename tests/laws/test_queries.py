"""What holds for every query, whatever the patients are like."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.core.bounds import FACTOR_STEPS, ROW_STEPS
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.filters import parse_filter
from ahh_federated.core.queries import Query, Rows, Squares
from ahh_federated.core.sums import integer_sum, integer_sum_slowly, patient_integers, sensitivity
from tests.laws.cohorts import cohorts, plausible_cohort, without
from tests.laws.own_integers import law_broken
from tests.laws.registry import COLUMNS, ENTRIES, Entry, query_classes

every_query = pytest.mark.parametrize("entry", ENTRIES, ids=str)
seeds = st.integers(0, 2**32 - 1)
FILTERS = ["age >= 6", "sex == 'girl' and not bmi > 30", "zone in ['north', 'west'] or case == 'yes'", "age < 0"]


def made(entry: Entry, seed: int) -> Query:
    return entry.make(np.random.default_rng(seed))


def as_ints(total: np.ndarray) -> list[int]:
    assert total.dtype == np.int64
    return [int(value) for value in total]


def moved(one: list[int], other: list[int]) -> int:
    """The squared L2 distance, in exact integers."""
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def test_the_registry_has_every_query_class() -> None:
    assert query_classes() == {type(made(entry, 0)) for entry in ENTRIES}


def test_no_two_query_classes_share_a_kind() -> None:
    kinds = [query.kind for query in query_classes()]
    assert len(kinds) == len(set(kinds))
    assert all(kind.rpartition("/")[2].isdigit() for kind in kinds)


@every_query
def test_a_query_has_one_shape_and_a_sensitivity_fit_for_it(entry: Entry) -> None:
    query = made(entry, 1)
    assert isinstance(query, Rows) != isinstance(query, Squares)
    assert sensitivity(query) == (ROW_STEPS if isinstance(query, Rows) else FACTOR_STEPS**2)
    vectors = query.rows(plausible_cohort(5, 1)) if isinstance(query, Rows) else query.factors(plausible_cohort(5, 1))
    across = query.width if isinstance(query, Rows) else math.isqrt(query.width)
    assert vectors.shape == (5, across)
    assert isinstance(query, Rows) or across**2 == query.width


@every_query
def test_vectors_are_an_array_of_their_own(entry: Entry) -> None:
    """The grid overwrites them."""
    query, cohort = made(entry, 1), plausible_cohort(5, 1)
    one, other = (query.rows(cohort) if isinstance(query, Rows) else query.factors(cohort) for _ in range(2))
    assert one.dtype == np.float64
    assert one.flags.writeable
    assert not np.shares_memory(one, other)
    assert not any(np.shares_memory(one, cohort[name]) for name in cohort.columns)


@every_query
def test_parameters_are_lists_of_finite_floats(entry: Entry) -> None:
    for values in made(entry, 2).parameters().values():
        assert isinstance(values, list)
        assert all(type(value) is float and math.isfinite(value) for value in values)


@every_query
@settings(max_examples=12, deadline=None)
@given(cohort=cohorts(), seed=seeds, data=st.data())
def test_one_patient_moves_the_sum_by_at_most_the_sensitivity(
    entry: Entry, cohort: Cohort, seed: int, data: st.DataObject
) -> None:
    query = made(entry, seed)
    whole = as_ints(integer_sum(query, cohort))
    for patient in data.draw(st.lists(st.integers(0, len(cohort) - 1), max_size=4)) if len(cohort) else []:
        fewer = as_ints(integer_sum(query, without(cohort, patient)))
        assert moved(whole, fewer) <= sensitivity(query) ** 2


@every_query
@settings(max_examples=12, deadline=None)
@given(cohort=cohorts(), seed=seeds)
def test_a_patients_integers_depend_on_that_patient_alone(entry: Entry, cohort: Cohort, seed: int) -> None:
    assert law_broken(made(entry, seed), cohort, np.random.default_rng(seed), chunks=(1, 2, 7), threads=()) is None


@every_query
@settings(max_examples=8, deadline=None)
@given(cohort=cohorts(), seed=seeds, chunk=st.integers(1, 30))
def test_the_fast_sum_is_the_slow_one(entry: Entry, cohort: Cohort, seed: int, chunk: int) -> None:
    query = made(entry, seed)
    slow = integer_sum_slowly(query, cohort)
    assert as_ints(integer_sum(query, cohort)) == slow
    assert as_ints(integer_sum(query, cohort, chunk=chunk)) == slow


@every_query
@settings(max_examples=8, deadline=None)
@given(cohort=cohorts(), seed=seeds, text=st.sampled_from(FILTERS))
def test_a_filter_leaves_patients_out_and_the_sensitivity_as_it_is(entry: Entry, cohort: Cohort, seed: int, text: str) -> None:
    query = made(entry, seed)
    where = parse_filter(text, {column.name: column for column in COLUMNS})
    mask = where.mask(cohort)
    whole = as_ints(integer_sum(query, cohort, where))
    assert whole == as_ints(integer_sum(query, cohort.keep(mask))) == integer_sum_slowly(query, cohort, where)
    assert whole == as_ints(integer_sum(query, cohort, where, chunk=3))
    for patient in range(0, len(cohort), 5):
        distance = moved(whole, as_ints(integer_sum(query, without(cohort, patient), where)))
        assert distance <= (sensitivity(query) ** 2 if mask[patient] else 0)


@every_query
def test_an_empty_cohort_sums_to_zero(entry: Entry) -> None:
    query = made(entry, 3)
    assert as_ints(integer_sum(query, plausible_cohort(0, 0))) == [0] * query.width


@every_query
def test_some_patient_comes_near_the_bound(entry: Entry) -> None:
    """A bound that nobody can reach would buy noise for nothing."""
    cohort = plausible_cohort(2000, 4)
    reached = 0.0
    for seed in range(5):
        query = made(entry, seed)
        integers = patient_integers(query, cohort).astype(np.int64)
        lengths = (integers**2).sum(axis=1)
        longest = math.sqrt(lengths.max()) if isinstance(query, Rows) else float(lengths.max())
        reached = max(reached, longest / sensitivity(query))
    assert 0.5 <= reached <= 1.0


@every_query
def test_the_sum_says_what_the_bound_promises(entry: Entry) -> None:
    """Plausible patients are never clipped: their vectors stay within the bound before the grid."""
    query = made(entry, 5)
    cohort = plausible_cohort(2000, 6)
    with np.errstate(all="ignore"):
        vectors = query.rows(cohort) if isinstance(query, Rows) else query.factors(cohort)
    known = vectors[np.isfinite(vectors).all(axis=1)]
    bound = query.bound if isinstance(query, Rows) else math.sqrt(query.bound)
    assert np.linalg.norm(known, axis=1).max() <= bound * (1 + 1e-9)
