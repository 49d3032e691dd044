"""Lay a data set out as partners hold it: a folder with one CSV file per partner, for `ahh run --partners`.

python -m benchmarks.layout SET OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ahh_federated.errors import AhhError
from benchmarks.datasets import SETS, data_set


def lay_out(name: str, out: Path) -> list[Path]:
    """Write the partners' tables of one data set; the paths written.

    Raises:
        Misuse: when the data set is not known or its files are not there.
    """
    frames = data_set(name).frames()
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for partner, frame in frames.items():
        paths.append(out / f"{partner}.csv")
        frame.to_csv(paths[-1], index=False, lineterminator="\n")
    return paths


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layout", description=__doc__)
    parser.add_argument("set", choices=sorted(SETS), metavar="SET", help=", ".join(SETS))
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    asked = parser.parse_args(arguments)
    try:
        for path in lay_out(asked.set, asked.out):
            print(path)
    except AhhError as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
