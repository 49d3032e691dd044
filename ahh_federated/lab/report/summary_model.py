"""What the first screen says of the model of a study and of its evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ahh_federated.lab.report.models import family_of, fits, headline, indicators, measures
from ahh_federated.lab.report.tables import Json, Names
from ahh_federated.lab.report.words import (
    Number,
    Shown,
    bounded,
    count_of,
    fixed,
    has_interval,
    is_released,
    listing,
    quoted,
    ratio_of,
    shown,
)

LEADING: Final = {  # the one figure of each family that the first screen shows, and how it is read there
    "binary": ("auroc", "AUROC (0.5 is chance)"),
    "levels": ("balanced_accuracy", "Balanced accuracy"),
    "continuous": ("r2", "R\N{SUPERSCRIPT TWO} (1 is perfect)"),
    "count": ("r2", "R\N{SUPERSCRIPT TWO} (1 is perfect)"),
}


def model_sentences(results: Json, names: Names) -> list[str]:
    """How the model was fitted and how well it works, each sentence from a number that was released."""
    fit, scores = headline(results)
    said = [*_fitted(fit["answer"], fit["analysis"], names)] if fit else []
    others = len(fits(results)) - 1
    if said and fit and others > 0:
        said.append(f"This is the model of {quoted(fit['title'])}; the study fitted {count_of(others, 'other')} besides.")
    if scores is None:
        return [*said, "The results hold no evaluation of it."] if said else said
    return [*said, *_evaluated(scores["answer"], names)]


def model_figures(results: Json, names: Names) -> Iterator[tuple[str, Shown]]:
    """Large figures: the share with the outcome, and how well the model works."""
    fit, scores = headline(results)
    answer = fit["answer"] if fit else {}
    events = ratio_of(answer["events"], answer["n"]) if answer.get("events") and answer.get("n") else None
    if events:
        label = names.of(answer["outcome"])
        yield label[:1].upper() + label[1:], shown(events, "share")
    if scores is None:
        return
    family = family_of(scores["answer"], names)
    if family in LEADING:
        key, label = LEADING[family]
        number = scores["answer"]["overall"].get(key)
        if is_released(number):
            yield label, shown(number, next(figure.kind for figure in measures(family) if figure.key == key))


KINDS: Final = {
    "additive": "An additive model",
    "linear": "A linear regression",
    "neural": "A neural network",
}


def _fitted(model: Json, analysis: str, names: Names) -> Iterator[str]:
    if not is_released(model.get("n")):
        return
    family = family_of(model, names)
    what = KINDS.get(analysis, "A risk model" if family == "binary" else "A model")
    size = shown(model["n"], "count")
    text = f"{what} for {quoted(names.of(model['outcome']))} was fitted to {size.main} patients"
    share = ratio_of(model["events"], model["n"]) if model.get("events") else None
    if share is not None:
        number = shown(share, "share")
        text += f", of whom {number.main} had the outcome ({number.interval})"
    complete = model.get("complete")
    if complete is not None and is_released(complete):
        known = "the outcome was" if indicators(model, names) else "every characteristic and the outcome were"
        text += f"; {known} known for {shown(complete, 'share').main} of the patients it could have used"
    yield text + "."


def _evaluated(scores: Json, names: Names) -> Iterator[str]:
    family = family_of(scores, names)
    overall = scores["overall"]
    if family == "binary":
        yield from _pairs(overall.get("auroc"))
        yield from _expected(overall.get("observed_expected"))
        yield from _slope(overall.get("calibration_slope"), "Its risks are")
    elif family == "levels":
        yield from _right(overall)
    else:
        yield from _explained(overall, scores, names)
        yield from _slope(overall.get("calibration_slope"), "Its values are")
    yield from _spread(scores, family, names)


def _pairs(auroc: Number | None) -> Iterator[str]:
    if auroc is not None and is_released(auroc):
        number, pairs = shown(auroc, "three decimals"), round(100 * bounded(auroc))
        span = f", {number.interval}" if number.interval else ""
        yield (
            f"Take one patient with the outcome and one without: in {pairs} of 100 such pairs the model "
            f"gives the higher risk to the right one (AUROC {number.main}{span}; chance gives 50)."
        )


def _right(overall: Json) -> Iterator[str]:
    accuracy, balanced = overall.get("accuracy"), overall.get("balanced_accuracy")
    if accuracy is not None and is_released(accuracy):
        right, span = fixed(100 * bounded(accuracy), 0), shown(accuracy, "share").interval
        text = f"It names the right level for {right} of 100 patients" + (f" ({span})" if span else "")
        if balanced is not None and is_released(balanced):
            text += f"; with every level counting the same, {shown(balanced, 'share')}"
        yield text + "."


def _explained(overall: Json, scores: Json, names: Names) -> Iterator[str]:
    r2, rmse = overall.get("r2"), overall.get("rmse")
    if r2 is None or not is_released(r2):
        return
    text = f"It explains {shown(r2, 'share')} of the differences in {names.of(scores['outcome'])} between patients"
    if rmse is not None and is_released(rmse):
        text += f"; its typical error is {shown(rmse).main} {scores.get('unit') or ''}".rstrip()
    yield text + "."


def _expected(ratio: Number | None) -> Iterator[str]:
    if ratio is None or not is_released(ratio):
        return
    text = f"For every 100 cases it predicted, {fixed(100 * ratio['value'], 0)} were seen"
    low, high = ratio.get("low"), ratio.get("high")
    if low is None or high is None:
        yield text + "."
        return
    judgement = (
        "too low"
        if round(100 * low) > 100
        else "too high"
        if round(100 * high) < 100
        else "neither clearly too low nor clearly too high"
    )
    yield f"{text} ({fixed(100 * low, 0)} to {fixed(100 * high, 0)}): on average its risks are {judgement}."


def _slope(slope: Number | None, subject: str) -> Iterator[str]:
    if slope is not None and has_interval(slope) and not slope["low"] <= 1 <= slope["high"]:
        judgement = "too extreme" if slope["high"] < 1 else "not extreme enough"
        yield f"{subject} {judgement} (calibration slope {shown(slope, 'two decimals').main}; 1 would be right)."


def _spread(scores: Json, family: str, names: Names) -> Iterator[str]:
    """Whether single partners differ from all together, judged by their intervals and not by their noisy values."""
    if family not in LEADING:
        return
    key = LEADING[family][0]
    title = next(figure.title for figure in measures(family) if figure.key == key)
    title = title if title.startswith(("AUROC", "R")) else title.lower()
    overall = scores["overall"].get(key)
    given = {p: scores["partners"].get(p, {}).get(key) for p in names.partners}
    each = {p: number for p, number in given.items() if number is not None and has_interval(number)}
    if len(each) < 2 or overall is None or not has_interval(overall):
        return
    other = [p for p, number in each.items() if number["low"] > overall["high"] or number["high"] < overall["low"]]
    text = f"It was checked at each of {count_of(len(each), 'partner')}: "
    text += f"{title} differs clearly at {listing(other)}" if other else f"at none of them does {title} differ clearly"
    few = [p for p in names.partners if scores["partners"].get(p, {}).get("status") == "too few"]
    yield text + (f"; {listing(few)} had too few patients for the noise." if few else ".")
