"""An ask: one analysis that the study wants, over which patients, for which share of the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ahh_federated.analyses.counts import Counts
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.histograms import Histogram
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.moments import Moments
from ahh_federated.analyses.quantiles import Quantiles
from ahh_federated.analyses.scores import Scores
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.filters import Filter, parse_filter
from ahh_federated.core.programs import Analysis
from ahh_federated.errors import Misuse
from ahh_federated.study.fields import Table

Columns = Mapping[str, Column]
Build = Callable[[Table, Columns, Mapping[str, "Ask"]], Analysis]


@dataclass(frozen=True, slots=True)
class Ask:
    """`analysis` is bound to the study's declarations; `model` names the ask whose model is evaluated, if any."""

    id: str
    name: str
    title: str
    where: Filter | None
    share: float
    analysis: Analysis
    model: str | None = None

    def runnable(self, fits: Mapping[str, Fit], *, exact: bool = False) -> Analysis:
        """The analysis as the coordinator runs it: with the fitted model it needs, or made exact."""
        analysis = self.exactly() if exact else self.analysis
        if isinstance(analysis, Scores) and self.model is not None:
            return analysis.of(fits[self.model])
        return analysis

    def exactly(self) -> Analysis:
        """The analysis without clip, grid, weights and prior: laboratory and tests."""
        if isinstance(self.analysis, Logistic):
            return replace(self.analysis, rounds=EXACT_ROUNDS, exact=True)
        return replace(self.analysis, exact=True) if isinstance(self.analysis, Scores) else self.analysis


def read_ask(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Ask:
    """Read one [[ask]] over the columns, cases and folds of a study."""
    name = table.choice("analysis", tuple(_BUILD))
    ask_id = table.name("id", example=f'"{name}"')
    if ask_id in earlier:
        raise Misuse(f"{table.at('id')}: {ask_id!r} is the id of an earlier ask: give each its own")
    where = table.text("where", default="")
    analysis = _BUILD[name](table, columns, earlier)
    ask = Ask(
        id=ask_id,
        name=name,
        title=table.text("title", default=ask_id),
        where=parse_filter(where, columns, table.at("where")) if where else None,
        share=table.number("share", 0.0, 1.0, example="0.2"),
        analysis=analysis,
        model=table.text("model") if name == "scores" else None,
    )
    table.done()
    return ask


def _known(table: Table, key: str, names: tuple[str, ...], columns: Columns) -> list[Column]:
    for name in names:
        if name not in columns:
            raise Misuse(
                f"{table.at(key)}: {name!r} is not declared: add [columns.{name}] or [cases.{name}], or correct the name"
            )
    return [columns[name] for name in names]


def _levels(table: Table, key: str, names: tuple[str, ...], columns: Columns) -> tuple[Levels, ...]:
    found = _known(table, key, names, columns)
    for column in found:
        if not isinstance(column, Levels):
            raise Misuse(f"{table.at(key)}: {column.name!r} is measured, not a column of levels: define a case for it")
    return tuple(column for column in found if isinstance(column, Levels))


def _measured(table: Table, key: str, names: tuple[str, ...], columns: Columns) -> tuple[Numeric, ...]:
    found = _known(table, key, names, columns)
    for column in found:
        if not isinstance(column, Numeric):
            raise Misuse(f"{table.at(key)}: {column.name!r} has levels and no unit: use `count` or `histogram` for it")
    return tuple(column for column in found if isinstance(column, Numeric))


def _counts(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Analysis:
    by = _levels(table, "by", table.texts("by", default=(), example='["sex"]'), columns)
    analysis = Counts(by)
    if analysis.schedule()[0].width > 4096:
        raise Misuse(f"{table.at('by')} makes {analysis.schedule()[0].width} cells: at most 4096; cross fewer columns")
    return analysis


def _moments(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Analysis:
    names = table.texts("columns", example='["birth_weight"]')
    if not names:
        raise Misuse(f"{table.at('columns')} is empty: name at least one measured column")
    return Moments(_measured(table, "columns", names, columns))


def _histogram(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Analysis:
    column = _known(table, "column", (table.text("column", example='"bmi"'),), columns)[0]
    if isinstance(column, Levels):
        if "bins" in table:
            raise Misuse(f"{table.at('bins')}: {column.name!r} has levels, which are its bins: drop the key")
        return Histogram(column, len(column.levels))
    return Histogram(column, table.integer("bins", 2, 512, default=20))


def _quantiles(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Analysis:
    column = _measured(table, "column", (table.text("column", example='"bmi"'),), columns)[0]
    probabilities = table.numbers("probabilities", default=(0.25, 0.5, 0.75), example="[0.25, 0.5, 0.75]")
    if not probabilities or not all(0 < p < 1 for p in probabilities):
        raise Misuse(f"{table.at('probabilities')} are not all between 0 and 1: write for example [0.25, 0.5, 0.75]")
    return Quantiles(column, probabilities)


def _logistic(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Analysis:
    outcome = _levels(table, "outcome", (table.text("outcome", example='"overweight"'),), columns)[0]
    if len(outcome.levels) != 2:
        raise Misuse(
            f"{table.at('outcome')}: {outcome.name!r} has {len(outcome.levels)} levels: a logistic outcome has two; define a case"
        )
    names = table.texts("features", example='["sex", "birth_weight"]')
    if not names:
        raise Misuse(f"{table.at('features')} is empty: name at least one predictor")
    if outcome.name in names or "fold" in names:
        raise Misuse(f"{table.at('features')} names the outcome or the fold: list the predictors only")
    features = tuple(_known(table, "features", names, columns))
    indicators = table.choice("missing", ("complete-cases", "indicator"), default="complete-cases") == "indicator"
    analysis = Logistic(Design(features, indicators), outcome)
    if analysis.design.width > 200:
        raise Misuse(f"{table.at('features')} make {analysis.design.width} coefficients: at most 200")
    return analysis


def _scores(table: Table, columns: Columns, earlier: Mapping[str, Ask]) -> Analysis:
    model = earlier.get(table.text("model", example='"model"'))
    if model is None or not isinstance(model.analysis, Logistic):
        raise Misuse(f"{table.at('model')} is not the id of an earlier logistic ask: name the model to evaluate")
    thresholds = table.numbers("thresholds", default=(0.05, 0.1, 0.2), example="[0.05, 0.1, 0.2]")
    if not thresholds or len(thresholds) > 50 or not all(0.001 <= t <= 0.999 for t in thresholds):
        raise Misuse(f"{table.at('thresholds')} are not 1 to 50 risks from 0.001 to 0.999: write for example [0.05, 0.1, 0.2]")
    return Scores(model.analysis.design, model.analysis.outcome, tuple(sorted(set(thresholds))))


_BUILD: dict[str, Build] = {
    "count": _counts,
    "moments": _moments,
    "histogram": _histogram,
    "quantiles": _quantiles,
    "logistic": _logistic,
    "scores": _scores,
}
