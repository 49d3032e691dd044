"""The plots of a report, as inline SVG: matplotlib's object API, no window, no global figure, no date.

The same numbers give the same bytes: identifiers are hashed with a fixed salt and prefixed with the plot's
name, so that several plots share a page.  Text stays text, in the font of the page.  Colours are near Okabe
and Ito's palette, told apart by colour-blind readers and, dark against light, in black and white.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from itertools import pairwise
from textwrap import wrap
from typing import Any, Final

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ahh_federated.lab.report.words import Number, bounded, is_released, percent, plain, status_words

BLUE: Final = "#0b5c94"
SKY: Final = "#7fb8dc"
OCHRE: Final = "#e69f00"
GREY: Final = "#8a97a3"
PALE: Final = "#e3e9ee"
INK: Final = "#22303c"
TICK_DIGITS: Final = 8
LEVELS: Final = (BLUE, SKY, GREY, OCHRE)
ERROR_BAR: Final[Mapping[str, Any]] = {"ecolor": INK, "elinewidth": 1.3, "capsize": 3.0, "capthick": 1.3}

STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ahh_federated",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11.0,
    "axes.labelsize": 11.0,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 1.0,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "errorbar.capsize": 0.0,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A `name` that is unique on the page, the text that stands in for the plot, its size in pixels."""

    name: str
    label: str
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a forest or bar plot; `number` is None, or not released, where words stand instead."""

    label: str
    number: Number | None
    strong: bool = False
    colour: str = BLUE


def draw(plot: Plot, paint: Callable[[Figure], None]) -> str:
    """Paint on a fresh figure and return it as an `<svg>` element that scales with the page."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(plot.width / 72, plot.height / 72), layout="constrained")
        paint(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(text.getvalue(), plot)


def _inline(svg: str, plot: Plot) -> str:
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = body.replace('id="', f'id="{plot.name}-').replace("url(#", f"url(#{plot.name}-")
    body = body.replace('xlink:href="#', f'href="#{plot.name}-')
    head = f'<svg viewBox="0 0 {plot.width:g} {plot.height:g}" role="img" aria-label="{escape(plot.label)}">'
    return head + body


def bars(plot: Plot, rows: Sequence[Row], axis: str) -> str:
    """Horizontal bars from zero with 95 % error bars; a number not released is words, never a bar."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            number = row.number
            if number is not None and is_released(number):
                error = [[value] for value in reach(number)]
                axes.barh(place, max(bounded(number), 0.0), 0.62, color=row.colour)
                axes.errorbar(bounded(number), place, xerr=error, fmt="none", **ERROR_BAR)
            else:
                _say_status(axes, place, number)
        rows_on_axis(axes, rows, wide=30 if plot.width < 500 else 56)
        _value_axis(axes, axis)
        axes.axvline(0, color=GREY, linewidth=1.0)

    return draw(plot, paint)


def histogram(plot: Plot, edges: Sequence[float], numbers: Sequence[Number], axis: str) -> str:
    """Bars between public edges, with 95 % error bars; a bin that was not released is marked with a cross."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for (left, right), number in zip(pairwise(edges), numbers, strict=True):
            middle, width = (left + right) / 2, right - left
            if is_released(number):
                axes.bar(middle, max(bounded(number), 0.0), width * 0.94, color=SKY)
                error = [[value] for value in reach(number)]
                axes.errorbar(middle, bounded(number), yerr=error, fmt="none", **ERROR_BAR)
            else:
                axes.plot(middle, 0, marker="x", color=INK, clip_on=False)
        axes.axhline(0, color=GREY, linewidth=1.0)
        axes.set_xlabel(short(axis, 80))
        axes.set_ylabel("patients")
        axes.xaxis.set_major_formatter(FuncFormatter(tick))
        axes.yaxis.set_major_formatter(FuncFormatter(tick))
        axes.grid(axis="y")

    return draw(plot, paint)


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of a forest plot: numbers in the order of the labels.

    `marks`: for each label a further value without an interval, drawn as an open circle.  `share`: the axis is a percentage.
    """

    title: str
    numbers: Sequence[Number | None]
    reference: float | None = None
    marks: Sequence[float | None] = ()
    share: bool = False


def forest(plot: Plot, labels: Sequence[str], panels: Sequence[Panel], strong: int | None = -1) -> str:
    """Panels side by side, a line per label: a dot and its 95 % interval; line `strong`, the last, is a diamond."""
    strongest = None if strong is None else range(len(labels))[strong]

    def paint(figure: Figure) -> None:
        axes_of = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(axes_of, panels, strict=True):
            rows = [
                Row(label, number, strong=place == strongest)
                for place, (label, number) in enumerate(zip(labels, panel.numbers, strict=True))
            ]
            _forest_panel(axes, panel, rows)

    return draw(plot, paint)


def _forest_panel(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    if panel.reference is not None:
        axes.axvline(panel.reference, color=GREY, linewidth=1.0, linestyle=(0, (3, 3)))
    for whole in [row.number for row in rows if row.strong and row.number is not None and is_released(row.number)]:
        axes.axvline(bounded(whole), color=SKY, linewidth=1.0)
    for place, row in enumerate(rows):
        if row.number is None or not is_released(row.number):
            _say_status(axes, place, row.number)
            continue
        error = [[value] for value in reach(row.number)]
        shape: dict[str, Any] = {"marker": "D", "markersize": 7.0, "color": INK}
        if not row.strong:
            shape = {"marker": "o", "markersize": 5.5, "color": row.colour}
        axes.errorbar(bounded(row.number), place, xerr=error, linewidth=1.8, **shape)
    for place, mark in enumerate(panel.marks):
        if mark is not None:
            axes.plot(mark, place, "o", color="white", markeredgecolor=OCHRE, markeredgewidth=1.8, markersize=8, zorder=5)
    rows_on_axis(axes, rows)
    axes.set_title(short(panel.title, 26), fontsize=11, color=INK, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(percent_axis if panel.share else tick))
    axes.grid(axis="x")


def strips(plot: Plot, rows: Mapping[str, Sequence[Number]], probabilities: Sequence[float], axis: str) -> str:
    """Quantiles per row: a thin line between the outermost, a thick one between the next, a dot at 50 %."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, numbers in enumerate(rows.values()):
            if not all(is_released(number) for number in numbers):
                _say_status(axes, place, next(number for number in numbers if not is_released(number)))
                continue
            values = [bounded(number) for number in numbers]
            for depth, (low, high) in enumerate(_nested(values)):
                axes.plot([low, high], [place, place], color=SKY if depth == 0 else BLUE, linewidth=2 + 4 * depth)
            if 0.5 in probabilities:
                middle = values[list(probabilities).index(0.5)]
                axes.plot(middle, place, "o", color="white", markeredgecolor=INK, markersize=7)
        rows_on_axis(axes, [Row(label, None) for label in rows])
        axes.set_xlabel(short(axis, 80))
        axes.grid(axis="x")

    return draw(plot, paint)


def _nested(values: Sequence[float]) -> Iterator[tuple[float, float]]:
    for depth in range(min(len(values) // 2, 2)):
        yield values[depth], values[-1 - depth]


def rows_on_axis(axes: Axes, rows: Sequence[Row], wide: int = 30) -> None:
    """Labels of `wide` characters down the left, the first row on top."""
    axes.set_yticks(range(len(rows)), [short(row.label, wide) for row in rows], multialignment="right")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _value_axis(axes: Axes, label: str) -> None:
    axes.set_xlabel(short(label, 50))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.grid(axis="x")


def _say_status(axes: Axes, place: int, number: Number | None) -> None:
    words = "not available" if number is None else status_words(str(number["status"]))
    look: dict[str, Any] = {"va": "center", "fontsize": 10, "style": "italic", "color": "#5c6975"}
    text = axes.text(0.02, place, short(words, 32), transform=axes.get_yaxis_transform(), **look)
    text.set_in_layout(False)  # words never make the panels narrower


def reach(number: Number) -> tuple[float, float]:
    """How far the 95 % interval reaches below and above the value; nothing where there is no interval."""
    value, low, high = bounded(number), number.get("low"), number.get("high")
    return (0.0 if low is None else max(value - low, 0.0)), (0.0 if high is None else max(high - value, 0.0))


def short(text: str, width: int) -> str:
    """At most two lines of `width` characters: a label may be long, and its table holds it in full."""
    return "\n".join(wrap(text, width, max_lines=2, placeholder=" \u2026"))


def tick(value: float, _: int | None) -> str:
    """A tick in full: rounding it would put the mark at another place than its number says."""
    return plain(value, TICK_DIGITS)


def percent_axis(value: float, _: int | None) -> str:
    """A tick of a fraction, as a percentage."""
    return percent(value, TICK_DIGITS)
