"""The first screen of a report: what was found, in sentences and a few figures, computed from the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp

from ahh_federated.lab.report.summary_model import model_figures, model_sentences
from ahh_federated.lab.report.tables import Json, Names
from ahh_federated.lab.report.words import (
    Number,
    Shown,
    count_of,
    fixed,
    is_released,
    listing,
    percent,
    plain,
    quoted,
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
        model_sentences(results, names),
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
    made += [Figure(label, *_pair(number)) for label, number in model_figures(results, names)]
    privacy = results["privacy"]
    made.append(
        Figure(
            "Privacy cost at each partner",
            f"\u03b5 = {plain(privacy['epsilon'])}",
            f"\u03b4 = {delta_words(privacy['delta'])}",
        )
    )
    return made


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


def _pair(number: Shown) -> tuple[str, str]:
    return (number.status or number.main), number.interval


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


def _missing(results: Json) -> Iterator[str]:
    unanswered: Sequence[str] = [quoted(ask["title"]) for ask in results["asks"] if ask["status"] != "released"]
    if unanswered:
        yield f"Not answered: {listing(unanswered)}."


def _privacy(results: Json) -> str:
    privacy = results["privacy"]
    bound = guess_bound(privacy["epsilon"], privacy["delta"])
    if results["stamp"]:
        return f"This run is marked {quoted(results['stamp'])}: its numbers carry no promise of privacy."
    return (
        f"No patient's record left a partner, and what a partner sent is blurred by noise: somebody who knew everything "
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
