"""The curves of an additive model: what each measured predictor adds, along its range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ahh_federated.lab.report.plots import BLUE, GREY, OCHRE, SKY, Plot, draw, short, tick
from ahh_federated.lab.report.plots_model import drawn, odds_axis
from ahh_federated.lab.report.words import Z95, usable

Curve = Mapping[str, Any]
WIDEST: Final = (-4.6, 4.6)  # of the axis of log odds: one hundredth to a hundredfold


def is_odds(curve: Curve) -> bool:
    """Whether the curve is of log odds; otherwise it is in the unit of the outcome."""
    return "log_odds" in curve


def heights(curve: Curve) -> Sequence[float | None]:
    found: Sequence[float | None] = curve["log_odds"] if is_odds(curve) else curve["value"]
    return found


def shared_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """The lowest and highest end of all bands, so that panels beside one another can be compared."""
    ends = [end for curve in curves for key in ("low", "high") for end in curve[key] if usable(end)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    if curves and is_odds(curves[0]):
        low, high = max(low, WIDEST[0]), min(high, WIDEST[1])
    margin = max(0.05 * (high - low), 0.05 if high == low else 0.0)
    return low - margin, high + margin


def curve(plot: Plot, given: Curve, across: str, up: str, limits: tuple[float, float]) -> str:
    """The curve with its 95 % band; the blue part of the band is there without privacy noise."""
    odds = is_odds(given)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for stretch in _stretches(given):
            _stretch(axes, stretch, odds)
        axes.axhline(1.0 if odds else 0.0, color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
        axes.set_xlim(given["at"][0], given["at"][-1])
        if odds:
            odds_axis(axes, axes.yaxis, exp(limits[0]), exp(limits[1]))
        else:
            axes.set_ylim(*limits)
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter(FuncFormatter(tick))
            axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        axes.set_xlabel(short(across, 40))
        axes.set_ylabel(short(up, 34))

    return draw(plot, paint)


_Points = list[tuple[float, float, float, float, float | None]]


def _stretches(given: Curve) -> list[_Points]:
    """Runs of (at, height, low, high, sampling error) without a gap: a value that is not there breaks the line."""
    sampling = given.get("se_sampling") or [None] * len(given["at"])
    found: list[_Points] = [[]]
    for at, height, low, high, se in zip(given["at"], heights(given), given["low"], given["high"], sampling, strict=True):
        if usable(height) and usable(low) and usable(high):
            found[-1].append((at, height, low, high, se))
        else:
            found.append([])
    return [points for points in found if points]


def _stretch(axes: Axes, points: _Points, odds: bool) -> None:
    def scaled(values: Sequence[float]) -> list[float]:
        return [drawn(value) for value in values] if odds else list(values)

    at = [point[0] for point in points]
    axes.fill_between(at, scaled([p[2] for p in points]), scaled([p[3] for p in points]), color=OCHRE, alpha=0.4, linewidth=0)
    inner = [(a, height, se) for a, height, _, _, se in points if se is not None and usable(se)]
    if len(inner) == len(points):
        low, high = (scaled([height + side * Z95 * se for _, height, se in inner]) for side in (-1, 1))
        axes.fill_between(at, low, high, color=SKY, alpha=0.75, linewidth=0)
    axes.plot(at, scaled([point[1] for point in points]), color=BLUE, linewidth=2.2)
