"""What the page shows for one ask: the pieces its template puts in order, by analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from ahh_federated.lab.report import plots, plots_model, tables
from ahh_federated.lab.report.equation import equation
from ahh_federated.lab.report.plots import LEVELS, Panel, Plot, Row
from ahh_federated.lab.report.tables import ALL, Json, Names
from ahh_federated.lab.report.words import is_released, ratio_of

Pieces = dict[str, Any]
KINDS: Final[Mapping[str, str]] = {
    "count": "Counts",
    "moments": "Means and standard deviations",
    "histogram": "Histogram",
    "quantiles": "Quantiles",
    "logistic": "Logistic regression",
    "scores": "Evaluation of a risk model",
}
ACROSS: Final = 3  # panels that stand beside one another on a printed page


@dataclass(frozen=True, slots=True)
class Context:
    """An ask and what its pieces need of the other results; `place` makes names unique on the page."""

    place: int
    ask: Json
    results: Json
    names: Names

    @property
    def answer(self) -> Json:
        return dict(self.ask["answer"])

    @property
    def coverage(self) -> Mapping[str, str]:
        return dict(self.ask["coverage"])

    def plot(self, name: str, label: str, width: float = 430.0, height: float = 320.0) -> Plot:
        return Plot(f"q{self.place}-{name}", label, width, height)


def view(place: int, ask: Json, results: Json, names: Names) -> Pieces:
    """The ask itself, its template, who answered, and the pieces of its answer when there is one."""
    make = PIECES.get(ask["analysis"])
    template = f"answers/{ask['analysis'] if make else 'generic'}.html.j2"
    coverage = ask["coverage"]
    gave = [p for p in names.partners if coverage.get(p) == "released"]
    silent = [(p, coverage.get(p, "offline")) for p in names.partners if coverage.get(p) != "released"]
    kind = KINDS.get(ask["analysis"], str(ask["analysis"]))
    made: Pieces = {
        "place": place,
        "ask": ask,
        "kind": kind,
        "template": template,
        "gave": gave,
        "silent": silent,
    }
    if ask["status"] == "released" and ask["answer"] is not None:
        made["pieces"] = (make or _generic)(Context(place, ask, results, names))
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
        plot = context.plot(f"means{start}", "Mean at each partner with 95% intervals", 760.0, _forest_height(names))
        drawn.append(Markup(plots.forest(plot, [*names.partners, ALL], panels)))
    overall, *partners = tables.moments_tables(answer, context.coverage, names)
    return {"plots": drawn, "overall": overall, "partners": partners}


def _means(column: Json, context: Context) -> list[Json]:
    given = {partner: moments["mean"] for partner, moments in column["partners"].items()}
    return [tables.at_partner(given, partner, context.coverage) for partner in context.names.partners]


def _forest_height(names: Names) -> float:
    return 95.0 + 27.0 * (len(names.partners) + 1)


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
    plot = context.plot("quantiles", f"Quantiles of {what} at each partner", 760.0, _forest_height(names))
    drawn = plots.strips(plot, rows, answer["probabilities"], what)
    return {"plot": Markup(drawn), "what": what, "table": tables.bins_table(answer, context.coverage, names)}


def _logistic(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    terms = tables.characteristics(answer)
    plot = context.plot("odds", "Odds ratios with 95% intervals", 760.0, 110.0 + 34.0 * len(terms))
    return {
        "plot": Markup(plots_model.odds(plot, terms)),
        "table": tables.odds_table(answer),
        "equation": equation(answer, context.results, names),
        "definition": names.cases.get(answer["outcome"], {}).get("when", answer["definition"]),
        "share": ratio_of(answer["events"], answer["n"]),
        "outcome": names.of(answer["outcome"]),
    }


def _scores(context: Context) -> Pieces:
    answer, names = context.answer, context.names
    each = tables.scores_of(answer, context.coverage, names)
    panels = [
        Panel(title, [tables.score_number(score, key) for _, score in each], reference)
        for key, title, reference in (
            ("auroc", "AUROC", None),
            ("observed_expected", "Observed / expected", 1.0),
            ("calibration_slope", "Calibration slope", 1.0),
        )
    ]
    forest = context.plot("partners", "AUROC and calibration at each partner", 760.0, _forest_height(names))
    return {
        **_curves(context),
        "forest": Markup(plots.forest(forest, [partner for partner, _ in each], panels)),
        "scores": tables.scores_table(answer, context.coverage, names),
        "bins": tables.calibration_table(answer),
        "thresholds": tables.threshold_table(answer),
        "points": tables.roc_table(answer),
        "hidden": sum(not is_released(point["observed"]) for point in answer["calibration"]),
        "share": ratio_of(answer["events"], answer["n"]),
        "outcome": names.of(answer["outcome"]),
        "model": _title(context, answer["model"]),
    }


def _curves(context: Context) -> Pieces:
    """ROC, calibration and decision curve, each None when its points were not released."""
    square, wide = (400.0, 380.0), (760.0, 320.0)
    makers = (
        ("roc", "ROC curve", square, plots_model.roc),
        ("calibration", "Calibration: observed against predicted risk", square, plots_model.calibration),
        ("decision", "Decision curve: net benefit by risk threshold", wide, plots_model.decision),
    )
    return {
        name: Markup(make(context.plot(name, label, *size), points)) if (points := context.answer[name]) else None
        for name, label, size, make in makers
    }


def _title(context: Context, ask: str) -> str:
    """The title of the ask with this id, or the id itself when the results do not hold it."""
    return next((str(other["title"]) for other in context.results["asks"] if other["id"] == ask), ask)


def _generic(context: Context) -> Pieces:
    return {"table": tables.generic_table(context.answer)}


PIECES: Final[Mapping[str, Callable[[Context], Pieces]]] = {
    "count": _count,
    "moments": _moments,
    "histogram": _histogram,
    "quantiles": _quantiles,
    "logistic": _logistic,
    "scores": _scores,
}
