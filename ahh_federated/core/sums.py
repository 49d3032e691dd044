"""The exact integer sum of a query over a cohort: fast, and a slow obvious way that must give the same integers.

Fast: chunks of patients, each quantised (core/bounds.py) and summed in float64, where every partial sum is an integer
below 2**53 and therefore exact in any order; chunks are added in int64.  Working memory does not grow with the number
of patients.

The parts of a stack are summed one after the other over the same patients, and multiplied as integers.  One patient moves it
by a vector of squared length at most the sum over parts of (multiplier x sensitivity)**2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.bounds import FACTOR_STEPS, ROW_STEPS, SQUARE_STEPS, WIDEST, on_grid
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.filters import Filter
from ahh_federated.core.queries import Query, Stack, Summed, is_local, is_rows, is_squares, vectors_of

I64 = NDArray[np.int64]
_CELLS = 1 << 20  # float64 values in a chunk, 8 MiB: in short ones numpy's loops cost more than what they compute
_MOST_KEPT = 1 << 14  # patients computed with at a time: what a query works in may be wider than what it gives
_MOST_ROWS = 1 << 20  # 2**20 patients of 2**32 stay below 2**53
_MOST_STEPS = int(2**32.9)  # of a part of a stack: 2**30 patients and the largest noise stay below 2**63
LOCAL_STEP = 2.0**-20  # of a local program's result

Chosen = Callable[[int], NDArray[np.bool_]]


def sensitivity(query: Query) -> int:
    """The exact L2 sensitivity of the integer sum to one patient, in grid steps; that of a stack is rounded up.

    Raises:
        ValueError: when a multiplier is so large that a sum over 2**30 patients might not fit into 64 bits.
    """
    if not isinstance(query, Stack):
        return SQUARE_STEPS if is_squares(query) else ROW_STEPS
    parts = [multiplier * sensitivity(part) for part, multiplier in zip(query.parts, query.multipliers, strict=True)]
    if max(parts) > _MOST_STEPS:
        raise ValueError(f"{query.kind}: a multiplier times the part's sensitivity passes 2**32.9, got {parts}")
    return math.isqrt(sum(each * each for each in parts) - 1) + 1


def step(query: Query) -> float:
    """The value of one grid step, in the query's unit; a stack's cells have none until it is taken apart."""
    if isinstance(query, Stack):
        return 1.0
    return LOCAL_STEP if is_local(query) else query.bound / sensitivity(query)


def parts_of(query: Summed | Stack) -> tuple[Summed, ...]:
    """The parts of a stack; anything else is its own only part."""
    return query.parts if isinstance(query, Stack) else (query,)


def integer_sum(
    query: Summed | Stack,
    cohort: Cohort,
    where: Filter | None = None,
    chunk: int | None = None,
    chosen: Chosen | None = None,
    thinning: int = 1,
) -> I64:
    """Sum of the patients' integers, shape (width,); of those that `chosen`, given how many come next, says are in.

    About one patient in `thinning` is expected to be: chunks are so many times longer.
    """
    total = np.zeros(query.width, dtype=np.int64)
    across = max(_across(part) for part in parts_of(query))
    rows = min((chunk or min(max(64, _CELLS // across), _MOST_KEPT)) * thinning, _MOST_ROWS)
    for part in cohort.parts(rows):
        kept = part if chosen is None else part.keep(chosen(len(part)))
        kept = kept if where is None else kept.keep(where.mask(kept))
        if len(kept):
            total += _sum_part(query, kept)
    return total


def _across(query: Summed) -> int:
    return query.width if is_rows(query) else round(query.width**0.5)


def _sum_part(query: Summed | Stack, part: Cohort) -> I64:
    with np.errstate(all="ignore"):  # a warning would tell of a patient; what is not finite becomes zero
        if not isinstance(query, Stack):
            return _sum(query, vectors_of(query, part), part)
        parts = zip(query.parts, query.multipliers, query.vectors(part), strict=True)
        return np.concatenate([multiplier * _sum(each, vectors, part) for each, multiplier, vectors in parts])


def _sum(query: Summed, vectors: F64, part: Cohort) -> I64:
    integers = _integers(query, vectors, part)
    total = integers.sum(axis=0) if is_rows(query) else (integers.T @ integers).ravel()
    return total.astype(np.int64)


def patient_integers(query: Summed, part: Cohort) -> F64:
    """Each patient's integers before they are summed, shape (patients, width) or (patients, root)."""
    with np.errstate(all="ignore"):
        return _integers(query, vectors_of(query, part), part)


def _integers(query: Summed, vectors: F64, part: Cohort) -> F64:
    if not is_rows(query):
        return on_grid(_shaped(query, vectors, part), query.bound**0.5, FACTOR_STEPS)
    if query.width > WIDEST:
        raise ValueError(f"{query.kind} has {query.width} numbers, more than the {WIDEST} a row can have")
    return on_grid(_shaped(query, vectors, part), query.bound, ROW_STEPS)


def _shaped(query: Summed, vectors: F64, part: Cohort) -> F64:
    """Numpy would stretch a vector that is too short over all that was paid for."""
    if vectors.shape != (len(part), _across(query)):
        raise ValueError(f"{query.kind} says it is {_across(query)} numbers a patient, and gives another shape")
    return vectors


def integer_sum_slowly(query: Summed | Stack, cohort: Cohort, where: Filter | None = None) -> list[int]:
    """The same sum, one patient at a time in Python's integers.  The reference for tests."""
    if isinstance(query, Stack):
        parts = zip(query.parts, query.multipliers, strict=True)
        return [multiplier * cell for each, multiplier in parts for cell in integer_sum_slowly(each, cohort, where)]
    kept = cohort if where is None else cohort.keep(where.mask(cohort))
    total = [0] * query.width
    for patient in kept.parts(1):
        integers = [int(value) for value in patient_integers(query, patient)[0]]
        if not is_rows(query):
            integers = [a * b for a in integers for b in integers]
        total = [a + b for a, b in zip(total, integers, strict=True)]
    return total
