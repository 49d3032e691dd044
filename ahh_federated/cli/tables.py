"""Results and bills as terminal tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ahh_federated.cli.model_tables import MODEL_TABLES, whole
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
        kinds = {kind.replace("+", "\n+ "): times for kind, times in item.queries.items()}  # of a stack, a line each
        queries = "\n".join(kind if times == 1 else f"{times} x {kind}" for kind, times in kinds.items())
        table.add_row(item.ask, queries, str(item.messages), str(item.numbers), f"{item.epsilon:.3f}")
    table.add_section()
    messages = str(sum(item.messages for item in quote.items))
    table.add_row("all together", "", messages, "", f"{quote.total:.3f} of {quote.epsilon:g}")
    if quote.alone is not None:
        table.caption = f"Epsilon {quote.alone:.3f} if nothing else is ever asked of these patients."
        table.caption_justify = "left"
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
    absent = ", ".join(item.ask for item in quote.items if not any(item.errors.values()))
    table.caption = "one run on made-up patients, a rough guide: gaps, rarer outcomes and other sizes change a model's intervals"
    if absent:
        table.caption += f"; not foretold, since it would take minutes or there are too few patients: {escape(absent)}"
    return table


def answers(console: Console, data: Mapping[str, Any]) -> None:
    """Counts, models and their evaluation; the rest is in the report."""
    for ask in data["asks"]:
        if ask["status"] == "released" and ask["analysis"] in _SHOWN:
            console.print(_SHOWN[ask["analysis"]](ask))


def _counts(ask: Mapping[str, Any]) -> Table:
    answer = ask["answer"]
    table = Table(title=escape(ask["title"]), title_justify="left")
    for name in answer["by"]:
        table.add_column(name)
    table.add_column("patients", justify="right")
    for cell in answer["cells"]:
        table.add_row(*map(escape, cell["levels"].values()), whole(cell["overall"]))
    return table


_SHOWN: Final[Mapping[str, Callable[[Mapping[str, Any]], Table]]] = {"count": _counts, **MODEL_TABLES}
