"""The data sets: each a study file and one data frame per partner.

The real ones are read from the folder that AHH_DATA names, by default ../shared/data beside the repository; they are
public, and no row of them is part of the repository.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ahh_federated.errors import Misuse
from ahh_federated.lab.synthetic import antwerp_children

ROOT = Path(__file__).parents[1]
STUDIES = ROOT / "benchmarks" / "studies"
Frames = dict[str, pd.DataFrame]

_ADULT_SHARES = (0.40, 0.25, 0.15, 0.10, 0.07, 0.03)
_ADULT_SEED = 2026
_SHIFTED = ("age", "education_years", "gain_log", "loss_log", "hours")


@dataclass(frozen=True, slots=True)
class DataSet:
    """`frames` reads or draws one table per partner.

    delta: well below one over the number of patients, or what the published comparison uses.
    by_partner: accuracy is the mean of the partners' accuracies, as FLamby reports it.
    """

    name: str
    study: Path
    delta: float
    frames: Callable[[], Frames]
    by_partner: bool = False


def data_folder() -> Path:
    """Where the real data are: AHH_DATA, or ../shared/data beside the repository."""
    return Path(os.environ.get("AHH_DATA") or ROOT.parent / "shared" / "data")


def data_set(name: str) -> DataSet:
    """Raises Misuse when there is no data set of this name."""
    if name not in SETS:
        raise Misuse(f"{name!r} is not a data set: choose among {', '.join(SETS)}")
    return SETS[name]


def _file(*parts: str) -> Path:
    path = data_folder().joinpath(*parts)
    if not path.is_file():
        raise Misuse(
            f"{'/'.join(parts)} is not in the data folder: let the environment variable AHH_DATA name the folder that holds it"
        )
    return path


def uci_heart() -> Frames:
    """FLamby's 740 complete rows of four hospitals, its split as a column, codes as words."""
    raw = pd.read_csv(_file("uci_heart", "fed_heart_flamby.csv"))
    pain = np.select([raw.cp_2 == 1, raw.cp_3 == 1, raw.cp_4 == 1], ["atypical", "non-anginal", "asymptomatic"], "typical")
    table = pd.DataFrame(
        {
            "patient": raw.center + "-" + raw.source_row.astype(str),
            "split": raw.set,
            **{name: raw[name] for name in ("age", "trestbps", "chol", "thalach", "oldpeak")},
            "sex": np.where(raw.sex == 1, "male", "female"),
            "fbs": _yes(raw.fbs),
            "exang": _yes(raw.exang),
            "chest_pain": pain,
            "restecg": np.select([raw.restecg_1 == 1, raw.restecg_2 == 1], ["st-t", "hypertrophy"], "normal"),
            "disease": _yes(raw.y),
        }
    )
    return _split(table, raw.center)


def nhanes() -> Frames:
    """Eight zones; ethnicity collapsed to the four levels of the reference analysis, birth weight in kg."""
    raw = pd.read_csv(_file("nhanes_children_2017_2020", "children.csv.gz"))
    hispanic = {"mexican_american": "hispanic", "other_hispanic": "hispanic", "black": "black", "asian": "asian"}
    table = pd.DataFrame(
        {
            "person_id": raw.person_id,
            "age": raw.age_years,
            "sex": raw.sex,
            "ethnicity": raw.ethnicity.map(hispanic).fillna("white-or-other"),
            "interview_language": raw.interview_language,
            "income_ratio": raw.income_poverty_ratio,
            "birth_weight": raw.birth_weight_g / 1000,
            "smoked": raw.mother_smoked_pregnancy.map({0: "no", 1: "yes"}),
            "mother_age": raw.mother_age_at_birth,
            "bmi_category": raw.cdc_bmi_category,
        }
    )
    return _split(table, raw.zone)


def adult() -> Frames:
    """Both census files, dealt to six unequal partners; the deal is seeded and follows the persons' measured columns."""
    files = [_file("adult", name) for name in ("adult.data.gz", "adult.test.gz")]
    raw = pd.concat([pd.read_csv(path, skipinitialspace=True) for path in files], ignore_index=True)
    country = raw["native-country"]
    table = pd.DataFrame(
        {
            "person": np.arange(len(raw)),
            "age": raw["age"],
            "education_years": raw["education-num"],
            "gain_log": np.log1p(raw["capital-gain"]),
            "loss_log": np.log1p(raw["capital-loss"]),
            "hours": raw["hours-per-week"],
            "workclass": raw["workclass"].replace("?", "unknown"),
            "marital_status": raw["marital-status"],
            "occupation": raw["occupation"].replace("?", "unknown"),
            "relationship": raw["relationship"],
            "race": raw["race"],
            "sex": raw["sex"],
            "born_in_us": np.select([country == "United-States", country == "?"], ["yes", "unknown"], "no"),
            "income": np.where(raw["classification"].str.startswith(">"), "above 50K", "at most 50K"),
        }
    )
    partner = _dealt(table[list(_SHIFTED)].to_numpy(np.float64))
    return _split(table, pd.Series([f"office-{each + 1}" for each in partner]))


def _dealt(values: np.ndarray) -> np.ndarray:
    """A partner for every row, shape (rows,): unequal sizes, and a chance that shifts with a random mix of the values."""
    rng = np.random.default_rng(_ADULT_SEED)
    partners = len(_ADULT_SHARES)
    mix = rng.normal(size=(values.shape[1], partners)) / np.sqrt(values.shape[1])
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    chance = np.log(_ADULT_SHARES) + standard @ mix + rng.gumbel(size=(len(values), partners))
    return np.asarray(chance.argmax(axis=1))


def _yes(values: pd.Series) -> np.ndarray:
    return np.where(values == 1, "yes", "no")


def _split(table: pd.DataFrame, partner: pd.Series) -> Frames:
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby(partner.to_numpy(), sort=True)}


_CHILDREN = ROOT / "examples" / "child-overweight.toml"
SETS: Mapping[str, DataSet] = {
    "uci_heart": DataSet("uci_heart", STUDIES / "uci-heart.toml", 1e-4, uci_heart, by_partner=True),
    "nhanes": DataSet("nhanes", STUDIES / "nhanes-obesity.toml", 1e-5, nhanes),
    "adult": DataSet("adult", STUDIES / "adult.toml", 1e-5, adult),
    "demo2k": DataSet("demo2k", _CHILDREN, 1e-5, partial(antwerp_children, 2_000)),
    "demo20k": DataSet("demo20k", _CHILDREN, 1e-5, partial(antwerp_children, 20_000)),
}
