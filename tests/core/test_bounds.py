"""The grid: integers within the bound, from any floats, one row at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ahh_federated.core.bounds import FACTOR_STEPS, ROW_STEPS, SQUARE_STEPS, on_grid

ODD = [
    *(float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 1.7976931348623157e308),
    *(5e-324, -5e-324, 2.2e-308, 1e154, 1.4e154, 2.0**26, 2.0**53, 1 + 2**-52, 1 - 2**-53, 2**-20, 2**-16),
]
floats = st.sampled_from(ODD) | st.floats(width=64) | st.floats(-2, 2)
rows_of = st.tuples(st.integers(1, 5), st.integers(1, 40)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=floats)
)
bounds = st.sampled_from([1.0, math.sqrt(7), 3.0, 0.25, 1e-3, 1e9]) | st.floats(1e-6, 1e6)
steps_of = st.sampled_from([ROW_STEPS, FACTOR_STEPS])


def gridded(vectors: np.ndarray, bound: float, steps: int) -> np.ndarray:
    with np.errstate(all="ignore"):
        return on_grid(vectors.copy(order="K"), bound, steps)


def squared_lengths(integers: np.ndarray) -> list[int]:
    return [sum(int(value) ** 2 for value in row) for row in integers]


@settings(max_examples=300, deadline=None)
@given(vectors=rows_of, bound=bounds, steps=steps_of)
@example(vectors=np.full((1, 40), 1e308), bound=1e-6, steps=ROW_STEPS)
@example(vectors=np.array([[1.0, 5e-324]]), bound=1.0, steps=ROW_STEPS)
@example(vectors=np.array([[0.6, 0.8]]), bound=1.0, steps=FACTOR_STEPS)
def test_every_row_is_integers_within_the_bound(vectors: np.ndarray, bound: float, steps: int) -> None:
    integers = gridded(vectors, bound, steps)
    assert integers.shape == vectors.shape
    assert (integers == np.trunc(integers)).all()
    assert max(squared_lengths(integers)) <= steps**2
    infinite = ~np.isfinite(vectors).all(axis=1)
    assert not integers[infinite].any()


@settings(max_examples=200, deadline=None)
@given(vectors=rows_of, bound=bounds, steps=steps_of)
def test_neither_layout_nor_company_changes_a_row(vectors: np.ndarray, bound: float, steps: int) -> None:
    integers = gridded(vectors, bound, steps).astype(np.int64)
    assert np.array_equal(gridded(np.asfortranarray(vectors), bound, steps).astype(np.int64), integers)
    strided = np.repeat(np.repeat(vectors, 2, axis=0), 3, axis=1)[::2, ::3]
    with np.errstate(all="ignore"):
        assert np.array_equal(on_grid(strided, bound, steps).astype(np.int64), integers)
    assert np.array_equal(gridded(vectors[::-1], bound, steps).astype(np.int64), integers[::-1])
    alone = [gridded(vectors[i : i + 1].copy(), bound, steps).astype(np.int64)[0] for i in range(len(vectors))]
    assert np.array_equal(np.stack(alone), integers)


@settings(max_examples=200, deadline=None)
@given(vectors=rows_of, steps=steps_of)
def test_a_row_within_the_bound_is_truncated_and_no_more(vectors: np.ndarray, steps: int) -> None:
    length = np.linalg.norm(np.nan_to_num(np.clip(vectors, -1e100, 1e100)), axis=1)
    inside = vectors[np.isfinite(vectors).all(axis=1) & (length < 0.999)]
    assert np.array_equal(gridded(inside, 1.0, steps), np.trunc(inside * steps))


@given(vectors=arrays.arrays(np.float64, (3, 6), elements=st.floats(-1e300, 1e300)), factor=st.floats(1.001, 1e6))
@settings(max_examples=200, deadline=None)
def test_a_row_too_long_is_brought_near_the_bound_not_dropped(vectors: np.ndarray, factor: float) -> None:
    size = np.abs(vectors).max(axis=1, keepdims=True)
    unit = vectors / np.where(size > 0, size, 1.0)
    long = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9) * factor
    integers = gridded(long, 1.0, ROW_STEPS)
    for before, length in zip(long, squared_lengths(integers), strict=True):
        if np.linalg.norm(before) > 1:
            assert math.sqrt(length) >= ROW_STEPS - 4


@pytest.mark.parametrize("factor", [1.0000001, 1.5, 10.0, 1e6, 1e150])
def test_a_row_too_long_is_scaled_and_keeps_its_direction(factor: float) -> None:
    direction = np.array([[0.8, 0.5, -0.3, 0.14142135623730950]])
    integers = gridded(direction * factor, 1.0, ROW_STEPS)
    assert np.abs(integers / ROW_STEPS - direction / np.linalg.norm(direction)).max() < 1e-5


def test_not_known_anywhere_in_a_row_makes_it_zero_and_no_other() -> None:
    vectors = np.full((3, 4), 0.25)
    vectors[1, 2] = np.nan
    assert [length > 0 for length in squared_lengths(gridded(vectors, 1.0, ROW_STEPS))] == [True, False, True]


def test_a_row_at_the_bound_stays_there() -> None:
    assert gridded(np.array([[1.0, 0.0]]), 1.0, ROW_STEPS).tolist() == [[ROW_STEPS, 0]]
    assert gridded(np.array([[0.0, -1.0]]), 1.0, FACTOR_STEPS).tolist() == [[0, -FACTOR_STEPS]]
    halves = gridded(np.full((1, 4), 0.5 * (1 + 2**-52)), 1.0, ROW_STEPS)
    assert squared_lengths(halves)[0] <= ROW_STEPS**2


def test_truncation_is_toward_zero_on_both_sides() -> None:
    step = 1 / ROW_STEPS
    assert gridded(np.array([[2.9 * step, -2.9 * step, 0.99 * step, -0.99 * step]]), 1.0, ROW_STEPS).tolist() == [[2, -2, 0, 0]]


def test_the_integers_take_the_place_of_the_vectors() -> None:
    vectors = np.array([[3.0, np.nan], [0.5, 0.5]])
    assert on_grid(vectors, 1.0, ROW_STEPS) is vectors
    assert vectors.tolist() == [[0, 0], [ROW_STEPS / 2, ROW_STEPS / 2]]


def test_the_bound_of_a_square_is_the_square_of_its_factor() -> None:
    integers = gridded(np.array([[3.0, 4.0]]) / 5, 1.0, FACTOR_STEPS).astype(np.int64)[0]
    assert sum(int(value) ** 2 for value in np.outer(integers, integers).ravel()) <= SQUARE_STEPS**2
