"""Rows of the utility benchmark: what was run, and how good it was over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.table import Table

HEADS = {"auroc": "AUROC", "logloss": "log loss", "r2": "R2", "rmse": "RMSE"}


@dataclass(frozen=True, slots=True)
class Run:
    """One trained model: its figures on the test patients, the first of which counts most; `partners` is how many are in it."""

    figures: Mapping[str, float]
    messages: int
    cpu_s: float
    partners: int


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one data set at one epsilon (None: no privacy) over some seeds; `failed` runs have no model."""

    set: str
    method: str
    mode: str
    epsilon: float | None
    delta: float | None
    runs: tuple[Run, ...]
    failed: int = 0

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(self.runs[0].figures)

    def mean(self, figure: str) -> float:
        return statistics.fmean(run.figures[figure] for run in self.runs)

    def sd(self, figure: str) -> float:
        return statistics.stdev(run.figures[figure] for run in self.runs) if len(self.runs) > 1 else 0.0

    def mean_messages(self) -> float:
        return statistics.fmean(run.messages for run in self.runs)

    def mean_cpu_s(self) -> float:
        return statistics.fmean(run.cpu_s for run in self.runs)

    def mean_partners(self) -> float:
        return statistics.fmean(run.partners for run in self.runs)

    def to_json(self) -> dict[str, str | float | None]:
        """Means over the seeds that gave a model, and the standard deviation of the first figure."""
        first = self.figures[0]
        return {
            "set": self.set,
            "method": self.method,
            "mode": self.mode,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "seeds": len(self.runs),
            **{name: self.mean(name) for name in self.figures},
            "rounds": self.mean_messages(),
            "messages": self.mean_messages(),
            "cpu_s": self.mean_cpu_s(),
            f"{first}_sd": self.sd(first),
        }


def shown(results: Sequence[Row]) -> list[Table]:
    """A table for each kind of outcome, one line a row; ± is the standard deviation over seeds."""
    return [_table(figures, list(rows)) for figures, rows in groupby(sorted(results, key=_kind), key=_kind)]


def _kind(row: Row) -> tuple[str, ...]:
    return row.figures


def _table(figures: tuple[str, ...], rows: Sequence[Row]) -> Table:
    table = Table(title="Models on patients they have not seen", title_justify="left")
    for name in ("set", "epsilon", "delta", "method", *(HEADS.get(figure, figure) for figure in figures)):
        table.add_column(name)
    for name in ("messages", "CPU s", "partners", "runs"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.set,
            "none" if row.epsilon is None else f"{row.epsilon:g}",
            "" if row.delta is None else f"{row.delta:g}",
            f"{row.method} (exact)" if row.mode == "exact" else row.method,
            *(_spread(row, figure) for figure in figures),
            f"{row.mean_messages():g}",
            f"{row.mean_cpu_s():.3f}",
            f"{row.mean_partners():.3g}",
            f"{len(row.runs)} of {len(row.runs) + row.failed}",
        )
    return table


def _spread(row: Row, figure: str) -> str:
    digits = 2 if figure in ("slope", "rmse") else 3
    mean = f"{row.mean(figure):.{digits}f}"
    return mean if len(row.runs) == 1 else f"{mean} ± {row.sd(figure):.{digits}f}"
