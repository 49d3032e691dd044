"""What the view of one ask is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ahh_federated.lab.report.plots import Plot
from ahh_federated.lab.report.tables import Json, Names

Pieces = dict[str, Any]


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

    def forest(self, name: str, label: str, lines: int) -> Plot:
        """A forest plot with room for so many lines."""
        return self.plot(name, f"{label}, with 95% intervals", 760.0, 95.0 + 27.0 * lines)
