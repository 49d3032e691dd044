"""Models, and what is said of them, as terminal tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rich import box
from rich.markup import escape
from rich.table import Table

Ask = Mapping[str, Any]
FIGURES: Final[Mapping[str, Mapping[str, str]]] = {
    "binary": {"AUROC": "auroc", "slope": "calibration_slope", "O:E": "observed_expected"},
    "levels": {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"},
    "continuous": {"R2": "r2", "RMSE": "rmse", "slope": "calibration_slope"},
    "count": {"R2": "r2", "RMSE": "rmse", "slope": "calibration_slope"},
}


def _compact(ask: Ask, *headings: str) -> Table:
    table = Table(title=escape(ask["title"]), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def _odds_ratios(ask: Ask) -> Table:
    answer = ask["answer"]
    table = Table(title=escape(f"{ask['title']}: {answer['definition']}"), title_justify="left")
    for heading in ("term", "odds ratio", "95 % interval", "error from privacy", "error from sampling"):
        table.add_column(heading, justify="left" if heading == "term" else "right")
    for term in answer["terms"]:
        if term["column"] is not None:
            digits = _digits(math.hypot(term["se_privacy"], term["se_sampling"]))
            interval = f"{term['low']:.{digits}f} to {term['high']:.{digits}f}"
            errors = (f"{term[error]:.{digits + 1}f}" for error in ("se_privacy", "se_sampling"))
            table.add_row(escape(term["name"]), f"{term['odds_ratio']:.{digits}f}", interval, *errors)
    table.caption = _patients(answer)
    return table


def _digits(error: float) -> int:
    """Decimals of an odds ratio with this error of its logarithm: two, or as many as tell the ends of its interval apart."""
    return min(1 - math.floor(math.log10(max(error, 1e-9))), 9) if error < 0.005 else 2


def _coefficients(ask: Ask) -> Table:
    answer = ask["answer"]
    table = _compact(ask, "term", "coefficient", "95 % interval")
    for term in answer["terms"]:
        if term["column"] is not None:
            interval = f"{term['low']:.3g} to {term['high']:.3g}"
            table.add_row(escape(term["name"]), f"{term['coefficient']:.3g}", interval)
    table.caption = _patients(answer)
    return table


def _curves(ask: Ask) -> Table:
    """Each curve at its bends, beside the band; the report draws it."""
    answer = ask["answer"]
    effect = "log_odds" if answer["family"] == "binary" else "value"
    table = _compact(ask, "curve", "at", "log odds" if effect == "log_odds" else "effect", "95 % band")
    for name, curve in answer["curves"].items():
        for place, (at, value, low, high) in enumerate(zip(curve["at"], curve[effect], curve["low"], curve["high"], strict=True)):
            shown = escape(f"{name.replace('_', ' ')} ({curve['unit']})") if place == 0 else ""
            table.add_row(shown, f"{at:.3g}", f"{value:.2f}", f"{low:.2f} to {high:.2f}")
    table.caption = f"{_patients(answer)}. {answer['notes'][0]}"
    return table


def _network(ask: Ask) -> Table:
    answer = ask["answer"]
    table = _compact(ask, "layers", "activation", "messages")
    table.add_row(" - ".join(map(str, answer["layers"])), answer["activation"], str(answer["rounds"]))
    table.caption = _patients(answer).partition(";")[0]
    return table


def _patients(answer: Mapping[str, Any]) -> str:
    events = f", {whole(answer['events'])} with the outcome" if answer.get("events") else ""
    return f"{whole(answer['n'])} patients{events}; intervals include the privacy noise"


def _scores(ask: Ask) -> Table:
    answer = ask["answer"]
    figures = FIGURES[answer.get("family", "binary")]
    table = _compact(ask, "partner", *figures)
    for name, score in _parts(answer):
        if score["status"] != "released":
            table.add_row(escape(name), score["status"])
        else:
            table.add_row(escape(name), *(interval(score[key]) for key in figures.values()))
    best = "; calibration slope and observed : expected are best at 1" if "O:E" in figures else ""
    table.caption = f"95 % intervals include the privacy noise{best}"
    return table


def _parts(answer: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "all", answer["overall"]
    yield from answer["partners"].items()
    for each in answer.get("subgroups", ()):
        yield ", ".join(f"{column}: {level}" for column, level in each["group"].items()), each


def _selection(ask: Ask) -> Table:
    answer = ask["answer"]
    table = _compact(ask, "model", "loss", "")
    for each in answer["candidates"]:
        table.add_row(escape(each["ask"]), interval(each["loss"], 3), "chosen" if each["ask"] == answer["chosen"] else "")
    table.caption = "the smaller the better; where intervals overlap, noise alone may have chosen; every candidate was paid for"
    return table


def _recalibration(ask: Ask) -> Table:
    answer = ask["answer"]
    table = _compact(ask, "partner", "intercept", "slope", "to use")
    for name, each in [("all", answer["overall"]), *answer["partners"].items()]:
        found = each["status"] == "released"
        shown = [interval(each[key]) for key in ("intercept", "slope")] if found else [each["status"], ""]
        used = f"{each['used']['intercept']:.2f}, {each['used']['slope']:.2f}" if "used" in each else ""
        table.add_row(escape(name), *shown, used)
    table.caption = "to use: drawn towards that of all partners, and this towards no change (0, 1), as far as errors ask"
    return table


def interval(number: Mapping[str, Any], digits: int = 2) -> str:
    """A number with its 95 % interval, or why there is none."""
    if number["value"] is None:
        return str(number["status"])
    between = " to " if number["low"] < 0 else "-"
    return f"{number['value']:.{digits}f} ({number['low']:.{digits}f}{between}{number['high']:.{digits}f})"


def whole(number: Mapping[str, Any]) -> str:
    """A number of patients and half of its 95 % interval."""
    if number["value"] is None:
        return str(number["status"])
    return f"{number['value']:,.0f} ± {number['high'] - number['value']:,.0f}"


MODEL_TABLES: Final[Mapping[str, Callable[[Ask], Table]]] = {
    "logistic": _odds_ratios,
    "linear": _coefficients,
    "additive": _curves,
    "neural": _network,
    "scores": _scores,
    "select": _selection,
    "recalibration": _recalibration,
}
