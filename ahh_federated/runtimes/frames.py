"""Rows that a model is used on, read as a node reads its patients' columns (node/tables.py): each cell by itself.

Nothing of it is sent anywhere.  What cannot be read counts as not known, and is told by the number of rows, never by a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.errors import Misuse
from ahh_federated.node.tables import Frame, coded, measured, read_table, texts
from ahh_federated.study.declarations import Case


def open_frame(path: Path) -> Frame:
    """A CSV or Parquet file.  Raises Refusal when it cannot be read."""
    return read_table(path)


def read_keys(frame: Frame, name: str) -> list[str]:
    """The column that names the rows, as text.  Raises Misuse when it is absent or there twice."""
    _check_once(frame, name)
    return texts(frame[name])


def read_columns(
    frame: Frame, columns: Mapping[str, Column], cases: Iterable[Case] = (), found: list[str] | None = None
) -> dict[str, F64]:
    """Each column as float64 of shape (rows,): the value in its unit, or the index of its level; NaN where it is not known.

    Args:
        frame: one row a patient; other columns are not looked at.
        columns: what the frame must have, as declared.
        cases: columns of levels "no" and "yes" that are computed from these.
        found: where cells that cannot be read are told, one text a column.

    Raises:
        Misuse: when a column is absent or there twice.
    """
    told: list[str] = [] if found is None else found
    for name in columns:
        _check_once(frame, name)
    read = {name: _read(frame, column, told) for name, column in columns.items()}
    cohort = Cohort.of(read, len(frame))
    return {**read, **{case.name: case.when.case(cohort) for case in cases}}


def _check_once(frame: Frame, name: str) -> None:
    times = list(frame.columns).count(name)
    if times == 0:
        raise Misuse(f"the table lacks the column {name!r}: add it, or correct its name")
    if times > 1:
        raise Misuse(f"the table has {times} columns named {name!r}: keep the right one")


def _read(frame: Frame, column: Column, told: list[str]) -> F64:
    return _measured(frame, column, told) if isinstance(column, Numeric) else _levels(frame, column, told)


def _measured(frame: Frame, column: Numeric, told: list[str]) -> F64:
    numbers, unreadable = measured(frame[column.name])
    if unreadable:
        told.append(f"{unreadable} rows of {column.name!r} are not numbers and count as not known")
    numbers[np.isin(numbers, column.missing) | ~np.isfinite(numbers)] = np.nan
    if column.outside == "missing":
        outside = (numbers < column.low) | (numbers > column.high)
        if outside.any():
            span = f"{column.low:g} to {column.high:g} {column.unit}"
            told.append(f"{int(outside.sum())} rows of {column.name!r} are outside {span} and count as not known")
        numbers[outside] = np.nan
    return np.clip(numbers, column.low, column.high) + 0.0


def _levels(frame: Frame, column: Levels, told: list[str]) -> F64:
    codes, strange = coded(frame[column.name], column)
    if strange.any():
        levels = list(column.levels)
        told.append(f"{int(strange.sum())} rows of {column.name!r} are none of its levels {levels} and count as not known")
    return codes
