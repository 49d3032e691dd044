"""The data sets: each a study file and one data frame per partner.

The real ones are public and are read by benchmarks/readers.py; no row of them is part of the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ahh_federated.errors import Misuse
from ahh_federated.lab.synthetic import antwerp_children
from benchmarks import readers
from benchmarks.nutrition import wasting_children
from benchmarks.readers import Frames, data_folder

__all__ = ["SETS", "STUDIES", "DataSet", "Frames", "data_folder", "data_set"]

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "benchmarks" / "studies"


@dataclass(frozen=True, slots=True)
class DataSet:
    """`frames` reads or draws one table per partner; `drawn` draws others, by a number, where patients are made up.

    delta: well below one over the number of patients, or what the published comparison uses.
    by_partner: accuracy is the mean of the partners' accuracies, as FLamby reports it.
    """

    name: str
    study: Path
    delta: float
    frames: Callable[[], Frames]
    by_partner: bool = False
    drawn: Callable[[int], Frames] | None = None


def data_set(name: str) -> DataSet:
    """Raises Misuse when there is no data set of this name."""
    if name not in SETS:
        raise Misuse(f"{name!r} is not a data set: choose among {', '.join(SETS)}")
    return SETS[name]


def _nutrition(name: str, children: int, delta: float) -> DataSet:
    """Four in five of the children train."""
    drawn = partial(wasting_children, children)
    return DataSet(name, STUDIES / "nutrition.toml", delta, drawn, drawn=drawn)


_CHILDREN = ROOT / "examples" / "child-overweight.toml"
SETS: Mapping[str, DataSet] = {
    "uci_heart": DataSet("uci_heart", STUDIES / "uci-heart.toml", 1e-4, readers.uci_heart, by_partner=True),
    "nhanes": DataSet("nhanes", STUDIES / "nhanes-obesity.toml", 1e-5, readers.nhanes),
    "nhanes_diet": DataSet("nhanes_diet", STUDIES / "nhanes-diet.toml", 1e-5, readers.nhanes_diet),
    "eicu": DataSet("eicu", STUDIES / "eicu-death.toml", 1e-5, readers.eicu),
    "dutch_growth": DataSet("dutch_growth", STUDIES / "dutch-growth.toml", 1e-5, readers.dutch_growth),
    "adult": DataSet("adult", STUDIES / "adult.toml", 1e-5, readers.adult),
    "demo2k": DataSet("demo2k", _CHILDREN, 1e-5, partial(antwerp_children, 2_000)),
    "demo20k": DataSet("demo20k", _CHILDREN, 1e-5, partial(antwerp_children, 20_000)),
    "flchain": DataSet("flchain", STUDIES / "flchain.toml", 6.8e-5, readers.flchain),
    "nutrition2k": _nutrition("nutrition2k", 2_500, 2.3e-4),
    "nutrition20k": _nutrition("nutrition20k", 25_000, 1.8e-5),
}
