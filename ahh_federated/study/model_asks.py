"""Asks that fit, judge, choose or adapt models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ahh_federated.analyses.additive import Additive, with_curves
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.linear import Linear
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.analyses.models import ModelAnalysis
from ahh_federated.analyses.recalibration import Recalibration
from ahh_federated.analyses.scores import Scores
from ahh_federated.analyses.selection import Selection
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.programs import Analysis
from ahh_federated.errors import Misuse
from ahh_federated.study.declarations import FOLD
from ahh_federated.study.fields import Table
from ahh_federated.study.neural_ask import read_neural
from ahh_federated.study.picking import Columns, known_columns, levels_columns, measured_columns

Earlier = Mapping[str, Analysis]
WIDEST_DESIGN = 200  # coefficients


def _features(table: Table, columns: Columns, outcome: Column) -> tuple[Column, ...]:
    names = table.texts("features", example='["sex", "birth_weight"]')
    if not names:
        raise Misuse(f"{table.at('features')} is empty: name at least one predictor")
    for name in (outcome.name, FOLD):
        if name in names:
            raise Misuse(f"{table.at('features')} names {name!r}, the outcome or the fold: list the predictors only")
    return tuple(known_columns(table, "features", names, columns))


def _indicators(table: Table) -> bool:
    return table.choice("missing", ("complete-cases", "indicator"), default="complete-cases") == "indicator"


def _design(table: Table, columns: Columns, outcome: Column, *, curves: bool = False) -> Design:
    features = _features(table, columns, outcome)
    design = Design(features, _indicators(table), _interactions(table, features))
    if curves:
        design = with_curves(design, _cut_points(table, features))
    if design.width > WIDEST_DESIGN:
        raise Misuse(f"{table.at('features')} make {design.width} coefficients: at most {WIDEST_DESIGN}")
    return design


def _interactions(table: Table, features: tuple[Column, ...]) -> tuple[tuple[Column, Column], ...]:
    given = table.raw("interactions", default=())
    if not isinstance(given, list | tuple):
        raise Misuse(f'{table.at("interactions")} is not a list of pairs: write it like interactions = [["age", "sex"]]')
    named, found, seen = {column.name: column for column in features}, [], set()
    for pair in given:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair)):
            raise Misuse(f'{table.at("interactions")} holds something else than pairs of names: write each like ["age", "sex"]')
        if strange := [name for name in pair if name not in named]:
            fix = f"add it to `features`, or take two of {', '.join(named)}"
            raise Misuse(f"{table.at('interactions')}: {strange[0]!r} is no feature of this ask: {fix}")
        if pair[0] == pair[1] or frozenset(pair) in seen:
            raise Misuse(f"{table.at('interactions')} has {pair[0]!r} and {pair[1]!r} twice: name two features, each pair once")
        seen.add(frozenset(pair))
        found.append((named[pair[0]], named[pair[1]]))
    return tuple(found)


def _cut_points(table: Table, features: tuple[Column, ...]) -> dict[str, tuple[float, ...]]:
    """Clinical cut-points by column; equal ones where none are given."""
    if "knots" not in table:
        return {}
    inner, points = table.table("knots"), {}
    for name in inner.names():
        column = next((each for each in features if each.name == name), None)
        if not isinstance(column, Numeric):
            measured = ", ".join(each.name for each in features if isinstance(each, Numeric)) or "none"
            raise Misuse(f"{inner.at(name)} is of no measured feature: give cut-points to those, which are {measured}")
        points[name] = inner.numbers(name, example="[2, 5, 10]")
        try:
            Knots(column, points[name])
        except Misuse as error:
            raise Misuse(f"{inner.at(name)}: {error}") from None
    return points


def _two_levels(table: Table, columns: Columns) -> Levels:
    outcome = levels_columns(table, "outcome", (table.text("outcome", example='"overweight"'),), columns)[0]
    if len(outcome.levels) != 2:
        raise Misuse(
            f"{table.at('outcome')}: {outcome.name!r} has {len(outcome.levels)} levels: a logistic outcome has two; define a case"
        )
    return outcome


def _logistic(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    outcome = _two_levels(table, columns)
    return Logistic(_design(table, columns, outcome), outcome)


def _linear(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    name = table.text("outcome", example='"bmi_6y"')
    if isinstance(columns.get(name), Levels):
        raise Misuse(f"{table.at('outcome')}: {name!r} has levels and no unit: use `logistic`, `additive` or `neural` for it")
    outcome = measured_columns(table, "outcome", (name,), columns)[0]
    return Linear(_design(table, columns, outcome), outcome)


def _additive(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    outcome = known_columns(table, "outcome", (table.text("outcome", example='"overweight"'),), columns)[0]
    if isinstance(outcome, Levels) and len(outcome.levels) != 2:
        fix = "an additive model has an outcome of two levels or a measured one; define a case"
        raise Misuse(f"{table.at('outcome')}: {outcome.name!r} has {len(outcome.levels)} levels: {fix}")
    return Additive(_design(table, columns, outcome, curves=True), outcome)


def _neural(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    outcome = known_columns(table, "outcome", (table.text("outcome", example='"overweight"'),), columns)[0]
    return read_neural(table, _design(table, columns, outcome), outcome)


def _model(table: Table, key: str, earlier: Earlier, name: str) -> ModelAnalysis:
    model = earlier.get(name)
    if not isinstance(model, ModelAnalysis):
        models = ", ".join(ask for ask, each in earlier.items() if isinstance(each, ModelAnalysis))
        fix = f"name one of {models}" if models else 'add one before it, for example with analysis = "logistic"'
        raise Misuse(f"{table.at(key)}: {name!r} is not the id of an earlier ask that fits a model: {fix}")
    return model


def _scores(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    name = table.text("model", example='"model"')
    model = _model(table, "model", earlier, name)
    by = levels_columns(table, "by", table.texts("by", default=(), example='["sex"]'), columns)
    thresholds: tuple[float, ...] = ()
    if model.family == "binary":
        thresholds = table.numbers("thresholds", default=(0.05, 0.1, 0.2), example="[0.05, 0.1, 0.2]")
        if not thresholds or len(thresholds) > 50 or not all(0.001 <= t <= 0.999 for t in thresholds):
            raise Misuse(
                f"{table.at('thresholds')} are not 1 to 50 risks from 0.001 to 0.999: write for example [0.05, 0.1, 0.2]"
            )
    scores = Scores(model, tuple(sorted(set(thresholds))), by, name)
    if scores.schedule()[0].width > 4096:
        raise Misuse(f"{table.at('by')} makes {scores.schedule()[0].width} cells: at most 4096; name fewer subgroups")
    return scores


def _select(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    names = table.texts("select", example='["lines", "curves"]')
    if not 2 <= len(names) <= 20:
        raise Misuse(f"{table.at('select')} names {len(names)} models: 2 to 20 can be compared")
    for name in names:
        if isinstance(earlier.get(name), Selection):
            raise Misuse(f"{table.at('select')}: {name!r} is a choice itself: name its candidates")
    candidates = tuple(_model(table, "select", earlier, name) for name in names)
    first = candidates[0]
    for name, each in zip(names, candidates, strict=True):
        if (each.family, each.outcome) != (first.family, first.outcome):
            raise Misuse(f"{table.at('select')}: {name!r} predicts another outcome than {names[0]!r}: compare like with like")
    return Selection(names, candidates)


def _recalibration(table: Table, columns: Columns, earlier: Earlier) -> Analysis:
    name = table.text("model", example='"model"')
    model = _model(table, "model", earlier, name)
    if model.family not in ("binary", "continuous"):
        raise Misuse(
            f"{table.at('model')}: {name!r} has a {model.family} outcome: two levels or a measured one can be recalibrated"
        )
    return Recalibration(model, name)


MODEL_ASKS: Final[Mapping[str, Callable[[Table, Columns, Earlier], Analysis]]] = {
    "logistic": _logistic,
    "linear": _linear,
    "additive": _additive,
    "neural": _neural,
    "scores": _scores,
    "select": _select,
    "recalibration": _recalibration,
}
