"""A partner's table, read and harmonised to a study's declarations: the only place that opens patient data.

All checks here run before anything is asked or paid, and what they find is told to whoever runs the node, never to
the wire.  Messages count rows; they never quote a value.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from ahh_federated.core.cohorts import F64, Bools, Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.sources import SUFFIXES
from ahh_federated.study import Study
from ahh_federated.study.declarations import FOLD, Folds

Frame = pd.DataFrame
_EXACT = 2.0**53  # beyond this, neighbouring whole numbers are one and the same float
_KEY, _ORDER = "\0key", "\0order"
_EMPTY = ("", "na", "nan", "null", "none")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|infinity)", re.ASCII | re.IGNORECASE)
_OTHER_TABLES = (".xlsx", ".xls", ".ods", ".tsv", ".sav", ".dta", ".sas7bdat", ".feather")
_WHOLE = re.compile(r"([+-]?\d+)\.0+", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RAGGED = "rows have more or fewer cells than the header: write every cell, and quote the cells that hold the separator"


def find_tables(folder: Path) -> dict[str, Path]:
    """Partner name to file, for every CSV or Parquet file of a folder.

    Raises:
        Refusal: when there is none, two files have one partner's name, or a table is in a form that is not read.
    """
    if not folder.is_dir():
        raise Refusal(Reason.TABLE, f"{folder} is not a folder: give a folder with one table per partner")
    tables: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), None)
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in _OTHER_TABLES:
            raise Refusal(Reason.TABLE, f"{path.name} is no CSV or Parquet file: save it as one, or take it out of the folder")
        if suffix is None:
            continue
        partner = path.name[: -len(suffix)]
        if partner in tables:
            raise Refusal(Reason.TABLE, f"{path.name} and {tables[partner].name} name one partner: keep one of them")
        tables[partner] = path
    if not tables:
        raise Refusal(Reason.TABLE, f"{folder} holds no table: put one CSV or Parquet file per partner there")
    return tables


def read_table(path: Path, found: list[str] | None = None) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab; UTF-8) with every cell as text, or a Parquet file as it is.

    With a list `found`, each line of a CSV is a row by itself: one that has more or fewer cells than the header is left out and
    counted there, and bytes that are not UTF-8 spoil their own cell only.  So no patient's line decides whether, or how,
    another's is read.

    Raises:
        Refusal: when it cannot be read; without `found`, also when a row of a CSV has more or fewer cells than the header.
    """
    try:
        if path.name.lower().endswith(".parquet"):
            return _read_parquet(path)
        return _read_csv(path) if found is None else _read_lines(path, found)
    except Refusal:
        raise
    except OSError as error:
        why = error.strerror or "it is damaged"
        raise Refusal(Reason.TABLE, f"{path} cannot be read ({why}): check the file and its rights") from None
    except UnicodeDecodeError:
        raise Refusal(Reason.TABLE, f"{path} is not UTF-8: save it as UTF-8") from None
    except Exception:  # pandas and Arrow raise many kinds, and their texts may quote a cell
        raise Refusal(Reason.TABLE, f"{path} is not a table: save it as CSV with a header line, or as Parquet") from None


def frame_of(names: Sequence[str], rows: Sequence[Sequence[object]]) -> pd.DataFrame:
    """Rows as they come, each cell an object: what one cell holds changes no other."""
    columns = [pd.Series([row[place] for row in rows], dtype=object) for place in range(len(names))]
    frame = pd.DataFrame(dict(enumerate(columns)), index=range(len(rows)))
    frame.columns = pd.Index(list(names), dtype=object)
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    """Cells as objects: a whole-number column with a gap would otherwise become floating point for everybody."""
    return pd.read_parquet(path, dtype_backend="pyarrow").astype(object)


def _read_csv(path: Path) -> pd.DataFrame:
    with _opened(path) as lines:
        separator = _separator(next(line for line in lines if line.strip()))
    with _opened(path) as lines:
        rows = (row for row in csv.reader(lines, delimiter=separator, strict=True) if row)
        header = [name.strip() for name in next(rows)]
        ragged = sum(len(row) != len(header) for row in rows)
    if ragged:  # pandas would move or drop cells in silence
        raise Refusal(Reason.TABLE, f"{path.name}: {ragged} {_RAGGED}")
    places = range(len(header))  # pandas would rename a name that comes twice
    frame = pd.read_csv(path, dtype=str, sep=separator, header=0, names=places, keep_default_na=False, index_col=False)
    frame.columns = pd.Index(header)
    return frame


def _read_lines(path: Path, found: list[str]) -> pd.DataFrame:
    with _opened(path, errors="replace") as lines:
        first = next(line for line in lines if line.strip())
        separator = _separator(first)
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator, strict=True))]
        rows = [_cells(line, separator) for line in lines if line.strip("\r\n")]
    whole = [row for row in rows if len(row) == len(header)]
    if len(whole) < len(rows):
        found.append(f"{path.name}: {len(rows) - len(whole)} {_RAGGED}; a line break within a cell makes two rows")
    return frame_of(header, whole)


