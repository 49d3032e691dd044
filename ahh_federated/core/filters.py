"""A safe declarative language for `where` and case definitions: comparisons over declared columns, nothing else.

    sex == 'boy' and (bmi_6y >= 17.55 or not smoker in ['no', 'former'])

The text is parsed, never evaluated.  A comparison with a value that is not known is itself not known, `and`, `or` and
`not` follow Kleene's three-valued logic, and a patient is kept only where the whole is true.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ahh_federated.core.cohorts import F64, Bools, Cohort
from ahh_federated.core.columns import Column, Levels
from ahh_federated.errors import Misuse

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MIRROR: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
_LONGEST = 2000  # characters; a filter is read by a data steward
_LARGEST = 1e15
_DEEPEST = 20  # levels of nesting: evaluating a filter must never come near the interpreter's own limit


@dataclass(frozen=True, slots=True)
class _Truth:
    """Where a condition holds and where it is known, each of shape (patients,)."""

    holds: Bools
    known: Bools


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a patient's own columns.  `text` is the public form; `columns` are those it reads."""

    text: str
    columns: tuple[str, ...]
    _condition: Callable[[Cohort], _Truth]

    def mask(self, cohort: Cohort) -> Bools:
        """True for the patients of whom the condition is known to hold; shape (patients,)."""
        return self._condition(cohort).holds

    def case(self, cohort: Cohort) -> F64:
        """1.0 where it holds, 0.0 where it does not, NaN where that is not known; shape (patients,)."""
        truth = self._condition(cohort)
        return np.where(truth.known, truth.holds.astype(np.float64), np.nan)


def parse_filter(text: str, columns: Mapping[str, Column], thing: str = "where") -> Filter:
    """Parse a condition over declared columns.

    Raises:
        Misuse: naming `thing`, what is not allowed in it, and what is.
    """
    if len(text) > _LONGEST:
        raise Misuse(f"{thing}: the condition has {len(text)} characters, more than {_LONGEST}: shorten it")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Misuse(f"{thing}: {text!r} is not a condition: write it like \"sex == 'girl' and age >= 2\"") from None
    if _depth(tree) > _DEEPEST:
        raise Misuse(f"{thing}: the condition nests deeper than {_DEEPEST} levels: write it flatter")
    used: dict[str, None] = {}
    condition = _build(tree, columns, used, thing)
    return Filter(text.strip(), tuple(used), condition)


def _depth(tree: ast.expr) -> int:
    deepest, level = 0, [tree]
    while level:
        deepest += 1
        level = [child for node in level for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return deepest


def _build(node: ast.expr, columns: Mapping[str, Column], used: dict[str, None], thing: str) -> Callable[[Cohort], _Truth]:
    if isinstance(node, ast.BoolOp):
        parts = [_build(value, columns, used, thing) for value in node.values]
        return _all(parts) if isinstance(node.op, ast.And) else _not(_all([_not(part) for part in parts]))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _not(_build(node.operand, columns, used, thing))
    if isinstance(node, ast.Compare):
        return _comparison(node, columns, used, thing)
    raise Misuse(
        f"{thing}: {ast.unparse(node)!r} is not allowed: only comparisons of a column with a value, joined by and, or, not"
    )


def _all(parts: list[Callable[[Cohort], _Truth]]) -> Callable[[Cohort], _Truth]:
    def condition(cohort: Cohort) -> _Truth:
        truths = [part(cohort) for part in parts]
        holds = np.logical_and.reduce([truth.holds for truth in truths])
        fails = np.logical_or.reduce([truth.known & ~truth.holds for truth in truths])
        return _Truth(holds, holds | fails)

    return condition


def _not(part: Callable[[Cohort], _Truth]) -> Callable[[Cohort], _Truth]:
    def condition(cohort: Cohort) -> _Truth:
        truth = part(cohort)
        return _Truth(truth.known & ~truth.holds, truth.known)

    return condition


def _comparison(
    node: ast.Compare, columns: Mapping[str, Column], used: dict[str, None], thing: str
) -> Callable[[Cohort], _Truth]:
    operands = [node.left, *node.comparators]
    parts = [_pair(*each, columns, used, thing) for each in zip(operands[:-1], node.ops, operands[1:], strict=True)]
    return parts[0] if len(parts) == 1 else _all(parts)


def _pair(
    left: ast.expr, op: ast.cmpop, right: ast.expr, columns: Mapping[str, Column], used: dict[str, None], thing: str
) -> Callable[[Cohort], _Truth]:
    kind = type(op)
    if not isinstance(left, ast.Name) and isinstance(right, ast.Name):
        left, right, kind = right, left, _MIRROR.get(kind, kind)
    if not isinstance(left, ast.Name):
        raise Misuse(f"{thing}: {ast.unparse(left)!r} is not a column: compare a declared column with a value")
    if left.id not in columns:
        raise Misuse(f"{thing}: the column {left.id!r} is not declared: add [columns.{left.id}] or correct the name")
    column = columns[left.id]
    used[left.id] = None
    if kind in (ast.In, ast.NotIn):
        if not isinstance(right, ast.List | ast.Tuple):
            raise Misuse(f"{thing}: `in` needs a list of values after it, like {left.id} in ['a', 'b']")
        codes = [_code(value, column, thing) for value in right.elts]
        return _test(left.id, lambda values: _among(values, codes), negate=kind is ast.NotIn)
    if kind not in _COMPARE:
        raise Misuse(f"{thing}: `is` is not a comparison here: use == or !=")
    if isinstance(column, Levels) and kind not in (ast.Eq, ast.NotEq):
        raise Misuse(f"{thing}: {left.id!r} has levels, which have no order: use ==, != or in")
    code, compare = _code(right, column, thing), _COMPARE[kind]
    return _test(left.id, lambda values: compare(values, code))


def _among(values: F64, codes: list[float]) -> Bools:
    """Plain comparisons: `np.isin` picks its way by the number of patients."""
    found = np.zeros(len(values), dtype=bool)
    for code in codes:
        found |= values == code
    return found


def _test(name: str, compare: Callable[[F64], Bools], negate: bool = False) -> Callable[[Cohort], _Truth]:
    def condition(cohort: Cohort) -> _Truth:
        known = ~np.isnan(cohort[name])
        return _Truth((compare(cohort[name]) ^ negate) & known, known)

    return condition


def _code(node: ast.expr, column: Column, thing: str) -> float:
    value = _literal(node)
    if isinstance(column, Levels):
        if not isinstance(value, str) or value not in column.levels:
            raise Misuse(f"{thing}: {ast.unparse(node)} is not a level of {column.name!r}: choose from {list(column.levels)}")
        return float(column.index(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise Misuse(f"{thing}: {ast.unparse(node)[:50]} is not a number, and {column.name!r} is measured in {column.unit}")
    return float(value)


def _literal(node: ast.expr) -> object:
    """A constant, or a number with a minus sign; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand)
        return -value if isinstance(value, int | float) else None
    return None
