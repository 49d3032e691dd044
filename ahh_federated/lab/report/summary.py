"""The first screen of a report: what was found, in sentences and a few figures, computed from the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from ahh_federated.lab.report.tables import Json, Names
from ahh_federated.lab.report.words import (
    Number,
    Shown,
    bounded,
    count_of,
    fixed,
    is_released,
    listing,
    percent,
    plain,
    ratio_of,
    shown,
    status_words,
    total,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One large figure with what it counts and a line of small print."""

    label: str
    value: str
    note: str


def summary(results: Json, names: Names) -> list[str]:
    """Paragraphs for somebody who reads nothing else: who and what, how well it works, what it cost."""
    paragraphs = (
        [*_who(results), *_patients(results), *_missing(results)],
        [*_model(results, names), *_evaluation(results, names)],
        [_privacy(results)],
    )
    return [" ".join(sentences) for sentences in paragraphs if sentences]


def figures(results: Json, names: Names) -> list[Figure]:
    partners = results["partners"]
    took_part = sum(partner["status"] == "released" for partner in partners)
    made = [Figure("Partners", f"{took_part} of {len(partners)}", "gave results")]
    counted = patients(results)
    if counted is not None:
        made.append(Figure("Patients", *_pair(shown(counted, "count"))))
    model, scores = first(results, "logistic"), first(results, "scores")
    events = ratio_of(model["events"], model["n"]) if model else None
    if model and events:
        made.append(Figure(_capital(names.of(model["outcome"])), *_pair(shown(events, "share"))))
    if scores and is_released(scores["overall"].get("auroc")):
        made.append(Figure("AUROC (0.5 is chance)", *_pair(shown(scores["overall"]["auroc"], "three decimals"))))
    privacy = results["privacy"]
    made.append(
        Figure(
            "Privacy cost at each partner",
            f"\u03b5 = {plain(privacy['epsilon'])}",
            f"\u03b4 = {delta_words(privacy['delta'])}",
        )
    )
    return made


def first(results: Json, analysis: str) -> Mapping[str, Any] | None:
    """The first released answer of this analysis."""
    for ask in results["asks"]:
        if ask["analysis"] == analysis and ask["status"] == "released" and ask["answer"] is not None:
            return dict(ask["answer"])
    return None


def patients(results: Json) -> Number | None:
    """Everybody counted, from the first released count without a filter; withheld cells are left out."""
    for ask in results["asks"]:
        if ask["analysis"] == "count" and ask["where"] is None and ask["answer"] is not None:
            return total([cell["overall"] for cell in ask["answer"]["cells"] if is_released(cell["overall"])])
    return None


def delta_words(delta: float) -> str:
    """'1 in 1,000,000'."""
    return f"1 in {fixed(round(1 / delta), 0)}" if delta > 0 else "0"


def _bare(status: str) -> str:
    """The words of a status without brackets of their own."""
    return status_words(status).replace(" (", ", ").removesuffix(")")


def quoted(text: str) -> str:
    return f"\u201c{text}\u201d"


def _pair(number: Shown) -> tuple[str, str]:
    return (number.status or number.main), number.interval


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _who(results: Json) -> Iterator[str]:
    partners, study = results["partners"], results["study"]
    gave = [partner["name"] for partner in partners if partner["status"] == "released"]
    took_part = "all" if len(gave) == len(partners) else str(len(gave))
    yield (
        f"{study['organisation']} put {count_of(len(results['asks']), 'question')} to "
        f"{count_of(len(partners), 'partner')}; {took_part} of them gave results."
    )
    without = [f"{p['name']} ({_bare(p['status'])})" for p in partners if p["status"] != "released"]
    if without:
        yield f"Without results: {listing(without)}."


def _patients(results: Json) -> Iterator[str]:
    counted = patients(results)
    if counted is not None:
        number = shown(counted, "count")
        yield (
            f"Together the partners know {number.main} patients (95% interval {number.interval}), "
            "a patient known to two partners being counted twice."
        )


