"""The plots of a model and its evaluation: coefficients, ROC curve, calibration and decision curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, log
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from ahh_federated.lab.report.plots import (
    BLUE,
    GREY,
    INK,
    OCHRE,
    SKY,
    Plot,
    Row,
    draw,
    percent_axis,
    reach,
    rows_on_axis,
    tick,
)
from ahh_federated.lab.report.words import Z95, bounded, is_released, usable

Point = Mapping[str, Any]
Term = Mapping[str, Any]
_BEYOND: Final = 10.0  # of a coefficient; the axis ends at 4.6
ODDS_TICKS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def odds(plot: Plot, terms: Sequence[Term]) -> str:
    """Odds ratios on a log axis; the blue part of each 95 % interval is there without privacy noise."""
    whole = [term for term in terms if all(usable(term[key]) for key in ("odds_ratio", "low", "high", "se_sampling"))]
    limits = [1.0, *(min(max(term[key], 0.01), 100.0) for term in whole for key in ("low", "high"))]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(1.0, color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
        for place, term in enumerate(terms):
            if term in whole:
                sampling = [drawn(term["coefficient"] + side * Z95 * term["se_sampling"]) for side in (-1, 1)]
                reached = [drawn(log(max(term[key], 1e-300))) for key in ("low", "high")]
                _interval(axes, place, drawn(term["coefficient"]), reached, sampling)
        _terms_axis(figure, axes, terms)
        odds_axis(axes, axes.xaxis, min(limits) / 1.15, max(limits) * 1.15)
        axes.set_xlabel("odds ratio, 95% interval")

    return draw(plot, paint)


def effects(plot: Plot, terms: Sequence[Term], axis: str) -> str:
    """Coefficients on the scale of the outcome, each times the `step` of its term; colours as for odds ratios."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0.0, color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
        for place, term in enumerate(terms):
            if all(usable(term[key]) for key in ("coefficient", "low", "high", "se_sampling")):
                step, value = term["step"], term["coefficient"]
                sampling = [step * (value + side * Z95 * term["se_sampling"]) for side in (-1, 1)]
                _interval(axes, place, step * value, [step * term["low"], step * term["high"]], sampling)
        _terms_axis(figure, axes, terms)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        axes.set_xlabel(axis)
        axes.grid(axis="x")

    return draw(plot, paint)


def _interval(axes: Axes, place: int, value: float, reached: Sequence[float], sampling: Sequence[float]) -> None:
    axes.plot(reached, [place, place], color=OCHRE, linewidth=6, solid_capstyle="butt")
    axes.plot(sampling, [place, place], color=BLUE, linewidth=6, solid_capstyle="butt")
    axes.plot(value, place, "o", color="white", markeredgecolor=INK, markersize=7)


def _terms_axis(figure: Figure, axes: Axes, terms: Sequence[Term]) -> None:
    axes.plot([], [], color=BLUE, linewidth=6, label="from the number of patients")
    axes.plot([], [], color=OCHRE, linewidth=6, label="added by the privacy noise")
    figure.legend(loc="outside lower center", ncols=2, handlelength=1.4)
    rows_on_axis(axes, [Row(term["name"], None) for term in terms])


def drawn(log_odds: float) -> float:
    """An odds ratio as it is drawn: what lies far beyond the axis, as an invented number may, is left there."""
    return exp(max(-_BEYOND, min(_BEYOND, log_odds)))


def odds_axis(axes: Axes, axis: Axis, low: float, high: float) -> None:
    """A log scale of odds ratios with ticks that people know."""
    across = axis is axes.xaxis
    (axes.set_xscale if across else axes.set_yscale)("log")
    (axes.set_xlim if across else axes.set_ylim)(low, high)
    wide = [tick for tick in ODDS_TICKS if low <= tick <= high]
    ticks = wide if len(wide) >= 3 else [tick / 10 for tick in range(2, 40) if low <= tick / 10 <= high][::2]
    axis.set_major_locator(FixedLocator(sorted({*ticks, 1.0})))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(tick))
    axes.grid(axis="x" if across else "y")


def roc(plot: Plot, points: Sequence[Point]) -> str:
    """The ROC curve with the line of chance."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        curve = sorted((float(point["fpr"]), float(point["tpr"])) for point in points)
        across, up = [0.0, *(x for x, _ in curve), 1.0], [0.0, *(y for _, y in curve), 1.0]
        axes.fill_between(across, up, color=SKY, alpha=0.25, linewidth=0)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
        axes.plot(across, up, color=BLUE, linewidth=2.2)
        axes.text(0.62, 0.56, "chance", color="#5c6975", fontsize=10, style="italic")
        axes.set_xlabel("without the outcome, flagged in error")
        axes.set_ylabel("with the outcome, found")
        _unit_square(axes, 1.0)

    return draw(plot, paint)


def calibration(plot: Plot, points: Sequence[Point]) -> str:
    """Observed against predicted risk with 95 % intervals; bins that were not released are left out."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        kept = [point for point in points if is_released(point["observed"])]
        top = max([0.01, *(max(p["predicted"], p["observed"].get("high") or 0.0) for p in kept)]) * 1.06
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
        for point in kept:
            error = [[value] for value in reach(point["observed"])]
            axes.errorbar(point["predicted"], bounded(point["observed"]), yerr=error, fmt="o", color=BLUE, linewidth=1.6)
        axes.set_xlabel("predicted risk")
        axes.set_ylabel("observed share with the outcome")
        _unit_square(axes, min(top, 1.0))
        axes.set_ylim(bottom=min([0.0, *(p["observed"].get("low") or 0.0 for p in kept)]))

    return draw(plot, paint)


def decision(plot: Plot, points: Sequence[Point]) -> str:
    """Net benefit by risk threshold: the model with its 95 % band, treating all, treating none."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for key, colour, label, dash in (
            ("all", OCHRE, "treat all", (0, (5, 2))),
            ("model", BLUE, "use the model", "-"),
        ):
            kept = [point for point in points if is_released(point[key])]
            across, up = [p["threshold"] for p in kept], [bounded(p[key]) for p in kept]
            axes.plot(
                across,
                up,
                color=colour,
                linewidth=2.0,
                linestyle=dash,
                marker="o",
                markersize=4.5,
                label=label,
            )
            lows, highs = ([bounded(p[key]) + s * reach(p[key])[s > 0] for p in kept] for s in (-1, 1))
            axes.fill_between(across, lows, highs, color=colour, alpha=0.18, linewidth=0)
        axes.plot([p["threshold"] for p in points], [p["none"] for p in points], color=GREY, label="treat none")
        best = max([0.0, *(p["model"]["value"] for p in points if is_released(p["model"]))])
        floor = min([0.0, *(p["model"]["low"] or 0.0 for p in points if is_released(p["model"]))])
        axes.set_ylim(min(floor, -0.6 * best) - 1e-3, max(best * 1.5, 0.01))
        axes.set_xlabel("risk threshold")
        axes.set_ylabel("net benefit")
        if len(points) <= 8:
            axes.xaxis.set_major_locator(FixedLocator([point["threshold"] for point in points]))
        axes.xaxis.set_major_formatter(FuncFormatter(percent_axis))
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y")
        axes.legend(loc="upper right")

    return draw(plot, paint)


def _unit_square(axes: Axes, top: float) -> None:
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(percent_axis))
    axes.grid()