def _cells(line: str, separator: str) -> list[str]:
    """The cells of one line by itself; none when it is no line of a CSV."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return []


def _separator(header: str) -> str:
    return max(",;\t", key=lambda each: len(next(csv.reader([header], delimiter=each))))


def _opened(path: Path, errors: str = "strict") -> TextIO:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="", errors=errors)
    return path.open(encoding="utf-8-sig", newline="", errors=errors)


def load_cohort(
    frame: pd.DataFrame, study: Study, table: str, found: list[str] | None = None, without: frozenset[str] = frozenset()
) -> Cohort:
    """One row per patient: columns, cases and folds as the study declares them.

    With a list `found`, faults in cells and rows refuse nothing: each kind is counted there, the cells count as not known, and
    rows without a key, like all rows of a patient who may have one row and has several, are left out.  What becomes of a
    patient then depends on that patient's own rows alone: a serving node loads its table so.

    Args:
        frame: the partner's rows, several per patient allowed where the study says how they become one.
        study: the declarations.
        table: how messages name the table.
        found: where faults are told; None to refuse the table at the first.
        without: keys of patients who are left out before anything else.

    Raises:
        Refusal: naming the table, the column, how many rows, and the fix; never a value.  With `found`, only for columns that
            are absent or there twice.
    """
    patient = study.patient
    for fault in absent(list(frame.columns), study):
        raise Refusal(Reason.TABLE, f"{table} {fault}")
    faults = _Faults(table, found)
    keys, stays = _keys(frame[patient.key], patient.key, faults, without)
    rows = frame[stays]
    data = {name: _column(rows[name], column, faults) for name, column in study.columns.items()}
    if patient.order is not None:
        data[_ORDER] = _ordering(rows[patient.order], patient.reduce, faults)
    reduced = _one_row_each(pd.DataFrame({_KEY: keys[stays].to_numpy(), **data}), study, faults)
    columns = {name: reduced[name].to_numpy(np.float64) for name in study.columns}
    cohort = Cohort.of(columns, len(reduced))
    derived = {name: case.when.case(cohort) for name, case in study.cases.items()}
    fold = _fold(study, reduced[_KEY], columns)
    if fold is not None:
        derived[FOLD] = fold
    return Cohort.of({**columns, **derived}, len(reduced))


def absent(names: Sequence[str], study: Study) -> list[str]:
    """What a table with these columns lacks for a study, or has twice; each with its fix."""
    order = [] if study.patient.order is None else [study.patient.order]
    faults = []
    for name in [study.patient.key, *order, *study.columns]:
        times = list(names).count(name)
        if times == 0:
            faults.append(f"lacks the column {name!r}: add it, or correct its name in the table or the study")
        elif times > 1:
            faults.append(f"has {times} columns named {name!r}: keep the right one")
    return faults


@dataclass(frozen=True, slots=True)
class _Faults:
    """What is wrong with the cells of a table: refused at the first, or told."""

    table: str
    found: list[str] | None

    def tell(self, count: int, fault: str) -> None:
        if count and self.found is None:
            raise Refusal(Reason.TABLE, f"{self.table}: {count} {fault}")
        if count and self.found is not None:
            self.found.append(f"{self.table}: {count} {fault}")


def _keys(values: pd.Series[str], name: str, faults: _Faults, without: frozenset[str]) -> tuple[pd.Series[str], Bools]:
    """The key of each row as text, and which rows stay."""
    text = texts(values)
    stays = np.array([key not in without for key in text], dtype=bool)
    empty = blank(text) & stays
    faults.tell(int(empty.sum()), f"rows have no {name!r}: give every row its patient's key")
    long = np.array([_long(value) for value in values.astype(object)], dtype=bool)
    fix = "numbers too long to tell apart: give them as text"
    faults.tell(int((long & stays).sum()), f"rows have keys {name!r} that are {fix}")
    return pd.Series(text, index=values.index, dtype=object), stays & ~empty & ~long


def _long(value: object) -> bool:
    return isinstance(value, float | np.floating) and abs(float(value)) >= _EXACT


def texts(values: pd.Series[str]) -> list[str]:
    """Cells as text, each converted alone: what another patient's cell holds must not change how this one reads."""
    return [_cell(value) for value in values.astype(object)]


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
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    try:
        return str(value)
    except ValueError:  # a whole number of thousands of digits
        return ""


def _column(values: pd.Series[str], column: Column, faults: _Faults) -> F64:
    return _numeric(values, column, faults) if isinstance(column, Numeric) else _codes(values, column, faults)


