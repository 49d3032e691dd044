"""The views of fitted models: `logistic`, `additive`, `linear`, `neural`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from ahh_federated.lab.report import plots_curves, plots_model, tables_model
from ahh_federated.lab.report.context import Context, Pieces
from ahh_federated.lab.report.equation import equation
from ahh_federated.lab.report.models import family_of, indicators
from ahh_federated.lab.report.scorecard import scorecard
from ahh_federated.lab.report.tables import Json, Names, Table
from ahh_federated.lab.report.words import plain, ratio_of


def _fit(context: Context) -> Pieces:
    """What is said of every model: its outcome, in the words of the study, and how many patients it saw."""
    answer, names = context.answer, context.names
    outcome = answer.get("outcome", "")
    family = family_of(answer, names)
    share = ratio_of(answer["events"], answer["n"]) if answer.get("events") and answer.get("n") else None
    return {
        "outcome": names.of(outcome),
        "with_unit": names.with_unit(outcome),
        "when": names.cases.get(outcome, {}).get("when"),
        "column": outcome,
        "family": family,
        "share": share,
        "counted": _counted(answer, names),
        "settings": [("Messages", str(answer["rounds"]))] if "rounds" in answer else [],
        "notes": answer.get("notes", ()),
        "reference": answer.get("reference", {}),
    }


def _counted(answer: Json, names: Names) -> list[tuple[str, Json, str]]:
    """What the fit counted, by name, and how it is printed."""
    unit = f" ({answer['unit']})" if answer.get("unit") else ""
    labels = (
        ("n", "Patients in the model", "count"),
        ("events", "With the outcome", "count"),
        ("complete", "Outcome known" if indicators(answer, names) else "Complete cases", "share"),
        ("residual_sd", f"Residual standard deviation{unit}", "estimate"),
    )
    return [(label, answer[key], kind) for key, label, kind in labels if answer.get(key)]


def _logistic(context: Context) -> Pieces:
    answer = context.answer
    return {
        **_fit(context),
        "plot": _odds(context, tables_model.characteristics(answer)),
        "table": tables_model.odds_table(answer),
        "equation": equation(answer, context.results, context.names),
    }


def _odds(context: Context, terms: Sequence[Json]) -> Markup:
    plot = context.plot("odds", "Odds ratios with 95% intervals", 760.0, 110.0 + 34.0 * len(terms))
    return Markup(plots_model.odds(plot, terms))


def _linear(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    fit = _fit(context)
    return {
        **fit,
        "plot": _effects(context, tables_model.characteristics(answer)),
        "table": tables_model.linear_table(answer, fit["with_unit"]),
        "equation": equation(answer, context.results, names),
    }


def _effects(context: Context, terms: Sequence[Json]) -> Markup:
    names = context.names
    outcome = names.with_unit(context.answer["outcome"])
    stepped = [{**term, **_step(term, names)} for term in terms]
    plot = context.plot("effects", f"What each characteristic adds to {outcome}", 760.0, 110.0 + 34.0 * len(terms))
    return Markup(plots_model.effects(plot, stepped, f"adds to {outcome}, 95% interval"))


def _step(term: Json, names: Names) -> dict[str, Any]:
    """A tenth of a measured column's declared range, so that columns of different units share an axis; one for a level."""
    declared = names.columns.get(term["column"], {})
    if term["level"] is not None or "range" not in declared or "by" in term:
        return {"step": 1.0}
    step = (declared["range"][1] - declared["range"][0]) / 10
    return {"step": step, "name": f"{names.of(term['column'])}, +{plain(step)} {declared.get('unit') or ''}".strip()}


def _additive(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    fit = _fit(context)
    odds = fit["family"] == "binary"
    curves = list(answer["curves"].items())
    limits = plots_curves.shared_limits([given for _, given in curves])
    up = "odds ratio" if odds else f"adds to {fit['with_unit']}"
    drawn = [
        plots_curves.curve(
            context.plot(f"curve{place}", f"{names.of(column)}: {up} with its 95% band", 310.0, 250.0),
            given,
            names.with_unit(column, given.get("unit")),
            up,
            limits,
        )
        for place, (column, given) in enumerate(curves)
    ]
    terms = tables_model.characteristics({"terms": [*answer["terms"], *answer.get("interactions", ())]})
    return {
        **fit,
        "odds": odds,
        "curves": [Markup(svg) for svg in drawn],
        "scorecard": scorecard(answer, context.results, names) if "columns" in answer.get("equation", {}) else None,
        "curve_tables": [tables_model.curve_table(column, given, up, names) for column, given in curves],
        "plot": (_odds if odds else _effects)(context, terms) if terms else None,
        "table": _term_table({"terms": terms}, odds, fit["with_unit"]) if terms else None,
    }


def _term_table(answer: Json, odds: bool, outcome: str) -> Table:
    return tables_model.odds_table(answer) if odds else tables_model.linear_table(answer, outcome)


WAYS: Final = {
    "sgd": "step by step over all partners: each round is one noised sum of clipped gradients",
    "local": "in steps at each partner, whose noised results are averaged every round",
}
ARCHITECTURES: Final = {"mlp": "layer after layer", "wide-deep": "layer after layer, with a direct path beside them"}


def _neural(context: Context) -> Pieces:
    answer, fit = context.answer, _fit(context)
    layers = " \N{RIGHTWARDS ARROW} ".join(str(width) for width in answer["layers"])
    architecture, numbers = answer.get("architecture"), _numbers(answer)
    settings = [
        ("Units of its layers", f"{layers}, from predictors to outputs"),
        ("Built", ARCHITECTURES.get(architecture, architecture) if architecture else ""),
        ("Numbers in it", f"{numbers:,}" if numbers else ""),
        ("Activation", str(answer["activation"])),
        ("Trained", WAYS.get(answer["way"], str(answer["way"]))),
        (
            "Constants of training",
            ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in answer.get("settings", {}).items()),
        ),
        *fit["settings"],
    ]
    return {**fit, "settings": [(name, value) for name, value in settings if value]}


def _numbers(answer: Json) -> int:
    """Weights and biases: one per input and one more for each unit; none where the architecture is not known."""
    architecture = answer.get("architecture")
    layers: list[int] = [width for width in answer["layers"] if isinstance(width, int)]
    if architecture not in ARCHITECTURES or len(layers) < 2:
        return 0
    direct = layers[0] * layers[-1] if architecture == "wide-deep" and len(layers) > 2 else 0
    return direct + sum((before + 1) * after for before, after in pairwise(layers))


FIT_VIEWS: Final[Mapping[str, Callable[[Context], Pieces]]] = {
    "logistic": _logistic,
    "additive": _additive,
    "linear": _linear,
    "neural": _neural,
}
