"""Rows of the utility benchmark: what was run, and how good it was over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.table import Table

HEADS = {"auroc": "AUROC", "logloss": "log loss", "r2": "R2", "rmse": "RMSE"}


@dataclass(frozen=True, slots=True)
class Run:
    """One trained model: its figures on the test patients, the first of which counts most; `partners` is how many are in it.

    `split`: the number of the choice who trains and who tests.
    """

    figures: Mapping[str, float]
    messages: int
    cpu_s: float
    partners: int
    split: int = 0


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

    def of_split(self, split: int) -> Row:
        return replace(self, runs=tuple(replace(run, split=split) for run in self.runs))

    def gain(self, pooled: Row) -> tuple[float, float] | None:
        """By how much the first figure is above that of the pooled model, split by split: mean and standard error over splits."""
        first = self.figures[0]
        of_splits = [{split: _mean(row, first, split) for split in {run.split for run in row.runs}} for row in (self, pooled)]
        gains = [of_splits[0][split] - of_splits[1][split] for split in of_splits[0].keys() & of_splits[1].keys()]
        return (statistics.fmean(gains), statistics.stdev(gains) / len(gains) ** 0.5) if len(gains) > 1 else None

    def to_json(self, pooled: Row | None = None) -> dict[str, str | float | None]:
        """Means over the runs that gave a model, the standard deviation of the first figure, and the gain over a pooled model."""
        first = self.figures[0]
        gain, error = (self.gain(pooled) if pooled else None) or (None, None)
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
            "gain": gain,
            "gain_se": error,
        }


def _mean(row: Row, figure: str, split: int) -> float:
    return statistics.fmean(run.figures[figure] for run in row.runs if run.split == split)


def joined(rows: Sequence[Row]) -> list[Row]:
    """Rows of one method at one epsilon, from several splits, as one row."""
    found: dict[tuple[str, str, str, float | None, float | None], Row] = {}
    for row in rows:
        what = (row.set, row.method, row.mode, row.epsilon, row.delta)
        before = found.get(what)
        found[what] = row if before is None else replace(row, runs=before.runs + row.runs, failed=before.failed + row.failed)
    return list(found.values())


def shown(results: Sequence[Row]) -> list[Table]:
    """A table for each kind of outcome, one line a row; ± is the standard deviation over runs, of a gain the standard error."""
    return [_table(figures, list(rows)) for figures, rows in groupby(sorted(results, key=_kind), key=_kind)]


def to_json(results: Sequence[Row]) -> list[dict[str, str | float | None]]:
    """Every row, beside the pooled model of its set."""
    pooled = _pooled(results)
    return [row.to_json(pooled.get(row.set)) for row in results]


def _pooled(results: Sequence[Row]) -> dict[str, Row]:
    return {row.set: row for row in results if row.mode == "pooled"}


def _kind(row: Row) -> tuple[str, ...]:
    return row.figures


def _table(figures: tuple[str, ...], rows: Sequence[Row]) -> Table:
    table = Table(title="Models on patients they have not seen", title_justify="left")
    for name in ("set", "epsilon", "delta", "method", *(HEADS.get(figure, figure) for figure in figures)):
        table.add_column(name)
    for name in ("over pooled", "messages", "CPU s", "partners", "runs"):
        table.add_column(name, justify="right")
    pooled = _pooled(rows)
    for row in rows:
        table.add_row(
            row.set,
            "none" if row.epsilon is None else f"{row.epsilon:g}",
            "" if row.delta is None else f"{row.delta:g}",
            f"{row.method} (exact)" if row.mode == "exact" else row.method,
            *(_spread(row, figure) for figure in figures),
            _gain(row, pooled.get(row.set)),
            f"{row.mean_messages():g}",
            f"{row.mean_cpu_s():.3f}",
            f"{row.mean_partners():.3g}",
            f"{len(row.runs)} of {len(row.runs) + row.failed}",
        )
    return table


def _gain(row: Row, pooled: Row | None) -> str:
    gain = row.gain(pooled) if pooled else None
    return f"{gain[0]:+.4f} ± {gain[1]:.4f}" if gain else ""


def _spread(row: Row, figure: str) -> str:
    digits = 2 if figure in ("slope", "rmse") else 3
    mean = f"{row.mean(figure):.{digits}f}"
    return mean if len(row.runs) == 1 else f"{mean} ± {row.sd(figure):.{digits}f}"
