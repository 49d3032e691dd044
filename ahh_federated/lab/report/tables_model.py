"""The tables of models: coefficients and curves, evaluations, choices, recalibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Final

from ahh_federated.lab.report.models import Measure, family_of, measures, title_of
from ahh_federated.lab.report.tables import ALL, Json, Line, Names, Table
from ahh_federated.lab.report.words import (
    MISSING,
    Kind,
    Number,
    Shown,
    fixed,
    p_value,
    percent,
    plain,
    shown,
    usable,
)

EVERYBODY: Final = "All patients"
CURVE_LINES: Final = 12


def characteristics(answer: Json) -> list[Json]:
    """The terms of a model without its intercept, whose exponential is no odds ratio."""
    return [term for term in answer["terms"] if term["column"] is not None]


def odds_table(answer: Json) -> Table:
    ratios = [(term, {**term, "value": term["odds_ratio"], "status": "released"}) for term in characteristics(answer)]
    return _effects("Odds ratios, each adjusted for all others", "Odds ratio", "ratio", ratios)


def linear_table(answer: Json, outcome: str) -> Table:
    """`outcome` with its unit: what one more of each characteristic adds."""
    added = [(term, {**term, "value": term["coefficient"], "status": "released"}) for term in characteristics(answer)]
    return _effects("What each characteristic adds, adjusted for all others", f"Adds to {outcome}", "estimate", added)


def _effects(caption: str, head: str, kind: Kind, effects: Sequence[tuple[Json, Number]]) -> Table:
    lines = []
    for term, effect in effects:
        known = usable(term["se"]) and usable(term["se_privacy"]) and term["se"] > 0
        private = percent((term["se_privacy"] / term["se"]) ** 2, 2) if known else MISSING
        lines.append(Line(term["name"], (shown(effect, kind), Shown(p_value(term["p"])), Shown(private))))
    return Table(caption, ("Characteristic", head, "p", "Uncertainty due to privacy"), tuple(lines))


def curve_table(column: str, given: Json, up: str, names: Names) -> Table:
    """A line per point of a curve; of many points every second, third ... and the last."""
    odds = "log_odds" in given
    every = -(-len(given["at"]) // CURVE_LINES)
    lines = []
    for place, at in enumerate(given["at"]):
        if place % every and place != len(given["at"]) - 1:
            continue
        ends = {key: given[key][place] for key in ("low", "high")} | {"value": given["log_odds" if odds else "value"][place]}
        number = {key: exponential(end) if odds else end for key, end in ends.items()}
        lines.append(Line(plain(at, 4), (shown({**number, "status": "released"}, "ratio" if odds else "estimate"),)))
    caption = f"{names.of(column)}: {'odds ratio' if odds else 'what it adds'}"
    return Table(caption, (names.with_unit(column, given.get("unit")), up), tuple(lines))


def exponential(value: float | None) -> float | None:
    """An odds ratio from its logarithm; what is too large for a number is left there."""
    return None if value is None else exp(min(value, 700.0))


def scores_table(answer: Json, coverage: Mapping[str, str], names: Names) -> Table:
    """A line per partner."""
    return score_lines("How well the model does at each partner", "Partner", answer, scores_of(answer, coverage, names), names)


def subgroups_table(answer: Json, names: Names) -> Table:
    """A line per declared subgroup, over all partners."""
    each = [*subgroups_of(answer, names), (EVERYBODY, answer["overall"])]
    return score_lines(
        "How well the model does in each declared subgroup, all partners together", "Subgroup", answer, each, names
    )


def score_lines(caption: str, corner: str, answer: Json, each: Sequence[tuple[str, Json]], names: Names) -> Table:
    """A line per score, a column per figure; patients come first where the scores count them.

    A head with an empty score is the heading of those after it.
    """
    figures = measures(family_of(answer, names))
    counted = any("n" in score for _, score in each)
    lines = []
    for head, score in each:
        if not score:
            lines.append(Line(head, ()))
            continue
        cells = [shown(score_number(score, figure.key), figure.kind) for figure in figures]
        if counted:
            cells.insert(0, shown(score_number(score, "n"), "count"))
        lines.append(Line(head, tuple(cells), strong=head in (ALL, EVERYBODY)))
    heads = (corner, *(["Patients"] if counted else []), *(measured(figure, answer) for figure in figures))
    return Table(caption, heads, tuple(lines))


def measured(figure: Measure, answer: Json) -> str:
    """The name of a figure, with the outcome's unit where it has one."""
    unit = answer.get("unit") if figure.key in ("rmse", "mean_error") else None
    return f"{figure.title} ({unit})" if unit else figure.title


