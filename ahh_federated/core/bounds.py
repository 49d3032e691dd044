"""From real vectors to integers on a public grid, one patient at a time.

The law of this file: **a patient's integers depend on that patient alone.**  Everything here is either element-wise
or a sum of integers that float64 holds exactly, so neither the other patients, nor their order, nor the size of a
chunk, nor the number of threads can change a single bit (tests/laws).

    rows      k = trunc(v * 2**20 / bound),   patient's ||k||**2  <= 2**40
    factors   q = trunc(f * 2**16 / root),    patient's ||q||**2  <= 2**32,   root = sqrt(bound)

A vector that is too long is scaled onto the bound; one that is not finite, or still too long on the very integers
that are summed, becomes zero in silence.
"""

from __future__ import annotations

import numpy as np

from ahh_federated.core.cohorts import F64

ROW_STEPS = 1 << 20  # grid steps in one bound
FACTOR_STEPS = 1 << 16  # grid steps in the root of one bound
SQUARE_STEPS = FACTOR_STEPS**2
WIDEST = 1 << 13  # of a row: the squared length of a row inside the box is then below 2**53


def on_grid(vectors: F64, bound: float, steps: int) -> F64:
    """Integer-valued float64 vectors of length at most `steps`, shape (patients, width), in the place of those given.

    Args:
        vectors: shape (patients, width); overwritten, since a second array of this size would cost more time than it takes
            to compute with.
        bound: the public L2 bound of one vector, in the vectors' unit.
        steps: the same bound in grid steps.
    """
    np.multiply(vectors, steps / bound, out=vectors)
    np.trunc(vectors, out=vectors)
    outside = np.logical_not(_squared_length(vectors) <= steps * steps)  # also true of NaN
    if outside.any():
        vectors[outside] = _brought_inside(vectors[outside], steps)
    return vectors


def _brought_inside(vectors: F64, steps: int) -> F64:
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    largest = np.maximum(np.abs(np.where(finite[:, None], vectors, 0.0)).max(axis=1), float(steps))
    boxed = np.where(finite[:, None], np.trunc(vectors * (steps / largest)[:, None]), 0.0)  # squares stay below 2**53
    length = np.sqrt(np.maximum(_squared_length(boxed), 1.0))
    shorter = np.trunc(boxed * np.minimum(steps / length, 1.0)[:, None])
    shorter[~(_squared_length(shorter) <= steps * steps)] = 0.0
    return np.asarray(shorter)


def _squared_length(integers: F64) -> F64:
    """Shape (patients,).  Exact as long as it is below 2**53; a longer sum of squares can round but never shrinks."""
    return np.asarray(np.einsum("ij,ij->i", integers, integers))
