"""Which asks of a study fitted a model, which one a choice took, and which judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ahh_federated.lab.report.tables import NOT_KNOWN, Json, Names
from ahh_federated.lab.report.words import Kind

FITS: Final = ("logistic", "additive", "linear", "neural")


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of an evaluation: its key in the results, its name, how it is printed, the value that would be right."""

    key: str
    title: str
    kind: Kind
    right: float | None = None
    plotted: bool = False


_VALUES: Final = (
    Measure("r2", "R\N{SUPERSCRIPT TWO}", "three decimals", plotted=True),
    Measure("rmse", "Root mean squared error", "estimate"),
    Measure("mean_error", "Mean error", "estimate", 0.0, plotted=True),
    Measure("calibration_slope", "Calibration slope", "two decimals", 1.0, plotted=True),
)
_MEASURES: Final = {
    "binary": (
        Measure("auroc", "AUROC", "three decimals", plotted=True),
        Measure("observed_expected", "Observed / expected", "two decimals", 1.0, plotted=True),
        Measure("calibration_intercept", "Calibration intercept", "two decimals", 0.0),
        Measure("calibration_slope", "Calibration slope", "two decimals", 1.0, plotted=True),
        Measure("brier", "Brier score", "three decimals"),
    ),
    "levels": (
        Measure("accuracy", "Accuracy", "share", plotted=True),
        Measure("balanced_accuracy", "Balanced accuracy", "share", plotted=True),
    ),
    "continuous": _VALUES,
    "count": _VALUES,
}


def measures(family: str) -> Sequence[Measure]:
    """The figures of an evaluation, in the order of its table; none for a family that this report does not know."""
    return _MEASURES.get(family, ())


def family_of(answer: Json, names: Names) -> str:
    """What kind of outcome a model or an evaluation has; results made before there were families do not say."""
    if "family" in answer:
        return str(answer["family"])
    declared = names.columns.get(answer.get("outcome", ""), {})
    if "range" in declared:
        return "continuous"
    return "levels" if len(declared.get("levels", ())) > 2 else "binary"


def indicators(answer: Json, names: Names) -> bool | None:
    """Whether a value not known is a level of its own; None where the answer does not tell."""
    if "missing" in answer:
        return bool(answer["missing"] == "indicator")
    if "terms" not in answer:
        return None
    made = [term for term in answer["terms"] if term["level"] == NOT_KNOWN]
    return any(NOT_KNOWN not in names.columns.get(term["column"], {}).get("levels", ()) for term in made)


def answered(ask: Json) -> bool:
    return ask["status"] == "released" and ask["answer"] is not None


def fits(results: Json) -> list[Json]:
    """The asks that gave a model, in the study's order."""
    return [ask for ask in results["asks"] if ask["analysis"] in FITS and answered(ask)]


def choices(results: Json, fit: str) -> list[Json]:
    """The answered choices in which this model was a candidate."""
    found = [ask for ask in results["asks"] if ask["analysis"] == "select" and answered(ask)]
    return [ask for ask in found if fit in [candidate["ask"] for candidate in ask["answer"]["candidates"]]]


def on_model(results: Json, analysis: str, fit: str) -> list[Json]:
    """The answered asks of an analysis about this model, named directly or as what a choice took."""
    asks = [ask for ask in results["asks"] if ask["analysis"] == analysis and answered(ask)]
    return [ask for ask in asks if judged(results, ask)[0] == fit]


def headline(results: Json) -> tuple[Json | None, Json | None]:
    """The model that the first screen tells of, and the first evaluation of it.

    A model that was chosen goes before the others, and among those one that was evaluated goes first.
    """
    models = fits(results)
    chosen = [model for model in models if any(c["answer"]["chosen"] == model["id"] for c in choices(results, model["id"]))]
    for model in chosen or models:
        scores = on_model(results, "scores", model["id"])
        if scores:
            return model, scores[0]
    if models:
        return (chosen or models)[0], None
    return None, next((ask for ask in results["asks"] if ask["analysis"] == "scores" and answered(ask)), None)


def judged(results: Json, ask: Json) -> tuple[str, str | None]:
    """The id of the model that an answered ask is about, and the id of the selection that chose it, if any."""
    named = str(ask["answer"]["model"])
    chosen = {
        other["id"]: str(other["answer"]["chosen"])
        for other in results["asks"]
        if other["analysis"] == "select" and answered(other)
    }
    return (chosen[named], named) if named in chosen else (named, None)


def title_of(results: Json, ask: str) -> str:
    """The title of the ask with this id, or the id itself when the results do not hold it."""
    return next((str(other["title"]) for other in results["asks"] if other["id"] == ask), ask)


def place_of(results: Json, ask: str) -> int | None:
    """The number of the ask on the page, counted from 1."""
    return next((place for place, other in enumerate(results["asks"], start=1) if other["id"] == ask), None)