def _model(results: Json, names: Names) -> Iterator[str]:
    model = first(results, "logistic")
    if model is None or not is_released(model["n"]):
        return
    outcome, size = quoted(names.of(model["outcome"])), shown(model["n"], "count")
    text = f"A risk model for {outcome} was fitted to {size.main} patients"
    share = ratio_of(model["events"], model["n"])
    if share is not None:
        number = shown(share, "share")
        text += f", of whom {number.main} had the outcome ({number.interval})"
    complete = model["complete"]
    if complete is not None and is_released(complete):
        text += f"; every characteristic was known for {shown(complete, 'share').main} of the patients it could have used"
    yield text + "."


def _evaluation(results: Json, names: Names) -> Iterator[str]:
    scores = first(results, "scores")
    if scores is None:
        return
    auroc = scores["overall"].get("auroc")
    if is_released(auroc):
        number, pairs = shown(auroc, "three decimals"), round(100 * bounded(auroc))
        span = f", {number.interval}" if number.interval else ""
        yield (
            f"Take one patient with the outcome and one without: in {pairs} of 100 such pairs the model "
            f"gives the higher risk to the right one (AUROC {number.main}{span}; chance gives 50)."
        )
    yield from _expected(scores["overall"].get("observed_expected"))
    yield from _slope(scores["overall"].get("calibration_slope"))
    yield from _spread(scores, names)


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


def _slope(slope: Number | None) -> Iterator[str]:
    low, high = (slope.get("low"), slope.get("high")) if slope is not None and is_released(slope) else (None, None)
    if low is not None and high is not None and not low <= 1 <= high:
        judgement = "too extreme" if high < 1 else "not extreme enough"
        yield f"Its risks are {judgement} (calibration slope {shown(slope, 'two decimals').main}; 1 would be right)."


def _spread(scores: Json, names: Names) -> Iterator[str]:
    """Whether single partners differ from all together, judged by their intervals and not by their noisy values."""
    overall = scores["overall"].get("auroc")
    given = {p: scores["partners"].get(p, {}).get("auroc") for p in names.partners}
    each = {p: number for p, number in given.items() if number is not None and _has_interval(number)}
    if len(each) < 2 or not is_released(overall):
        return
    if not _has_interval(overall):
        return
    other = [p for p, number in each.items() if number["low"] > overall["high"] or number["high"] < overall["low"]]
    text = f"It was checked at each of {count_of(len(each), 'partner')}: "
    text += f"AUROC differs clearly at {listing(other)}" if other else "at none of them does AUROC differ clearly"
    few = [p for p in names.partners if scores["partners"].get(p, {}).get("status") == "too few"]
    yield text + (f"; {listing(few)} had too few patients to say." if few else ".")


def _has_interval(number: Number) -> bool:
    return is_released(number) and number.get("low") is not None and number.get("high") is not None


def _missing(results: Json) -> Iterator[str]:
    unanswered: Sequence[str] = [quoted(ask["title"]) for ask in results["asks"] if ask["status"] != "released"]
    if unanswered:
        yield f"Not answered: {listing(unanswered)}."


def _privacy(results: Json) -> str:
    privacy = results["privacy"]
    bound = guess_bound(privacy["epsilon"], privacy["delta"])
    if results["stamp"]:
        return f"This run is marked {quoted(results['stamp'])}: its numbers carry no promise of privacy."
    left = "the sum over partners" if privacy["noise"] == "shared" else "what a partner sent"
    return (
        f"No patient's record left a partner, and {left} is blurred by noise: somebody who knew everything "
        f"else, and was to guess whether one given patient is in it, would be right at most {percent(bound)} "
        "of the time; a coin toss is right 50% of the time."
    )


def guess_bound(epsilon: float, delta: float) -> float:
    """Best chance of guessing whether one patient is in the data, from even odds, under (epsilon, delta)-DP.

    (e^epsilon + delta) / (e^epsilon + 1), because the two error rates add up to at least
    2 (1 - delta) / (e^epsilon + 1): Kairouz, Oh and Viswanath, "The composition theorem for differential
    privacy", ICML 2015, section 2.
    """
    odds = exp(min(epsilon, 700.0))
    return min(1.0, (odds + delta) / (odds + 1.0))
