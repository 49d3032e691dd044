"""One-hot rows: each patient in at most one cell."""

from __future__ import annotations

import numpy as np

from ahh_federated.core.cohorts import F64


def one_hot(cells: F64, width: int) -> F64:
    """Rows of shape (patients, width) with a one in the patient's cell; NaN, or a cell outside, gives a zero row.

    The memory is laid out cell by cell, which is how the kernel sums it fastest.
    """
    rows = np.zeros((width, len(cells)))
    inside = (cells >= 0) & (cells < width)  # false for NaN
    patients = np.flatnonzero(inside)
    rows[cells[patients].astype(np.int64), patients] = 1.0
    return rows.T