def scores_of(answer: Json, coverage: Mapping[str, str], names: Names) -> list[tuple[str, Json]]:
    """Each partner's score, or the status it has in place of one; all partners together come last."""
    each = [(p, answer["partners"].get(p) or {"status": coverage.get(p, MISSING)}) for p in names.partners]
    return [*each, (ALL, answer["overall"])]


def subgroups_of(answer: Json, names: Names) -> list[tuple[str, Json]]:
    """Each declared subgroup's score, as 'sex: girl'; none in results made before there were subgroups."""
    return [(_group(score["group"], names), score) for score in answer.get("subgroups", ())]


def _group(group: Mapping[str, str], names: Names) -> str:
    return ", ".join(f"{names.of(column)}: {level}" for column, level in group.items())


def score_number(score: Json, key: str) -> Number:
    """One number of a score; the score's own status where it holds none."""
    return score[key] if key in score else {"value": None, "status": score["status"]}


def calibration_table(answer: Json) -> Table:
    lines = tuple(Line(percent(point["predicted"]), (shown(point["observed"], "share"),)) for point in answer["calibration"])
    return Table("Predicted and observed risk", ("Mean predicted risk", "Observed"), lines)


def threshold_table(answer: Json) -> Table:
    """Net benefit of the model and of treating all, with sensitivity and PPV where these are given."""
    each = {step["threshold"]: step for step in answer["overall"].get("decision", ())}
    lines = []
    for point in answer["decision"]:
        step = each.get(point["threshold"], {})
        benefits = [shown(point[key], "three decimals") for key in ("model", "all")]
        cells = [*benefits, shown(step.get("sensitivity"), "share")]
        lines.append(Line(percent(point["threshold"]), (*cells, shown(step.get("ppv"), "share"))))
    heads = ("Risk threshold", "Net benefit, model", "Net benefit, treat all")
    shares = ("Sensitivity: flagged, of those with the outcome", "PPV: with the outcome, of those flagged")
    return Table("What each threshold would mean", (*heads, *shares), tuple(lines))


def roc_table(answer: Json) -> Table:
    lines = tuple(Line(fixed(p["fpr"], 3), (Shown(fixed(p["tpr"], 3)),)) for p in answer["roc"])
    return Table("Points of the ROC curve", ("Flagged in error (1 \u2212 specificity)", "Found (sensitivity)"), lines)


def confusion_table(answer: Json) -> Table:
    """A line per true level, a column per level that the model finds likeliest."""
    lines = tuple(
        Line(true, tuple(shown(answer["confusion"][true][chosen], "count") for chosen in answer["levels"]))
        for true in answer["levels"]
    )
    heads = ("Truly", *(f"Model says {level}" for level in answer["levels"]))
    return Table("Patients by true level and by the level the model finds likeliest", heads, lines)


def levels_table(answer: Json) -> Table:
    """Sensitivity and PPV of each level; the reason where there are none."""
    lines = tuple(Line(level, tuple(level_number(answer, key, level) for key in LEVEL_SHARES)) for level in answer["levels"])
    shares = ("Sensitivity: found, of those who truly have it", "PPV: truly have it, of those the model names")
    return Table("How well the model knows each level", ("Level", *shares), lines)


LEVEL_SHARES: Final = ("sensitivity", "ppv")


def level_share(answer: Json, key: str, level: str) -> Number:
    overall = answer["overall"]
    return overall[key][level] if key in overall else {"value": None, "status": overall["status"]}


def level_number(answer: Json, key: str, level: str) -> Shown:
    return shown(level_share(answer, key, level), "share")


def candidates_table(answer: Json, results: Json) -> Table:
    """A line per candidate, the chosen one strong."""
    lines = []
    for candidate in answer["candidates"]:
        chosen = candidate["ask"] == answer["chosen"]
        cells = (shown(candidate["loss"]), Shown("chosen" if chosen else "\N{EN DASH}"))
        lines.append(Line(title_of(results, candidate["ask"]), cells, strong=chosen))
    return Table("The candidates and their loss", ("Model", "Mean loss", ""), tuple(lines))


RECALIBRATED: Final = ("intercept", "slope")


def recalibration_table(answer: Json, coverage: Mapping[str, str], names: Names) -> Table:
    """Estimates with intervals, then what a partner uses: its own drawn towards that of all, and this towards no change."""
    lines = []
    for partner, each in scores_of(answer, coverage, names):
        cells = [shown(score_number(each, key), "two decimals") for key in RECALIBRATED]
        used = each.get("used")
        inside = [Shown(plain(used[key], 4)) if used else Shown("\N{EN DASH}") for key in RECALIBRATED]
        lines.append(Line(partner, (*cells, *inside), strong=partner == ALL))
    heads = ("Partner", "Intercept, estimated", "Slope, estimated", "Intercept, used", "Slope, used")
    return Table("Intercept and slope of the model at each partner", heads, tuple(lines))
