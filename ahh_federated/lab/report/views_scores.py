"""The views of what judges, chooses and adapts models: `scores`, `select`, `recalibration`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import hypot
from typing import Final

from markupsafe import Markup

from ahh_federated.lab.report import plots, plots_model, tables, tables_model
from ahh_federated.lab.report.context import Context, Pieces
from ahh_federated.lab.report.models import family_of, judged, measures, place_of, title_of
from ahh_federated.lab.report.plots import Panel
from ahh_federated.lab.report.tables import ALL, Json
from ahh_federated.lab.report.words import Z95, has_interval, is_released, ratio_of

LEFT_ALONE: Final = (0.0, 1.0)  # intercept and slope that change nothing


def _scores(context: Context) -> Pieces:
    """What all families share, and what the two-level outcome or the levels have besides."""
    answer, names = context.answer, context.names
    family = family_of(answer, names)
    each = tables_model.scores_of(answer, context.coverage, names)
    subgroups = tables_model.subgroups_of(answer, names)
    pieces: Pieces = {
        "family": family,
        "known": bool(measures(family)),
        "stats": _stats(answer, family),
        "outcome": names.of(answer["outcome"]),
        **_model(context),
        "everything": tables.generic_table(answer),
        "subgroups": None,
    }
    if not measures(family):
        return pieces
    pieces["forest"] = _forest(context, "partners", "The model at each partner", each)
    pieces["scores"] = tables_model.scores_table(answer, context.coverage, names)
    if subgroups:
        everybody = (tables_model.EVERYBODY, answer["overall"])
        pieces["subgroups"] = _forest(context, "subgroups", "The model in each declared subgroup", [*subgroups, everybody])
        pieces["subgroup_scores"] = tables_model.subgroups_table(answer, names)
    return pieces | (_binary(context) if family == "binary" else _levels(context) if family == "levels" else {})


def _model(context: Context) -> Pieces:
    """Which model the ask is about."""
    fit, choice = judged(context.results, context.ask)
    return {
        "model": title_of(context.results, fit),
        "model_place": place_of(context.results, fit),
        "chosen_in": title_of(context.results, choice) if choice else None,
    }


def _stats(answer: Json, family: str) -> list[tuple[str, Json, str]]:
    """The figures over all partners, where there are any."""
    overall = answer["overall"]
    found = [figure for figure in measures(family) if figure.key in overall]
    return [(tables_model.measured(figure, answer), overall[figure.key], figure.kind) for figure in found]


def _forest(context: Context, name: str, label: str, each: Sequence[tuple[str, Json]]) -> Markup:
    """The plotted figures side by side, a line per score; the last is everybody."""
    answer = context.answer
    panels = [
        Panel(
            tables_model.measured(figure, answer),
            [tables_model.score_number(score, figure.key) for _, score in each],
            figure.right,
            share=figure.kind == "share",
        )
        for figure in measures(family_of(answer, context.names))
        if figure.plotted
    ]
    plot = context.forest(name, label, len(each))
    return Markup(plots.forest(plot, [head for head, _ in each], panels))


def _binary(context: Context) -> Pieces:
    answer = context.answer
    return {
        **_curves(context),
        "bins": tables_model.calibration_table(answer),
        "thresholds": tables_model.threshold_table(answer),
        "points": tables_model.roc_table(answer),
        "hidden": sum(not is_released(point["observed"]) for point in answer["calibration"]),
        "share": ratio_of(answer["events"], answer["n"]),
    }


def _curves(context: Context) -> Pieces:
    """ROC, calibration and decision curve, each None when its points were not released."""
    square, wide = (400.0, 380.0), (760.0, 320.0)
    makers = (
        ("roc", "ROC curve", square, plots_model.roc),
        ("calibration", "Calibration: observed against predicted risk", square, plots_model.calibration),
        ("decision", "Decision curve: net benefit by risk threshold", wide, plots_model.decision),
    )
    return {
        name: Markup(make(context.plot(name, label, *size), points)) if (points := context.answer[name]) else None
        for name, label, size, make in makers
    }


def _levels(context: Context) -> Pieces:
    answer = context.answer
    titles = {"sensitivity": "Sensitivity", "ppv": "PPV"}
    panels = [
        Panel(titles[key], [tables_model.level_share(answer, key, level) for level in answer["levels"]], share=True)
        for key in tables_model.LEVEL_SHARES
    ]
    plot = context.forest("levels", "Sensitivity and PPV of each level", len(answer["levels"]))
    return {
        "confusion": tables_model.confusion_table(answer),
        "levels": Markup(plots.forest(plot, answer["levels"], panels, strong=None)),
        "level_scores": tables_model.levels_table(answer),
    }


def _select(context: Context) -> Pieces:
    answer, results = context.answer, context.results
    rows = [title_of(results, candidate["ask"]) for candidate in answer["candidates"]]
    chosen = [candidate["ask"] for candidate in answer["candidates"]].index(answer["chosen"])
    panel = Panel("Mean loss", [candidate["loss"] for candidate in answer["candidates"]])
    plot = context.forest("candidates", "Loss of each candidate", len(rows))
    return {
        "plot": Markup(plots.forest(plot, rows, [panel], strong=chosen)),
        "table": tables_model.candidates_table(answer, results),
        "title": title_of(results, answer["chosen"]),
        "model_place": place_of(results, answer["chosen"]),
        "family": family_of(answer, context.names),
        "close": _close(answer),
    }


def _close(answer: Json) -> bool:
    """Whether noise of this size alone could have put the chosen model before the next."""
    losses = sorted((c["loss"] for c in answer["candidates"] if is_released(c["loss"])), key=lambda loss: float(loss["value"]))
    if len(losses) < 2:
        return False
    first, second = losses[:2]
    return bool(second["value"] - first["value"] < Z95 * hypot(first["se"] or 0.0, second["se"] or 0.0))


def _recalibration(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    each = tables_model.scores_of(answer, context.coverage, names)
    family = family_of(answer, names)
    unit = names.columns.get(answer.get("outcome", ""), {}).get("unit") if family != "binary" else None
    titles = {"intercept": f"Intercept ({unit})" if unit else "Intercept", "slope": "Slope"}
    panels = [
        Panel(
            titles[key],
            [tables_model.score_number(score, key) for _, score in each],
            right,
            marks=[score["used"][key] if "used" in score else None for _, score in each],
        )
        for key, right in zip(tables_model.RECALIBRATED, LEFT_ALONE, strict=True)
    ]
    plot = context.forest("partners", "Intercept and slope at each partner", len(each))
    return {
        "plot": Markup(plots.forest(plot, [head for head, _ in each], panels)),
        "table": tables_model.recalibration_table(answer, context.coverage, names),
        "family": family,
        **_model(context),
        "apart": [head for head, score in each if head != ALL and _apart(score)],
    }


def _apart(score: Json) -> bool:
    """Whether the model is clearly off at this partner: an interval that leaves out 0 or 1."""
    pairs = zip(tables_model.RECALIBRATED, LEFT_ALONE, strict=True)
    off = ((tables_model.score_number(score, key), right) for key, right in pairs)
    return any(has_interval(number) and not number["low"] <= right <= number["high"] for number, right in off)


SCORE_VIEWS: Final[Mapping[str, Callable[[Context], Pieces]]] = {
    "scores": _scores,
    "select": _select,
    "recalibration": _recalibration,
}
