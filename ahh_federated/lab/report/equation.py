"""The prediction equation of a model, written so that a reader can work it out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

from ahh_federated.lab.report.models import family_of
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
    """`left` is what it gives; `limits` say which values a measured column may have and from where it counts as a limit."""

    left: str
    parts: tuple[Part, ...]
    limits: tuple[str, ...]
    example: str


def equation(answer: Json, results: Json, names: Names) -> Equation:
    """The lines of the equation, the limits of its columns, and one made-up patient worked out."""
    written = answer["equation"]
    parts = [_part(written["intercept"], "")]
    parts += [_part(term["coefficient"], _times(term, names)) for term in written["terms"]]
    limits = [limit for term in written["terms"] if (limit := _limit(term, names))]
    left = "log-odds" if family_of(answer, names) == "binary" else names.with_unit(answer["outcome"])
    return Equation(left, tuple(parts), tuple(limits), _example(answer, results, names))


def _part(value: float, times: str) -> Part:
    return Part(MINUS if value < 0 else "+", plain(abs(rounded(value)), DIGITS), times)


def rounded(value: float, digits: int = DIGITS) -> float:
    """The coefficient as it is printed, so that the worked example is what a reader finds."""
    return float(f"{value:.{digits - 1}e}")


def risk_words(log_odds: float) -> str:
    return percent(1.0 / (1.0 + exp(-max(-700.0, min(700.0, log_odds)))))


def _factors(term: Json) -> list[Json]:
    """The term itself, and what it is multiplied by in a product of two."""
    return [term, term["by"]] if "by" in term else [term]


def _times(term: Json, names: Names) -> str:
    return " \u00d7 ".join(_factor(factor, names) for factor in _factors(term))


def _factor(factor: Json, names: Names) -> str:
    if factor["level"] is not None:
        return f"[{names.of(factor['column'])} is {factor['level']}]"
    return f"[{names.of(factor['column'])}]" if factor["column"] in names.cases else names.with_unit(factor["column"])


def _limit(term: Json, names: Names) -> str:
    """'birth weight from 0.5 to 5.5 kg, counted as 1.9 below 1.9 and as 4.9 above 4.9'; empty for a level or a product."""
    declared = names.columns.get(term["column"], {})
    if term["level"] is not None or "by" in term or "range" not in declared:
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
    """A patient at the reference levels and in the middle of each measured column, and what follows."""
    said: dict[str, str] = {}
    total = rounded(answer["equation"]["intercept"])
    means = means_of(results)
    for term in answer["equation"]["terms"]:
        value = rounded(term["coefficient"])
        for factor in _factors(term):
            middle = _middle(factor, means, names)
            said.setdefault(factor["column"], _said(factor, middle, answer, names))
            value *= middle or 0.0
        total += value
    patient = f"A made-up patient with {listing(list(said.values()))}" if said else "Every patient"
    if family_of(answer, names) != "binary":
        return f"{patient}: {names.of(answer['outcome'])} {plain(total, 4)} {unit_of(answer['outcome'], names)}".strip() + "."
    return f"{patient}: log-odds {fixed(total, 4)}, risk {risk_words(total)}."


def _said(factor: Json, middle: float | None, answer: Json, names: Names) -> str:
    column = factor["column"]
    if middle is None:
        return f"{names.of(column)} {answer.get('reference', {}).get(column, 'no')}"
    return f"{names.of(column)} {plain(middle)} {unit_of(column, names)}".strip()


def unit_of(column: str, names: Names) -> str:
    return str(names.columns.get(column, {}).get("unit") or "")


def _middle(factor: Json, means: Mapping[str, float], names: Names) -> float | None:
    """The released centre of the column, else its released mean, else the middle of its range; three digits; None for a level."""
    declared = names.columns.get(factor["column"], {})
    if factor["level"] is not None or "range" not in declared:
        return None
    limits: Sequence[float] = declared["range"]
    middle = factor.get("centre", means.get(factor["column"], sum(limits) / 2))
    low, high = factor.get("clip", limits)
    return float(f"{min(max(middle, low), high):.2e}")


def means_of(results: Json) -> dict[str, float]:
    found: dict[str, float] = {}
    for ask in results["asks"]:
        if ask["analysis"] == "moments" and ask["answer"] is not None:
            columns = ask["answer"]["columns"].items()
            found |= {name: column["mean"]["value"] for name, column in columns if is_released(column["mean"])}
    return found
