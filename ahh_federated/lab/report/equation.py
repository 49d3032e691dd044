"""The prediction equation of a logistic model, written so that a reader can work it out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

from ahh_federated.lab.report.tables import Json, Names
from ahh_federated.lab.report.words import MINUS, fixed, is_released, listing, percent, plain

DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the equation: sign, size, and what it is multiplied by (nothing for the intercept)."""

    sign: str
    size: str
    times: str


@dataclass(frozen=True, slots=True)
class Equation:
    """`limits` say which values a measured column may have and from where it counts as a limit."""

    parts: tuple[Part, ...]
    limits: tuple[str, ...]
    example: str


def equation(answer: Json, results: Json, names: Names) -> Equation:
    """The lines of the equation, the limits of its columns, and one made-up patient worked out."""
    written = answer["equation"]
    parts = [_part(written["intercept"], "")]
    parts += [_part(term["coefficient"], _times(term, names)) for term in written["terms"]]
    limits = [limit for term in written["terms"] if (limit := _limit(term, names))]
    return Equation(tuple(parts), tuple(limits), _example(answer, results, names))


def _part(value: float, times: str) -> Part:
    return Part(MINUS if value < 0 else "+", plain(abs(rounded(value)), DIGITS), times)


def rounded(value: float) -> float:
    """The coefficient as it is printed, so that the worked example is what a reader finds."""
    return float(f"{value:.{DIGITS - 1}e}")


def _times(term: Json, names: Names) -> str:
    if term["level"] is not None:
        return f"[{names.of(term['column'])} is {term['level']}]"
    return f"[{names.of(term['column'])}]" if term["column"] in names.cases else names.with_unit(term["column"])


def _limit(term: Json, names: Names) -> str:
    """'birth weight from 0.5 to 5.5 kg, counted as 1.9 below 1.9 and as 4.9 above 4.9'; empty for a level."""
    declared = names.columns.get(term["column"], {})
    if term["level"] is not None or "range" not in declared:
        return ""
    low, high = declared["range"]
    text = f"{names.of(term['column'])} from {plain(low)} to {plain(high)} {declared.get('unit', '')}".strip()
    if "clip" not in term:
        return text
    least, most = (plain(value, 4) for value in term["clip"])
    below = f"as {least} below {least}" if term["clip"][0] > low else ""
    above = f"as {most} above {most}" if term["clip"][1] < high else ""
    return f"{text}, counted {listing([words for words in (below, above) if words])}" if below or above else text


def _example(answer: Json, results: Json, names: Names) -> str:
    """A patient at the reference levels and in the middle of each measured column, and the risk that follows."""
    said: dict[str, str] = {}
    logit = rounded(answer["equation"]["intercept"])
    means = _means(results)
    for term in answer["equation"]["terms"]:
        column = term["column"]
        declared = names.columns.get(column, {})
        if term["level"] is None and "range" in declared:
            middle = _middle(term, means.get(column), declared["range"])
            said[column] = f"{names.of(column)} {plain(middle)} {declared.get('unit', '')}".strip()
            logit += rounded(term["coefficient"]) * middle
        else:
            said[column] = f"{names.of(column)} {answer['reference'].get(column, 'no')}"
    risk = 1.0 / (1.0 + exp(-max(-700.0, min(700.0, logit))))
    patient = f"A made-up patient with {listing(list(said.values()))}" if said else "Every patient"
    return f"{patient}: log-odds {fixed(logit, 4)}, risk {percent(risk)}."


def _middle(term: Json, mean: float | None, declared: Sequence[float]) -> float:
    """The released centre of the column, else its released mean, else the middle of its range; three digits."""
    middle = term.get("centre", mean if mean is not None else sum(declared) / 2)
    low, high = term.get("clip", declared)
    return float(f"{min(max(middle, low), high):.2e}")


def _means(results: Json) -> dict[str, float]:
    found: dict[str, float] = {}
    for ask in results["asks"]:
        if ask["analysis"] == "moments" and ask["answer"] is not None:
            columns = ask["answer"]["columns"].items()
            found |= {name: column["mean"]["value"] for name, column in columns if is_released(column["mean"])}
    return found
