"""Using a model on a table of one's own: no partner is asked, and nothing leaves this machine."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from ahh_federated.errors import Misuse
from ahh_federated.lab.models.files import TENSORS, read_model
from ahh_federated.lab.models.fitted import Fitted
from ahh_federated.lab.models.forms import F64
from ahh_federated.runtimes.frames import open_frame, read_columns, read_keys

ROW, RISK, VALUE = "row", "risk", "prediction"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """`values` of shape (rows, columns), NaN where a row lacks a value; `found`: what could not be read, by column."""

    key: str
    keys: Sequence[str]
    columns: tuple[str, ...]
    values: F64
    found: tuple[str, ...]
    stamp: str

    @property
    def unknown(self) -> int:
        """Rows without a prediction."""
        return int(np.isnan(self.values).any(axis=1).sum())

    def lines(self) -> Iterator[list[str]]:
        """The header, and a line a row; a prediction that there is not is empty."""
        yield [self.key, *self.columns]
        for key, row in zip(self.keys, self.values, strict=True):
            yield [key, *("" if np.isnan(value) else f"{value:.10g}" for value in row)]


def predict_table(model: Path, table: Path, key: str | None = None) -> Predictions:
    """What a model file says of every row of a CSV or Parquet table.

    Args:
        model: a model file.
        table: one row a patient, columns named and in units as the study declared them.
        key: a column that names the rows; None for their number, from 1.

    Raises:
        Misuse: when a file cannot be read, or the table lacks a column.
        Breach: when the file is no model, or was changed.
        Refusal: when the table cannot be read.
    """
    fitted, frame = read_model(model), open_frame(table)
    keys = [str(row) for row in range(1, len(frame) + 1)] if key is None else read_keys(frame, key)
    found: list[str] = []
    columns = read_columns(frame, fitted.columns, fitted.cases.values(), found)
    values = fitted.predicted(fitted.linear(columns, len(frame)))
    names, shown = _shown(fitted, values)
    return Predictions(key or ROW, keys, names, shown, tuple(found), str(fitted.receipt["stamp"] or ""))


def _shown(fitted: Fitted, values: F64) -> tuple[tuple[str, ...], F64]:
    if fitted.family == "binary":
        return (RISK,), values[:, 1:]
    if fitted.family == "levels":
        return fitted.levels, values
    return (VALUE,), values[:, None]


def write_predictions(predictions: Predictions, out: Path, spared: Iterable[Path]) -> None:
    """Write a CSV.  Raises Misuse when that is not possible, or `out` is one of the files to be spared."""
    for path in spared:
        if out.exists() and path.exists() and out.samefile(path):
            raise Misuse(f"{out} is what the predictions are made from: give --out another name")
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            print_predictions(predictions, file)
    except OSError as error:
        raise Misuse(f"{out} cannot be written ({error.strerror}): give a path in a folder that is there") from None


def print_predictions(predictions: Predictions, file: TextIO) -> None:
    csv.writer(file, lineterminator="\n").writerows(predictions.lines())


def sources(model: Path, table: Path) -> tuple[Path, ...]:
    """The files that predictions are made from."""
    return model, model.with_suffix(TENSORS), table
