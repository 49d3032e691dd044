"""A partner's table, read and harmonised to a study's declarations: the only place that opens patient data.

All checks here run before anything is asked or paid, and what they find is told to whoever runs the node, never to
the wire.  Messages count rows; they never quote a value.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.errors import Reason, Refusal
from ahh_federated.study import Study
from ahh_federated.study.declarations import FOLD, Folds

Frame = pd.DataFrame
_EXACT = 2.0**53  # beyond this, neighbouring whole numbers are one and the same float
SUFFIXES = (".csv", ".csv.gz", ".parquet")


def find_tables(folder: Path) -> dict[str, Path]:
    """Partner name to file, for every CSV or Parquet file of a folder.

    Raises:
        Refusal: when there is none, or two files have one partner's name.
    """
    if not folder.is_dir():
        raise Refusal(Reason.TABLE, f"{folder} is not a folder: give a folder with one table per partner")
    tables: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), None)
        if suffix is None or path.name.startswith("."):
            continue
        partner = path.name[: -len(suffix)]
        if partner in tables:
            raise Refusal(Reason.TABLE, f"{path.name} and {tables[partner].name} name one partner: keep one of them")
        tables[partner] = path
    if not tables:
        raise Refusal(Reason.TABLE, f"{folder} holds no table: put one CSV or Parquet file per partner there")
    return tables


def read_table(path: Path) -> pd.DataFrame:
    """A CSV (comma or semicolon, UTF-8) with every cell as text, or a Parquet file as it is.

    Raises:
        Refusal: when it cannot be read, or a row of a CSV has more or fewer cells than the header.
    """
    try:
        return _read_parquet(path) if path.name.lower().endswith(".parquet") else _read_csv(path)
    except Refusal:
        raise
    except OSError as error:
        why = error.strerror or "it is damaged"
        raise Refusal(Reason.TABLE, f"{path.name} cannot be read ({why}): check the file and its rights") from None
    except UnicodeDecodeError:
        raise Refusal(Reason.TABLE, f"{path.name} is not UTF-8: save it as UTF-8") from None
    except Exception:  # pandas and Arrow raise many kinds, and their texts may quote a cell
        raise Refusal(Reason.TABLE, f"{path.name} is not a table: save it as CSV with a header line, or as Parquet") from None


def _read_parquet(path: Path) -> pd.DataFrame:
    """Cells as objects: a whole-number column with a gap would otherwise become floating point for everybody."""
    return pd.read_parquet(path, dtype_backend="pyarrow").astype(object)


def _read_csv(path: Path) -> pd.DataFrame:
    with _opened(path) as lines:
        first = next(line for line in lines if line.strip())
    separator = max(",;", key=lambda each: len(next(csv.reader([first], delimiter=each))))
    with _opened(path) as lines:
        rows = (row for row in csv.reader(lines, delimiter=separator, strict=True) if row)
        header = [name.strip() for name in next(rows)]
        ragged = sum(len(row) != len(header) for row in rows)
    if ragged:  # pandas would move or drop cells in silence
        fix = "write every cell, and quote the cells that hold the separator"
        raise Refusal(Reason.TABLE, f"{path.name}: {ragged} rows have more or fewer cells than the header: {fix}")
    places = range(len(header))  # pandas would rename a name that comes twice
    frame = pd.read_csv(path, dtype=str, sep=separator, header=0, names=places, keep_default_na=False, index_col=False)
    frame.columns = pd.Index(header)
    return frame


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def load_cohort(frame: pd.DataFrame, study: Study, table: str) -> Cohort:
    """One row per patient: columns, cases and folds as the study declares them.

    Args:
        frame: the partner's rows, several per patient allowed where the study says how they become one.
        study: the declarations.
        table: how messages name the table.

    Raises:
        Refusal: naming the table, the column, how many rows, and the fix; never a value.
    """
    patient = study.patient
    order = [] if patient.order is None else [patient.order]
    for name in [patient.key, *order, *study.columns]:
        times = list(frame.columns).count(name)
        if times == 0:
            raise Refusal(
                Reason.TABLE, f"{table} lacks the column {name!r}: add it, or correct its name in the table or the study"
            )
        if times > 1:
            raise Refusal(Reason.TABLE, f"{table} has {times} columns named {name!r}: keep the right one")
    keys = _keys(frame[patient.key], table, patient.key)
    data = {name: _column(frame[name], column, table) for name, column in study.columns.items()}
    if patient.order is not None:
        data["\0order"] = _ordering(frame[patient.order], table)
    reduced = _one_row_each(pd.DataFrame({"\0key": keys, **data}), study, table)
    columns = {name: reduced[name].to_numpy(np.float64) for name in study.columns}
    cohort = Cohort.of(columns, len(reduced))
    derived = {name: case.when.case(cohort) for name, case in study.cases.items()}
    fold = _fold(study, reduced["\0key"], columns)
    if fold is not None:
        derived[FOLD] = fold
    return Cohort.of({**columns, **derived}, len(reduced))


def _keys(values: pd.Series[str], table: str, name: str) -> pd.Series[str]:
    empty = _blank(values)
    if empty.any():
        raise Refusal(Reason.TABLE, f"{table}: {int(empty.sum())} rows have no {name!r}: give every row its patient's key")
    text = _text(values)
    if values.dtype.kind == "f" and bool((np.abs(values.to_numpy(np.float64)) >= _EXACT).any()):
        raise Refusal(Reason.TABLE, f"{table}: the keys {name!r} are numbers too long to tell apart: give them as text")
    return text


def _text(values: pd.Series[str]) -> pd.Series[str]:
    """Cells as text, each converted alone: what another patient's cell holds must not change how this one reads."""
    return pd.Series([_cell(value) for value in values.astype(object)], index=values.index, dtype=object)


