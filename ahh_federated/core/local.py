"""A local program, step by step: noised sums in, one result out.

The state is public at the start and made of noised sums afterwards, all of them paid for.  So whatever a program does with it is
free post-processing, failing included.  Patients are looked at in one place, the rows of a query; the gate tries each query on
made-up patients first, so that a number of the state cannot make it fail on real ones.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.cohorts import F64
from ahh_federated.core.queries import Local, Rows, is_rows
from ahh_federated.core.releases import Pooled
from ahh_federated.core.sums import LOCAL_STEP

LARGEST = 1 << 20  # of a result: 2**40 grid steps


def walk(program: Local, steps: int) -> Generator[Rows, Pooled, F64]:
    """Yields the query of each step, is sent its sum in the query's unit and what noise it has, and returns the result,
    shape (width,).

    Raises:
        ValueError: when the program gives something else than it says; and whatever the program raises.
    """
    state = _finite(program.start())
    for _ in range(steps):
        query = program.query(state)
        if not is_rows(query) or (query.width, query.bound) != (program.width, program.bound):
            raise ValueError(f"{program.kind} asks for another sum than it says")
        total = yield query
        with np.errstate(all="ignore"):  # of noised sums, that is; what is not finite ends the program
            state = _finite(program.advance(state, total.values, total.stderr))
    result = np.asarray(program.result(state), dtype=np.float64)
    if result.shape != (program.width,):
        raise ValueError(f"{program.kind} gives another result than it says")
    return result


def on_public_grid(result: F64) -> NDArray[np.int64]:
    """The nearest multiples of LOCAL_STEP; zero for what is not finite or too large."""
    inside = np.where(np.abs(result) <= LARGEST, result, 0.0)
    return np.asarray(np.rint(inside / LOCAL_STEP)).astype(np.int64)


def _finite(state: F64) -> F64:
    if not np.all(np.isfinite(state)):
        raise ValueError("the state is not finite")
    return state
