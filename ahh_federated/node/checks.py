"""What a partner should look at in its table before a study: absent columns, wrong units, impossible values, unknown codes.

The counts are exact and unpaid: they are for whoever keeps the table, and never leave the node.  No message quotes a value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.node.policy import Policy
from ahh_federated.node.tables import Frame, absent, blank, coded, measured, moment, texts
from ahh_federated.study import Study

_FACTORS = (1000.0, 0.001, 100.0, 0.01, 10.0, 0.1)
_UNITS = {
    ("kg", 1000.0): "g",
    ("g", 0.001): "kg",
    ("m", 100.0): "cm",
    ("m", 1000.0): "mm",
    ("cm", 10.0): "mm",
    ("cm", 0.01): "m",
    ("mm", 0.1): "cm",
    ("mm", 0.001): "m",
    ("l", 1000.0): "ml",
    ("ml", 0.001): "l",
    ("g/l", 0.1): "g/dl",
    ("g/dl", 10.0): "g/l",
    ("%", 0.01): "a fraction of one",
}
_MOST = 0.5  # of the known values: beyond it a column does not hold what the study means
_FITTING = 0.9  # of the values outside a range: beyond it another unit explains them


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend.  `stops`: until then the study is refused here, or a whole column of it is lost."""

    text: str
    stops: bool = False


def check(frame: Frame, study: Study, policy: Policy, without: frozenset[str] = frozenset()) -> list[Finding]:
    """Hold a table against a study's columns and the node's own rules; empty when nothing has to be mended.

    Args:
        frame: the table as it was read.
        study: whose declarations it should meet.
        policy: the node's rules.
        without: keys of patients who are left out, and not looked at.
    """
    findings = [Finding(f"the policy forbids this study: {each}", stops=True) for each in policy.objections(study)]
    names = list(frame.columns)
    findings += [Finding(f"the table {each}", stops=True) for each in absent(names, study)]
    if names.count(study.patient.key) == 1:
        keys = texts(frame[study.patient.key])
        frame = frame[np.array([key not in without for key in keys], dtype=bool)]
        findings += _patients([key for key in keys if key not in without], study)
    if study.patient.order is not None and names.count(study.patient.order) == 1:
        findings += _order(frame, study.patient.order)
    for name, column in study.columns.items():
        if names.count(name) == 1 and len(frame):
            findings += _column(frame, column)
    return findings


def among(frame: Frame, column: str, keys: frozenset[str]) -> int | None:
    """How many of these keys are in a column of the table; None when it has no such column, or several."""
    return len(keys & set(texts(frame[column]))) if list(frame.columns).count(column) == 1 else None


def _patients(keys: list[str], study: Study) -> list[Finding]:
    if not keys:
        return [Finding("the table has no rows: look at the export or the query")]
    unknown = blank(keys)
    findings = []
    if unknown.any():
        fix = "they are left out; give every row its patient's key"
        findings.append(Finding(f"{int(unknown.sum())} rows have no {study.patient.key!r}: {fix}", stops=bool(unknown.all())))
    rows = Counter(key for key, absent_one in zip(keys, unknown, strict=True) if not absent_one)
    several = sum(count > 1 for count in rows.values())
    if several and study.patient.reduce == "forbid":
        fix = "they are left out; keep one row each, or ask for a study that says how they become one (patient.reduce)"
        findings.append(Finding(f"{several} patients have several rows: {fix}", stops=several > _MOST * len(rows)))
    return findings


def _order(frame: Frame, name: str) -> list[Finding]:
    numbers, _ = measured(frame[name])
    other = [moment(cell) for cell in texts(frame[name][np.isnan(numbers)])]
    neither, dates = int(np.isnan(other).sum()), int((~np.isnan(other)).sum())
    findings = []
    if neither:
        fix = "they are chosen only where a patient has no other; write numbers, or dates like 2026-12-31"
        findings.append(Finding(f"{name!r}: {neither} rows have neither a number nor an ISO date: {fix}"))
    if dates and len(other) < len(numbers):
        findings.append(Finding(f"{name!r} holds both numbers and dates, which have no common order: keep to one of them"))
    return findings


def _column(frame: Frame, column: Column) -> list[Finding]:
    if isinstance(column, Levels):
        return _levels(frame, column)
    text = texts(frame[column.name])
    numbers, _ = measured(frame[column.name])
    words = [cell for cell, number, gap in zip(text, numbers, blank(text), strict=True) if np.isnan(number) and not gap]
    findings = _unreadable(words, len(text), column)
    known = numbers[np.isfinite(numbers) & ~np.isin(numbers, column.missing)]
    findings += _range(known, column)
    if not len(known) and not findings:
        findings.append(Finding(f"{column.name!r}: no row has a known value: look at the export, or leave it so"))
    return findings


def _levels(frame: Frame, column: Levels) -> list[Finding]:
    values, (codes, unknown) = frame[column.name], coded(frame[column.name], column)
    strange, known = texts(values[unknown]), int(np.count_nonzero(~np.isnan(codes)))
    if not strange:
        return []
    fold = {level.casefold() for level in (*column.levels, *column.missing)}
    fix = f"recode them to {', '.join(column.levels)}; until then they count as not known"
    if all(cell.casefold() in fold for cell in strange):
        fix = f"they differ in capitals only: {fix}"
    kinds = len(set(strange))
    what = f"{len(strange)} of {len(values)} rows hold {kinds} code{'s' * (kinds > 1)} that the study does not know"
    return [Finding(f"{column.name!r}: {what}: {fix}", stops=len(strange) > _MOST * (len(strange) + known))]


def _unreadable(words: list[str], rows: int, column: Numeric) -> list[Finding]:
    if not words:
        return []
    fix = "write numbers; until then they count as not known"
    if all("," in word for word in words):
        fix = f"there is a comma in each: write a decimal point; {fix}"
    what = f"{len(words)} of {rows} rows are not numbers"
    return [Finding(f"{column.name!r}: {what}: {fix}", stops=len(words) > _MOST * rows)]


def _range(known: F64, column: Numeric) -> list[Finding]:
    outside = known[(known < column.low) | (known > column.high)]
    if not len(outside):
        return []
    what = f"{len(outside)} of {len(known)} known values are outside {column.low:g} to {column.high:g} {column.unit}"
    fates = {"missing": "count as not known", "clip": "are moved to the nearest end"}
    fix = f"they {fates[column.outside]}: mend those that are wrong"
    fits = {factor: int(np.count_nonzero(_within(outside / factor, column))) for factor in _FACTORS}
    best = max(_FACTORS, key=lambda factor: fits[factor])
    if fits[best] >= _FITTING * len(outside):
        change = f"divided by {best:g}" if best > 1 else f"multiplied by {1 / best:g}"
        unit = _UNITS.get((column.unit.lower(), best))
        looks = f"so they look like {unit}" if unit else "so look for another unit or a lost decimal point"
        fix = f"{fits[best]} of these fit when {change}, {looks}: convert them to {column.unit}"
    return [Finding(f"{column.name!r}: {what}; {fix}", stops=len(outside) > _MOST * len(known))]


def _within(values: F64, column: Numeric) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray((values >= column.low) & (values <= column.high), dtype=bool)
