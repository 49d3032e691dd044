"""What a study declares about its patients and their columns, before anybody has looked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric
from ahh_federated.core.filters import Filter, parse_filter
from ahh_federated.errors import Misuse
from ahh_federated.study.fields import Table, checked_name

FOLD = "fold"
Reduce = Literal["first", "last", "mean", "max", "forbid"]
REDUCTIONS: tuple[Reduce, ...] = get_args(Reduce)


@dataclass(frozen=True, slots=True)
class Case:
    """A case definition: a condition with a name.  It is a column of levels "no" and "yes" to every ask."""

    name: str
    label: str
    when: Filter

    @property
    def column(self) -> Levels:
        return Levels(self.name, ("no", "yes"))


@dataclass(frozen=True, slots=True)
class Folds:
    """Which patients train and which test: by a keyed hash of (study, patient), the same at every partner."""

    names: tuple[str, ...]
    shares: tuple[float, ...]

    def of(self, study: str, patient: str) -> int:
        """The index of a patient's fold: SHA-256 of the study's id and the patient's key, as a fraction of one."""
        digest = hashlib.sha256(f"ahh-fold/1\0{study}\0{patient}".encode()).digest()
        fraction = int.from_bytes(digest[:8], "big") / 2**64
        reached = 0.0
        for index, share in enumerate(self.shares):
            reached += share
            if fraction < reached:
                return index
        return len(self.shares) - 1


@dataclass(frozen=True, slots=True)
class Patient:
    """The privacy unit: its key, how several rows become one, and the folds.

    `folds` is a hashed split, the name of a declared column, or None.
    """

    key: str
    reduce: Reduce
    order: str | None
    folds: Folds | str | None


def read_columns(table: Table) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for name in table.names():
        checked_name(name, table.at(name))
        if name == FOLD and "levels" not in table.table(name):
            raise Misuse(f"{table.at(name)}: `fold` is the name of the folds: give the column another name")
        columns[name] = _column(name, table.table(name))
    if not columns:
        raise Misuse("columns is empty: declare each column the study uses, with its range and unit or its levels")
    table.done()
    return columns


def _column(name: str, table: Table) -> Column:
    if "levels" in table and "range" in table:
        raise Misuse(f"{table.path} has both a range and levels: keep the one that fits")
    if "levels" in table:
        levels = table.texts("levels")
        if not 2 <= len(levels) <= 200:
            raise Misuse(f"{table.path}.levels names {len(levels)} levels: 2 to 200 are possible")
        missing_levels = table.texts("missing", default=(), example='["unknown"]')
        if set(levels) & {*missing_levels, NOT_KNOWN}:
            raise Misuse(f"{table.path}.levels names what counts as not known: keep that under `missing` alone")
        column: Column = Levels(name, levels, missing_levels)
    else:
        low, high = _range(table)
        outside = table.choice("outside", ("missing", "clip"), default="missing")
        unit = table.text("unit", example='"kg"')
        missing = table.numbers("missing", default=(), example="[999]")
        column = Numeric(name, low, high, unit, missing, "clip" if outside == "clip" else "missing")
    table.done()
    return column


def _range(table: Table) -> tuple[float, float]:
    if "range" not in table:
        instead = table.instead("range") or table.instead("levels")
        reason = "bounds come from the study, never from data"
        raise Misuse(f"{table.path} has neither a range nor levels{instead}: {reason}; add range = [low, high]")
    values = table.numbers("range", example="[0, 120]")
    if len(values) != 2 or not values[0] < values[1] or not math.isfinite(values[1] - values[0]):
        raise Misuse(f"{table.path}.range is not [low, high] with low < high: write for example range = [0, 120]")
    return values[0], values[1]


def read_cases(table: Table, columns: Mapping[str, Column]) -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for name in table.names():
        checked_name(name, table.at(name))
        if name in columns or name == FOLD:
            raise Misuse(f"{table.at(name)} has the name of a column: give the case another name")
        inner = table.table(name)
        when = parse_filter(inner.text("when", example='"bmi >= 25"'), columns, inner.at("when"))
        cases[name] = Case(name, inner.text("label", default=name), when)
        inner.done()
    table.done()
    return cases


def read_patient(table: Table, columns: Mapping[str, Column]) -> Patient:
    key = table.name("key", example='"child_id"')
    reduce = table.choice("reduce", REDUCTIONS, default="forbid")
    order = table.name("order", example='"visit_date"') if reduce in ("first", "last") else None
    if order is None and "order" in table:
        raise Misuse(f'{table.at("order")} has no use with reduce = "{reduce}": drop it, or write reduce = "first" or "last"')
    folds = _folds(table, columns) if "folds" in table else None
    if key in columns:
        raise Misuse(f"{table.at('key')}: {key!r} is the patient's key, not a column to analyse: drop [columns.{key}]")
    if FOLD in columns and folds not in (None, FOLD):
        raise Misuse(f"{table.at('folds')} makes a column `fold`, but [columns.fold] exists: rename that, or use it as the folds")
    table.done()
    return Patient(key, reduce, order, folds)


def _folds(table: Table, columns: Mapping[str, Column]) -> Folds | str:
    value = table.raw("folds")
    if isinstance(value, str):
        if not isinstance(columns.get(value), Levels):
            raise Misuse(f"{table.at('folds')}: {value!r} is not a declared column with levels: declare it or give shares")
        return value
    inner = table.table("folds")
    # sorted, as in the digest: one digest is one split, however the file orders its keys
    names = tuple(checked_name(name, inner.at(name)) for name in sorted(inner.names()))
    shares = tuple(inner.number(name, 0.0, 1.0, example="0.7") for name in names)
    if len(names) < 2 or abs(sum(shares) - 1) > 1e-9:
        raise Misuse(f"{inner.path} is not two or more shares that sum to 1: write {{ train = 0.7, test = 0.3 }}")
    return Folds(names, shares)


def fold_column(patient: Patient, columns: Mapping[str, Column]) -> Levels | None:
    """The column `fold` that every ask may filter on."""
    if isinstance(patient.folds, Folds):
        return Levels(FOLD, patient.folds.names)
    if isinstance(patient.folds, str):
        declared = columns[patient.folds]
        assert isinstance(declared, Levels)
        return Levels(FOLD, declared.levels)
    return None
