"""The tables that an additive model predicts by, for a reader to add up: points for each column, and their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ahh_federated.lab.report.equation import means_of, risk_words, rounded, unit_of
from ahh_federated.lab.report.models import family_of
from ahh_federated.lab.report.tables import NOT_KNOWN, Json, Line, Names, Table
from ahh_federated.lab.report.words import Shown, fixed, listing, plain

DIGITS: Final = 5  # of a point


@dataclass(frozen=True, slots=True)
class Scorecard:
    """`start` is where the sum begins; each table says what a column adds, each product what two columns add together."""

    left: str
    start: str
    tables: tuple[Table, ...]
    products: tuple[str, ...]
    example: str


def scorecard(answer: Json, results: Json, names: Names) -> Scorecard:
    written = answer["equation"]
    left = "log-odds" if family_of(answer, names) == "binary" else names.with_unit(answer["outcome"])
    columns, products = written["columns"], written["products"]
    return Scorecard(
        left,
        _points(written["intercept"]),
        tuple(_table(column, names) for column in columns),
        tuple(_product(product, names) for product in products),
        _example(answer, results, names),
    )


def _points(value: float) -> str:
    return plain(rounded(value, DIGITS), DIGITS)


def _rows(column: Json) -> list[tuple[str, float]]:
    """What a column may be, and what it then adds."""
    if "at" in column:
        rows = [(plain(at, DIGITS), value) for at, value in zip(column["at"], column["value"], strict=True)]
    else:
        rows = [(str(level), value) for level, value in column["levels"].items()]
    return rows if column["not_known"] is None else [*rows, (NOT_KNOWN, column["not_known"])]


def _table(column: Json, names: Names) -> Table:
    lines = tuple(Line(head, (Shown(_points(value)),)) for head, value in _rows(column))
    return Table(names.with_unit(column["column"]), ("Where it is", "Adds"), lines)


def _product(product: Json, names: Names) -> str:
    """'0.031 x (sex: girl -0.9, boy 1.1) x (bmi 2y (kg/m2): 11 -4, 25 4), the product of the two held between -15 and 15'."""
    factors = [
        f"({names.with_unit(factor['column'])}: {', '.join(f'{head} gives {_points(value)}' for head, value in _rows(factor))})"
        for factor in product["factors"]
    ]
    limit = plain(product["limit"])
    held = f"the product of the two brackets held between \u2212{limit} and {limit}"
    return " \u00d7 ".join([_points(product["coefficient"]), *factors]) + f", {held}"


def _example(answer: Json, results: Json, names: Names) -> str:
    """A patient at the reference levels and at the point of each table nearest to the mean, added up."""
    written, means = answer["equation"], means_of(results)
    places = {column["column"]: _place(column, answer, means, names) for column in written["columns"]}
    total = rounded(written["intercept"], DIGITS)
    total += sum(_value(column, places[column["column"]]) for column in written["columns"])
    for product in written["products"]:
        one, other = (_value(factor, places[factor["column"]]) for factor in product["factors"])
        total += rounded(product["coefficient"], DIGITS) * max(-product["limit"], min(product["limit"], one * other))
    said = [_said(column, places[column["column"]], names) for column in written["columns"]]
    patient = f"A made-up patient with {listing(said)}" if said else "Every patient"
    if family_of(answer, names) == "binary":
        return f"{patient}: log-odds {fixed(total, 4)}, risk {risk_words(total)}."
    return f"{patient}: {names.of(answer['outcome'])} {plain(total, 4)} {unit_of(answer['outcome'], names)}".strip() + "."


def _place(column: Json, answer: Json, means: Mapping[str, float], names: Names) -> int:
    """The line of a column's table where the example stands."""
    if "levels" in column:
        levels, reference = list(column["levels"]), answer["reference"].get(column["column"])
        return levels.index(reference) if reference in levels else 0
    at: Sequence[float] = column["at"]
    middle = means.get(column["column"], (at[0] + at[-1]) / 2)
    return min(range(len(at)), key=lambda place: abs(at[place] - middle))


def _value(column: Json, place: int) -> float:
    return rounded(_rows(column)[place][1], DIGITS)


def _said(column: Json, place: int, names: Names) -> str:
    unit = unit_of(column["column"], names) if "at" in column else ""
    return f"{names.of(column['column'])} {_rows(column)[place][0]} {unit}".strip()
