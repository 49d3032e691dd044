"""`ahh predict`: what a model says of every row of a table that lies here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

Verbs = argparse._SubParsersAction  # what `add_subparsers` gives


def add(verb: Verbs[argparse.ArgumentParser]) -> None:
    one = verb.add_parser("predict", help="what a model says of every row of a table; nothing leaves this machine")
    one.add_argument("model", type=Path, metavar="MODEL", help="a model file that `ahh run` or `ahh fetch` wrote")
    one.add_argument("table", type=Path, metavar="TABLE", help="a CSV or Parquet file, one row a patient")
    one.add_argument("--key", default=None, metavar="COLUMN", help="the column that names the rows (default: their number)")
    one.add_argument("--out", type=Path, default=None, metavar="FILE", help="a CSV for the predictions (default: the screen)")
    one.set_defaults(verb="predict", module="predict_verb")


def predict(asked: argparse.Namespace) -> int:
    """Predictions to the file or to standard output; what could not be read, and how many rows have none, to standard error."""
    from ahh_federated.lab.models.predicting import predict_table, print_predictions, sources, write_predictions

    made = predict_table(asked.model, asked.table, asked.key)
    if asked.out is None:
        print_predictions(made, sys.stdout)
    else:
        write_predictions(made, asked.out, sources(asked.model, asked.table))
    for fault in made.found:
        print(f"ahh: {asked.table.name}: {fault}", file=sys.stderr)
    if made.unknown:
        count = f"{made.unknown} of {len(made.keys)} rows"
        print(f"ahh: {count} lack a value that the model needs: their prediction is empty", file=sys.stderr)
    if made.stamp:
        print(f"ahh: the model is {made.stamp}", file=sys.stderr)
    return 0
