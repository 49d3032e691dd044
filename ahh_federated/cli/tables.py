"""Results and bills as terminal tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ahh_federated.lab.quoting import Quote


def bill(console: Console, quote: Quote) -> None:
    """What each ask costs, and the expected half-width of its numbers' 95 % intervals."""
    title = f"{quote.study}: the bill for one patient at one partner, at delta {quote.delta:g}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("ask", "queries"):
        table.add_column(heading, no_wrap=True)
    for heading in ("messages", "numbers", "epsilon alone"):
        table.add_column(heading, justify="right")
    for item in quote.items:
        queries = "\n".join(kind if times == 1 else f"{times} x {kind}" for kind, times in item.queries.items())
        table.add_row(item.ask, queries, str(item.messages), str(item.numbers), f"{item.epsilon:.3f}")
    table.add_section()
    messages = str(sum(item.messages for item in quote.items))
    table.add_row("all together", "", messages, "", f"{quote.total:.3f} of {quote.epsilon:g}")
    console.print(table)
    if any(item.errors for item in quote.items):
        console.print(_errors(quote))


def _errors(quote: Quote) -> Table:
    table = Table(title="Half of each 95 % interval, by patients a partner", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("ask", no_wrap=True)
    table.add_column("number")
    for patients in quote.items[0].errors:
        table.add_column(f"{patients:,}", justify="right", no_wrap=True)
    for item in quote.items:
        names: dict[str, None] = {name: None for errors in item.errors.values() for name in errors}
        for place, name in enumerate(names):
            halves = [errors.get(name, math.nan) for errors in item.errors.values()]
            shown = ("too few" if math.isnan(half) else f"{half:.2g}" for half in halves)
            table.add_row(item.ask if place == 0 else "", escape(name), *shown)
        table.add_section()
    table.caption = "one run on made-up patients; gaps and rarer outcomes make a model's real intervals wider"
    return table


def answers(console: Console, data: Mapping[str, Any]) -> None:
    """The model's odds ratios and its evaluation; the rest is in the report."""
    for ask in data["asks"]:
        if ask["status"] != "released":
            continue
        if ask["analysis"] == "logistic":
            console.print(_odds_ratios(ask))
        elif ask["analysis"] == "scores":
            console.print(_scores(ask))
        elif ask["analysis"] == "count":
            console.print(_counts(ask))


def _odds_ratios(ask: Mapping[str, Any]) -> Table:
    answer = ask["answer"]
    table = Table(title=escape(f"{ask['title']}: {answer['definition']}"), title_justify="left")
    for heading in ("term", "odds ratio", "95 % interval", "error from privacy", "error from sampling"):
        table.add_column(heading, justify="left" if heading == "term" else "right")
    for term in answer["terms"]:
        if term["column"] is not None:
            interval = f"{term['low']:.2f} to {term['high']:.2f}"
            table.add_row(
                escape(term["name"]),
                f"{term['odds_ratio']:.2f}",
                interval,
                f"{term['se_privacy']:.3f}",
                f"{term['se_sampling']:.3f}",
            )
    n, events = answer["n"], answer["events"]
    table.caption = f"{_whole(n)} patients, {_whole(events)} with the outcome; intervals include the privacy noise"
    return table


def _scores(ask: Mapping[str, Any]) -> Table:
    table = Table(title=escape(ask["title"]), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("partner", "AUROC", "slope", "O:E"):
        table.add_column(heading, justify="left" if heading == "partner" else "right", no_wrap=True)
    answer = ask["answer"]
    for name, score in [("all", answer["overall"]), *answer["partners"].items()]:
        if score["status"] != "released":
            table.add_row(escape(name), score["status"], "", "")
        else:
            table.add_row(escape(name), *(_interval(score[key]) for key in ("auroc", "calibration_slope", "observed_expected")))
    table.caption = "95 % intervals include the privacy noise; calibration slope and observed : expected are best at 1"
    return table


def _counts(ask: Mapping[str, Any]) -> Table:
    answer = ask["answer"]
    table = Table(title=escape(ask["title"]), title_justify="left")
    for name in answer["by"]:
        table.add_column(name)
    table.add_column("patients", justify="right")
    for cell in answer["cells"]:
        table.add_row(*map(escape, cell["levels"].values()), _whole(cell["overall"]))
    return table


def _interval(number: Mapping[str, Any]) -> str:
    if number["value"] is None:
        return str(number["status"])
    return f"{number['value']:.2f} ({number['low']:.2f}-{number['high']:.2f})"


def _whole(number: Mapping[str, Any]) -> str:
    if number["value"] is None:
        return str(number["status"])
    return f"{number['value']:,.0f} ± {number['high'] - number['value']:,.0f}"
