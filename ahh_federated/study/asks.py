"""An ask: one analysis that the study wants, over which patients, for which share of the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final

from ahh_federated.analyses.counts import Counts
from ahh_federated.analyses.histograms import Histogram
from ahh_federated.analyses.models import Model, ModelAnalysis, OnModels
from ahh_federated.analyses.moments import Moments
from ahh_federated.analyses.quantiles import Quantiles
from ahh_federated.core.columns import Levels
from ahh_federated.core.filters import Filter, parse_filter
from ahh_federated.core.programs import Analysis, Line
from ahh_federated.errors import Misuse
from ahh_federated.neural.training import Neural
from ahh_federated.study.fields import Table
from ahh_federated.study.model_asks import MODEL_ASKS
from ahh_federated.study.picking import Columns, known_columns, levels_columns, measured_columns

_TO_TRAIN: Final = ("torch", "opacus", "dp_accounting")  # a network, at a node
Build = Callable[[Table, Columns, Mapping[str, Analysis]], Analysis]


@dataclass(frozen=True, slots=True)
class Ask:
    """`analysis` is bound to the study's declarations; `models` names the earlier asks whose models it needs.

    `lines`: its schedule, made once.
    """

    id: str
    name: str
    title: str
    where: Filter | None
    share: float
    analysis: Analysis
    models: tuple[str, ...] = ()
    lines: tuple[Line, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(self.analysis.schedule()))

    @property
    def lacks(self) -> str:
        """What a node needs to answer this and this machine has not, with the fix; empty when it has all."""
        needed = _TO_TRAIN if isinstance(self.analysis, Neural) else ()
        absent = ", ".join(name for name in needed if find_spec(name) is None)
        return f"{self.id} trains a network, which needs {absent} here: pip install 'ahh-federated[neural]'" if absent else ""

    def runnable(self, models: Mapping[str, Model], *, exact: bool = False) -> Analysis:
        """The analysis as the coordinator runs it: with the fitted models it needs, or made exact."""
        analysis = self.exactly() if exact else self.analysis
        return analysis.of(*(models[name] for name in self.models)) if isinstance(analysis, OnModels) else analysis

    def exactly(self) -> Analysis:
        """The analysis without clip, grid, weights and prior: laboratory and tests."""
        return self.analysis.exactly() if isinstance(self.analysis, ModelAnalysis | OnModels) else self.analysis


def read_ask(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Ask:
    """Read one [[ask]] over the columns, cases and folds of a study."""
    name = table.choice("analysis", tuple(_BUILD))
    ask_id = table.name("id", example=f'"{name}"')
    if ask_id in earlier:
        raise Misuse(f"{table.at('id')}: {ask_id!r} is the id of an earlier ask: give each its own")
    where = table.text("where", default="")
    analysis = _BUILD[name](table, columns, {ask.id: ask.analysis for ask in earlier.values()})
    ask = Ask(
        id=ask_id,
        name=name,
        title=table.text("title", default=ask_id),
        where=parse_filter(where, columns, table.at("where")) if where else None,
        share=table.number("share", 0.0, 1.0, example="0.2"),
        analysis=analysis,
        models=analysis.needs if isinstance(analysis, OnModels) else (),
    )
    table.done()
    return ask


def _counts(table: Table, columns: Columns, earlier: Mapping[str, Analysis]) -> Analysis:
    by = levels_columns(table, "by", table.texts("by", default=(), example='["sex"]'), columns)
    analysis = Counts(by)
    if analysis.schedule()[0].width > 4096:
        raise Misuse(f"{table.at('by')} makes {analysis.schedule()[0].width} cells: at most 4096; cross fewer columns")
    return analysis


def _moments(table: Table, columns: Columns, earlier: Mapping[str, Analysis]) -> Analysis:
    names = table.texts("columns", example='["birth_weight"]')
    if not names:
        raise Misuse(f"{table.at('columns')} is empty: name at least one measured column")
    return Moments(measured_columns(table, "columns", names, columns))


def _histogram(table: Table, columns: Columns, earlier: Mapping[str, Analysis]) -> Analysis:
    column = known_columns(table, "column", (table.text("column", example='"bmi"'),), columns)[0]
    if isinstance(column, Levels):
        if "bins" in table:
            raise Misuse(f"{table.at('bins')}: {column.name!r} has levels, which are its bins: drop the key")
        return Histogram(column, len(column.levels))
    return Histogram(column, table.integer("bins", 2, 512, default=20))


def _quantiles(table: Table, columns: Columns, earlier: Mapping[str, Analysis]) -> Analysis:
    column = measured_columns(table, "column", (table.text("column", example='"bmi"'),), columns)[0]
    probabilities = table.numbers("probabilities", default=(0.25, 0.5, 0.75), example="[0.25, 0.5, 0.75]")
    if not probabilities or not all(0 < p < 1 for p in probabilities):
        raise Misuse(f"{table.at('probabilities')} are not all between 0 and 1: write for example [0.25, 0.5, 0.75]")
    return Quantiles(column, probabilities)


_BUILD: dict[str, Build] = {
    "count": _counts,
    "moments": _moments,
    "histogram": _histogram,
    "quantiles": _quantiles,
    **MODEL_ASKS,
}
