"""What the page shows for one ask: the pieces its template puts in order, by analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from markupsafe import Markup

from ahh_federated.lab.report import plots, tables
from ahh_federated.lab.report.card import card
from ahh_federated.lab.report.context import Context, Pieces
from ahh_federated.lab.report.models import FITS, answered
from ahh_federated.lab.report.plots import LEVELS, Panel, Row
from ahh_federated.lab.report.tables import ALL, Json, Names
from ahh_federated.lab.report.views_model import FIT_VIEWS
from ahh_federated.lab.report.views_scores import SCORE_VIEWS
from ahh_federated.lab.report.words import ANALYSES, is_released

ACROSS: Final = 3  # panels that stand beside one another on a printed page


def view(place: int, ask: Json, results: Json, names: Names) -> Pieces:
    """The ask itself, its template, who answered, and the pieces of its answer when there is one."""
    make = PIECES.get(ask["analysis"])
    template = f"answers/{ask['analysis'] if make else 'generic'}.html.j2"
    coverage = ask["coverage"]
    gave = [p for p in names.partners if coverage.get(p) == "released"]
    silent = [(p, coverage.get(p, "offline")) for p in names.partners if coverage.get(p) != "released"]
    kind = ANALYSES.get(ask["analysis"], str(ask["analysis"]))
    made: Pieces = {
        "place": place,
        "ask": ask,
        "kind": kind,
        "template": template,
        "gave": gave,
        "silent": silent,
        "card": None,
    }
    if answered(ask):
        context = Context(place, ask, results, names)
        made["pieces"] = (make or _generic)(context)
        if ask["analysis"] in FITS:
            made["card"] = card(context)
    return made


def _count(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    cells = answer["cells"]
    colours = _colours(answer)
    rows = [Row(tables.cell_name(cell), cell["overall"], colour=colour) for cell, colour in zip(cells, colours, strict=True)]
    what = names.groups(answer["by"])
    pair = len(answer["by"]) < 2
    label, width, each = f"Patients by {what} with 95% intervals", 430.0 if pair else 760.0, 34 if pair else 26
    plot = context.plot("count", label, width, 70.0 + each * len(rows))
    overall, partners = tables.count_tables(answer, context.coverage, names)
    return {
        "plot": Markup(plots.bars(plot, rows, "patients")),
        "overall": overall,
        "partners": partners,
        "by": what,
        "pair": pair,
    }


def _colours(answer: Json) -> list[str]:
    """One colour per level of the last column when there are two columns or more."""
    if len(answer["by"]) < 2:
        return [LEVELS[0]] * len(answer["cells"])
    last = [cell["levels"][answer["by"][-1]] for cell in answer["cells"]]
    order = list(dict.fromkeys(last))
    return [LEVELS[order.index(level) % len(LEVELS)] for level in last]


def _moments(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    columns = list(answer["columns"].items())
    drawn = []
    for start in range(0, len(columns), ACROSS):
        part = columns[start : start + ACROSS]
        panels = [
            Panel(
                names.with_unit(name, column["unit"]),
                [*_means(column, context), column["mean"]],
            )
            for name, column in part
        ]
        plot = context.forest(f"means{start}", "Mean at each partner", len(names.partners) + 1)
        drawn.append(Markup(plots.forest(plot, [*names.partners, ALL], panels)))
    overall, *partners = tables.moments_tables(answer, context.coverage, names)
    return {"plots": drawn, "overall": overall, "partners": partners}


def _means(column: Json, context: Context) -> list[Json]:
    given = {partner: moments["mean"] for partner, moments in column["partners"].items()}
    return [tables.at_partner(given, partner, context.coverage) for partner in context.names.partners]


def _histogram(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    what = names.with_unit(answer["column"], answer.get("unit"))
    label = f"Patients by {what} with 95% intervals"
    if "edges" in answer:
        plot = context.plot("histogram", label, 760.0, 300.0)
        drawn = plots.histogram(plot, answer["edges"], answer["overall"], what)
    else:
        rows = [Row(level, number) for level, number in zip(tables.bin_names(answer), answer["overall"], strict=True)]
        drawn = plots.bars(context.plot("histogram", label, height=70 + 34 * len(rows)), rows, "patients")
    hidden = sum(not is_released(number) for number in answer["overall"])
    table = tables.bins_table(answer, context.coverage, names)
    return {"plot": Markup(drawn), "what": what, "hidden": hidden, "table": table}


def _quantiles(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    what = names.with_unit(answer["column"], answer.get("unit"))
    rows: dict[str, Sequence[Json]] = {}
    for partner in names.partners:
        gap = tables.at_partner({}, partner, context.coverage)
        rows[partner] = answer["partners"].get(partner) or [gap]
    rows[ALL] = answer["overall"]
    plot = context.forest("quantiles", f"Quantiles of {what} at each partner", len(names.partners) + 1)
    drawn = plots.strips(plot, rows, answer["probabilities"], what)
    return {"plot": Markup(drawn), "what": what, "table": tables.bins_table(answer, context.coverage, names)}


def _generic(context: Context) -> Pieces:
    return {"table": tables.generic_table(context.answer)}


PIECES: Final[Mapping[str, Callable[[Context], Pieces]]] = {
    "count": _count,
    "moments": _moments,
    "histogram": _histogram,
    "quantiles": _quantiles,
    **FIT_VIEWS,
    **SCORE_VIEWS,
}
