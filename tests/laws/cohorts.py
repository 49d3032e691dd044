"""Random cohorts: patients as they are, and columns full of what should never be there."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.columns import Column, Levels
from tests.laws.registry import COLUMNS

HOSTILE = [
    *(float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 1e308, -1e308, 5e-324, -5e-324, 2.0**53, -(2.0**53)),
    *(1e-300, 0.5, -1.0, 1.0 + 2**-52, 1.0 - 2**-53, 4.0, 17.999999999999996, 18.000000000000004, 1e16, 255.0, -1e-3),
]


def plausible(column: Column, size: int, rng: np.random.Generator) -> np.ndarray:
    """Values as a study declares them, one in twelve not known."""
    if isinstance(column, Levels):
        values = rng.integers(0, len(column.levels), size).astype(np.float64)
    else:
        values = rng.uniform(column.low, column.high, size)
        edge = rng.random(size) < 0.1
        values[edge] = rng.choice([column.low, column.high], int(edge.sum()))
    values[rng.random(size) < 1 / 12] = np.nan
    return values


def plausible_cohort(size: int, seed: int, columns: tuple[Column, ...] = COLUMNS) -> Cohort:
    rng = np.random.default_rng(seed)
    return Cohort.of({column.name: plausible(column, size, rng) for column in columns}, size)


@st.composite
def cohorts(draw: st.DrawFn, largest: int = 24) -> Cohort:
    """From no patient to `largest`; each column plausible, or floats of every sort."""
    size = draw(st.integers(0, largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = {}
    for column in COLUMNS:
        values = plausible(column, size, rng)
        if draw(st.booleans()):
            odd = draw(arrays.arrays(np.float64, size, elements=st.sampled_from(HOSTILE) | st.floats(width=64)))
            values = np.where(rng.random(size) < 0.5, odd, values)
        columns[column.name] = values
    return Cohort.of(columns, size)


def without(cohort: Cohort, patient: int) -> Cohort:
    mask = np.ones(len(cohort), dtype=bool)
    mask[patient] = False
    return cohort.keep(mask)