def _cell(value: object) -> str:
    """A whole number has no decimal point, however it is held; what is absent is empty."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, float | np.floating) and np.isnan(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < _EXACT:
        return str(int(value))
    return str(value)


def _column(values: pd.Series[str], column: Column, table: str) -> F64:
    return _numeric(values, column, table) if isinstance(column, Numeric) else _codes(values, column, table)


def _numeric(values: pd.Series[str], column: Numeric, table: str) -> F64:
    numbers = _numbers(values)
    unreadable = int(np.count_nonzero(np.isnan(numbers) & ~_blank(values)))
    if unreadable:
        raise Refusal(
            Reason.TABLE,
            f"{table}: {unreadable} rows of {column.name!r} are not numbers: write numbers with a decimal point, and leave "
            "cells that are not known empty",
        )
    numbers[np.isin(numbers, column.missing) | ~np.isfinite(numbers)] = np.nan
    if column.outside == "missing":
        numbers[(numbers < column.low) | (numbers > column.high)] = np.nan
    return np.clip(numbers, column.low, column.high)


def _codes(values: pd.Series[str], column: Levels, table: str) -> F64:
    text = _text(values)
    codes = np.array(text.map({level: float(index) for index, level in enumerate(column.levels)}), dtype=np.float64)
    unknown = np.isnan(codes) & ~(_blank(values) | text.isin(column.missing).to_numpy())
    if unknown.any():
        raise Refusal(
            Reason.TABLE,
            f"{table}: {int(unknown.sum())} rows of {column.name!r} are none of its levels {list(column.levels)}: recode them, "
            "or declare the code in `levels` or `missing`",
        )
    return codes


def _blank(values: pd.Series[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    text = values.astype(str).str.strip().str.lower()
    return np.asarray(values.isna() | text.isin(["", "na", "nan", "null", "none"]), dtype=bool)


def _numbers(values: pd.Series[str]) -> F64:
    if values.dtype.kind in "bcmM":  # pandas would read a date as nanoseconds, and yes or no as 1 or 0
        return np.full(len(values), np.nan)
    cells = _text(values) if values.dtype.kind == "O" else values
    return np.array(pd.to_numeric(cells, errors="coerce"), dtype=np.float64)


def _ordering(values: pd.Series[str], table: str) -> F64:
    """Numbers as they are, ISO dates as days."""
    numbers = _numbers(values)
    if np.isnan(numbers).all() and len(numbers) and values.dtype.kind in "OM":
        texts = _text(values) if values.dtype.kind == "O" else values
        dates = pd.to_datetime(texts, errors="coerce", format="ISO8601", utc=True)
        numbers = np.array(dates.astype("int64"), dtype=np.float64)
        numbers[dates.isna().to_numpy()] = np.nan
    if np.isnan(numbers).any():
        count = int(np.count_nonzero(np.isnan(numbers)))
        raise Refusal(Reason.TABLE, f"{table}: {count} rows of the order column are neither numbers nor ISO dates: mend them")
    return numbers


def _one_row_each(rows: pd.DataFrame, study: Study, table: str) -> pd.DataFrame:
    """Ties are broken by the row's own content, so that the order of rows in the file never matters."""
    reduce, names = study.patient.reduce, sorted(study.columns)
    repeated = int(rows["\0key"].duplicated().sum())
    if not repeated:
        return rows
    if reduce == "forbid":
        raise Refusal(
            Reason.TABLE,
            f"{table}: {repeated} rows repeat a patient: remove them, or let the study say how they become one (patient.reduce)",
        )
    by = [name for name in rows.columns if name != "\0key"]
    rows = rows.sort_values(["\0key", *(["\0order"] if "\0order" in by else []), *names], na_position="first", kind="stable")
    if reduce in ("first", "last"):
        return rows.drop_duplicates("\0key", keep=reduce)
    grouped = rows.groupby("\0key", sort=True)
    means = grouped[names].mean() if reduce == "mean" else grouped[names].max()
    levels = [name for name in names if isinstance(study.columns[name], Levels)]
    if levels:
        means[levels] = grouped[levels].max()
    return means.reset_index()


def _fold(study: Study, keys: pd.Series[str], columns: dict[str, F64]) -> F64 | None:
    folds = study.patient.folds
    if isinstance(folds, Folds):
        return np.array([folds.of(study.id, key) for key in keys], dtype=np.float64)
    return None if folds is None else columns[folds]
