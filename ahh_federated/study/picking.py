"""Columns that an ask names, found among those the study declares."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.errors import Misuse
from ahh_federated.study.fields import Table

Columns = Mapping[str, Column]


def known_columns(table: Table, key: str, names: tuple[str, ...], columns: Columns) -> list[Column]:
    for name in names:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            fix = f"add [columns.{name}] or [cases.{name}], or correct the name" + (f" (did you mean {near[0]}?)" if near else "")
            raise Misuse(f"{table.at(key)}: {name!r} is not declared: {fix}")
    return [columns[name] for name in names]


def levels_columns(table: Table, key: str, names: tuple[str, ...], columns: Columns) -> tuple[Levels, ...]:
    found = known_columns(table, key, names, columns)
    for column in found:
        if not isinstance(column, Levels):
            raise Misuse(f"{table.at(key)}: {column.name!r} is measured, not a column of levels: define a case for it")
    return tuple(column for column in found if isinstance(column, Levels))


def measured_columns(table: Table, key: str, names: tuple[str, ...], columns: Columns) -> tuple[Numeric, ...]:
    found = known_columns(table, key, names, columns)
    for column in found:
        if not isinstance(column, Numeric):
            raise Misuse(f"{table.at(key)}: {column.name!r} has levels and no unit: use `count` or `histogram` for it")
    return tuple(column for column in found if isinstance(column, Numeric))
