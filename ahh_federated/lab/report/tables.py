"""The tables of a report: headings, lines and cells in words, ready for one template macro.

Every table names every partner of the study, also one that gave nothing: its status then stands in the cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from ahh_federated.lab.report.words import (
    MISSING,
    UNCERTAIN,
    Kind,
    Shown,
    humane,
    is_number,
    is_released,
    listing,
    percent,
    plain,
    share_of,
    shown,
)

Json = Mapping[str, Any]
ALL: Final = "All partners"
NOT_KNOWN: Final = "not known"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table; `strong` for the line of all partners together; without cells the heading of what follows."""

    head: str
    cells: tuple[Shown, ...]
    strong: bool = False

    @property
    def status(self) -> str:
        """The status that every cell has, where nothing at all was released; otherwise empty."""
        found = {cell.status for cell in self.cells}
        return found.pop() if len(found) == 1 and len(self.cells) > 1 else ""


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` are the headings, the first of them over the heads of the lines."""

    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def dense(self) -> bool:
        return len(self.columns) > 6


@dataclass(frozen=True, slots=True)
class Names:
    """How columns, cases and partners of a study are written for a reader."""

    cases: Mapping[str, Json]
    columns: Mapping[str, Json]
    partners: tuple[str, ...]

    def of(self, name: str) -> str:
        return str(self.cases[name]["label"]) if name in self.cases else humane(name)

    def with_unit(self, name: str, unit: str | None = None) -> str:
        unit = self.columns.get(name, {}).get("unit") if unit is None else unit
        return f"{self.of(name)} ({unit})" if unit else self.of(name)

    def groups(self, by: Sequence[str]) -> str:
        """'sex and overweight at 6 years': what the words of a cell stand for, in their order."""
        return listing([self.of(column) for column in by]) or "patients"


def names_of(results: Json) -> Names:
    study = results["study"]
    return Names(study["cases"], study["columns"], tuple(str(p["name"]) for p in results["partners"]))


def at_partner(numbers: Mapping[str, Any], partner: str, coverage: Mapping[str, str]) -> Json:
    """What the partner gave, or a stand-in that carries why it gave nothing."""
    return numbers.get(partner) or {"value": None, "status": coverage.get(partner, MISSING)}


def cell_name(cell: Json) -> str:
    """'girl'; of several columns also which: 'sex: girl, deprived: yes'."""
    levels = {column: NOT_KNOWN if level is None else str(level) for column, level in cell["levels"].items()}
    if len(levels) > 1:
        return ", ".join(f"{humane(column)}: {level}" for column, level in levels.items())
    return next(iter(levels.values()), "all patients")


def count_tables(answer: Json, coverage: Mapping[str, str], names: Names) -> list[Table]:
    """All partners together with shares, then each partner."""
    cells, what = answer["cells"], names.groups(answer["by"])
    corner = what if len(answer["by"]) < 2 else "Group"
    heads = [cell_name(cell) for cell in cells]
    shares = [_shares(column, answer["by"], cells) for column in answer["by"]]
    overall = [shown(cell["overall"], "count") for cell in cells]
    groups = tuple(Line(head, tuple(line)) for head, *line in zip(heads, overall, *shares, strict=True))
    titles = [_share_title(column, answer["by"]) for column in answer["by"]]
    each = {p: [shown(at_partner(c["partners"], p, coverage), "count") for c in cells] for p in names.partners}
    return [
        Table("All partners together", (corner, "Patients", *titles), groups),
        _by_partner(f"Each partner, by {what}", corner, heads, {**each, ALL: overall}),
    ]


def _share_title(column: str, by: Sequence[str]) -> str:
    others = [humane(other) for other in by if other != column]
    return f"Share by {humane(column)}" + (f", same {listing(others)}" if others else ", of those known")


def _by_partner(caption: str, corner: str, heads: Sequence[str], each: Mapping[str, Sequence[Shown]]) -> Table:
    """A line per partner when there are few columns; otherwise a column per partner."""
    if len(heads) <= 4:
        lines = tuple(Line(partner, tuple(cells), strong=partner == ALL) for partner, cells in each.items())
        return Table(caption, ("Partner", *heads), lines)
    lines = tuple(Line(head, tuple(cells[place] for cells in each.values())) for place, head in enumerate(heads))
    return Table(caption, (corner, *each), lines)


def _shares(column: str, by: Sequence[str], cells: Sequence[Json]) -> list[Shown]:
    """Share of each level of one column, among those for whom it is known and who are alike in the other columns."""
    found: list[Shown] = []
    for cell in cells:
        alike = [other for other in cells if all(other["levels"][o] == cell["levels"][o] for o in by if o != column)]
        known = [other for other in alike if other["levels"][column] not in (NOT_KNOWN, None)]
        rest = [other["overall"] for other in known if other is not cell]
        share = share_of(cell["overall"], rest) if cell in known and rest else None
        counted = cell in known and rest and all(is_released(count) for count in (cell["overall"], *rest))
        nothing = Shown(status=UNCERTAIN) if counted else Shown("\N{EN DASH}")
        found.append(shown(share, "share") if share else nothing)
    return found


def moments_tables(answer: Json, coverage: Mapping[str, str], names: Names) -> list[Table]:
    """One table over all partners, then one per column with a line per partner."""
    columns: Mapping[str, Json] = answer["columns"]
    lines = tuple(Line(names.with_unit(name, column["unit"]), _moments(column)) for name, column in columns.items())
    tables = [Table("All partners together", ("", "Patients measured", "Mean", "Standard deviation"), lines)]
    for name, column in columns.items():
        each = [Line(p, _moments_at(column, p, coverage)) for p in names.partners]
        caption = f"{names.with_unit(name, column['unit'])}, by partner"
        everybody = Line(ALL, _moments(column), strong=True)
        tables.append(Table(caption, ("Partner", "Measured", "Mean", "SD"), (*each, everybody)))
    return tables


def _moments(column: Json) -> tuple[Shown, ...]:
    return shown(column["count"], "count"), shown(column["mean"]), shown(column["sd"])


def _moments_at(column: Json, partner: str, coverage: Mapping[str, str]) -> tuple[Shown, ...]:
    given = column["partners"].get(partner)
    return _moments(given) if given else (shown(at_partner({}, partner, coverage)),) * 3


def bin_names(answer: Json) -> list[str]:
    if "edges" in answer:
        return [f"{plain(left)} to {plain(right)}" for left, right in pairwise(answer["edges"])]
    return [str(level) for level in answer["levels"]]


def bins_table(answer: Json, coverage: Mapping[str, str], names: Names) -> Table:
    """A line per bin, a column per partner: a histogram, or quantiles when the answer has probabilities."""
    heads, kind, caption = _bins(answer, names)
    columns = []
    for partner in names.partners:
        columns.append((partner, answer["partners"].get(partner) or [at_partner({}, partner, coverage)] * len(heads)))
    columns.append((ALL, answer["overall"]))
    lines = tuple(Line(head, tuple(shown(numbers[place], kind) for _, numbers in columns)) for place, head in enumerate(heads))
    return Table(
        caption,
        (names.with_unit(answer["column"], answer.get("unit")), *(name for name, _ in columns)),
        lines,
    )


def _bins(answer: Json, names: Names) -> tuple[list[str], Kind, str]:
    what = names.of(answer["column"])
    if "probabilities" in answer:
        return [quantile_name(p) for p in answer["probabilities"]], "estimate", f"Quantiles of {what}"
    return bin_names(answer), "count", f"Patients by {what}"


def quantile_name(probability: float) -> str:
    return "Median" if probability == 0.5 else f"{percent(probability)} are below"


def generic_table(answer: Any) -> Table:
    """Any answer as path and value, for an analysis that this report does not know."""
    lines = tuple(Line(path or "answer", (cell,)) for path, cell in _flat(answer, ""))
    return Table("The answer as it was released", ("Item", "Value"), lines)


def _flat(thing: Any, path: str) -> list[tuple[str, Shown]]:
    if is_number(thing):
        return [(path, shown(thing))]
    if isinstance(thing, Mapping):
        inside = [(str(key), value) for key, value in thing.items()]
    elif isinstance(thing, (list, tuple)):
        inside = [(str(place + 1), value) for place, value in enumerate(thing)]
    else:
        number = isinstance(thing, (int, float)) and not isinstance(thing, bool)
        return [(path, Shown(MISSING if thing is None else plain(thing, 6) if number else str(thing)))]
    return [leaf for key, value in inside for leaf in _flat(value, f"{path} \N{RIGHTWARDS ARROW} {key}" if path else key)]