def _numeric(values: pd.Series[str], column: Numeric, faults: _Faults) -> F64:
    numbers, unreadable = measured(values)
    fix = "write numbers with a decimal point, and leave cells that are not known empty"
    faults.tell(unreadable, f"rows of {column.name!r} are not numbers: {fix}")
    numbers[np.isin(numbers, column.missing) | ~np.isfinite(numbers)] = np.nan
    if column.outside == "missing":
        numbers[(numbers < column.low) | (numbers > column.high)] = np.nan
    return np.clip(numbers, column.low, column.high) + 0.0  # zero has one sign


def measured(values: pd.Series[str]) -> tuple[F64, int]:
    """Cells as numbers, NaN where there is none, and how many of these are not blank; each cell is read alone."""
    if values.dtype.kind in "fiu":
        return values.to_numpy(np.float64, na_value=np.nan).copy(), 0
    text = texts(values)
    numbers = np.array([_number(cell) for cell in text], dtype=np.float64)
    return numbers, int(np.count_nonzero(np.isnan(numbers) & ~blank(text)))


def _number(cell: str) -> float:
    """A decimal number; NaN for anything else, also for what only Python would read."""
    return float(cell) if _NUMBER.fullmatch(cell) else math.nan


def _codes(values: pd.Series[str], column: Levels, faults: _Faults) -> F64:
    codes, strange = coded(values, column)
    fix = "recode them, or declare the code in `levels` or `missing`"
    faults.tell(int(strange.sum()), f"rows of {column.name!r} are none of its levels {list(column.levels)}: {fix}")
    return codes


def coded(values: pd.Series[str], column: Levels) -> tuple[F64, Bools]:
    """The index of each cell's level, NaN where it has none, and which are strange: no level, not blank, not declared as missing.

    A whole number may be written with zeros after its point: pandas writes 1.0 once a column of 0 and 1 has a gap.
    """
    declared = {**dict.fromkeys(column.missing, math.nan), **{level: float(k) for k, level in enumerate(column.levels)}}
    places = {**{_whole(cell): place for cell, place in declared.items()}, **declared}  # what is declared goes first
    text = texts(values)
    codes = np.array([places.get(cell, places.get(_whole(cell), math.inf)) for cell in text], dtype=np.float64)
    strange = np.isinf(codes) & ~blank(text)
    codes[np.isinf(codes)] = np.nan
    return codes, strange


def _whole(cell: str) -> str:
    """Of 1.0 it is 1, of anything else itself."""
    found = _WHOLE.fullmatch(cell)
    return found[1] if found else cell


def blank(text: Sequence[str]) -> Bools:
    """Which cells say that nothing is known."""
    return np.array([cell.lower() in _EMPTY for cell in text], dtype=bool)


def _ordering(values: pd.Series[str], reduce: str, faults: _Faults) -> F64:
    """Numbers as they are, ISO dates as days since 1970.  A row with neither is chosen only where there is no other."""
    numbers, _ = measured(values)
    other = np.isnan(numbers)
    moments = np.array([moment(cell) for cell in texts(values[other])], dtype=np.float64)
    mixed = len(moments) < len(numbers) and not np.isnan(moments).all()
    count = len(moments) if mixed else int(np.count_nonzero(np.isnan(moments)))
    faults.tell(count, "rows of the order column are neither numbers nor ISO dates: mend them")
    numbers[other] = np.where(np.isnan(moments), math.inf if reduce == "first" else -math.inf, moments)
    return numbers


def moment(cell: str) -> float:
    """Days since 1970 of an ISO date or time, in UTC where it names no zone; NaN for anything else."""
    try:
        day = datetime.fromisoformat(f"{cell}-01" if _MONTH.fullmatch(cell) else cell)
    except ValueError:
        return math.nan
    return ((day if day.tzinfo else day.replace(tzinfo=UTC)) - _EPOCH) / timedelta(days=1)


def _one_row_each(rows: pd.DataFrame, study: Study, faults: _Faults) -> pd.DataFrame:
    """Ties are broken by the row's own content, so that the order of rows in the file never matters."""
    reduce, names = study.patient.reduce, sorted(study.columns)
    repeated = int(rows[_KEY].duplicated().sum())
    if not repeated:
        return rows
    if reduce == "forbid":
        fix = "remove them, or let the study say how they become one (patient.reduce)"
        faults.tell(repeated, f"rows repeat a patient: {fix}")
        return rows.drop_duplicates(_KEY, keep=False)
    order = [_ORDER] if _ORDER in rows.columns else []
    rows = rows.sort_values([_KEY, *order, *names], na_position="first", kind="stable")
    if reduce in ("first", "last"):
        return rows.drop_duplicates(_KEY, keep=reduce)
    grouped = rows.groupby(_KEY, sort=True)
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
