"""Does the synthetic cohort resemble Antwerp?  Published targets beside what the partners' tables hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from ahh_federated.lab.synthetic import constants as c


@dataclass(frozen=True, slots=True)
class Target:
    """A quantity, its target, how far 20,000 children may be from it, and where the target comes from."""

    name: str
    value: float
    tolerance: float
    source: str
    measure: Callable[[pd.DataFrame], float]


def pooled(files: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per child over all partners, faults blanked: its last visit at the first partner that knows it.

    Only a laboratory can do this; it is what a federated answer is compared with.  Adds the column `partner`.
    """
    table = pd.concat([file.assign(partner=name) for name, file in files.items()], ignore_index=True)
    for column, (low, high) in c.RANGES.items():
        table[column] = table[column].where(table[column].between(low, high))
    table = table.sort_values("recorded", kind="stable")
    table = table.drop_duplicates(["partner", "child_id"], keep="last")
    order = {name: index for index, name in enumerate(files)}
    table = table.sort_values("partner", key=lambda names: names.map(order), kind="stable")
    return table.drop_duplicates("child_id").reset_index(drop=True)


def above(table: pd.DataFrame, column: str, limits: tuple[float, float]) -> pd.Series:
    """1.0 at or above the (girls, boys) limit, 0.0 below it, NaN where not measured."""
    limit = np.where(table["sex"] == c.BOY, limits[1], limits[0])
    return (table[column] >= limit).astype(float).where(table[column].notna())


def compare(files: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every target beside what was achieved: columns name, target, achieved, tolerance, source."""
    table = pooled(files)
    rows = [(t.name, t.value, t.measure(table), t.tolerance, t.source) for t in TARGETS]
    return pd.DataFrame(rows, columns=["name", "target", "achieved", "tolerance", "source"])


def markdown(comparison: pd.DataFrame) -> str:
    """`compare`'s table as the documentation prints it, so that the page cannot drift from the generator."""
    lines = ["| quantity | target | achieved | tolerance | source |", "|---|---|---|---|---|"]
    for name, target, achieved, tolerance, source in comparison.itertuples(index=False):
        digits = 1 if "%" in name else 2
        lines.append(f"| {name} | {target:.{digits}f} | {achieved:.{digits}f} | ±{tolerance:g} | {source} |")
    return "\n".join(lines)


def _percent(column: str, value: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: 100 * float((table[column].dropna() == value).mean())


def _high(column: str, limits: tuple[float, float], sex: str | None = None) -> Callable[[pd.DataFrame], float]:
    def measure(table: pd.DataFrame) -> float:
        chosen = table if sex is None else table[table["sex"] == sex]
        return 100 * float(above(chosen, column, limits).mean())

    return measure


def _maternal(low: float, high: float) -> Callable[[pd.DataFrame], float]:
    def measure(table: pd.DataFrame) -> float:
        known = table["maternal_bmi"].dropna()
        return 100 * float(known.between(low, high, inclusive="left").mean())

    return measure


def _median_birth_weight(sex: str) -> Callable[[pd.DataFrame], float]:
    return lambda table: float(table.loc[table["sex"] == sex, "birth_weight"].median())


def _birth_weight_sd(table: pd.DataFrame) -> float:
    return float(table.loc[table["gestation"] >= 37, "birth_weight"].std())


def _preterm(table: pd.DataFrame) -> float:
    return 100 * float((table["gestation"].dropna() < 37).mean())


def _deprived_not_belgian(table: pd.DataFrame) -> float:
    deprived = table[table["deprived"] == "yes"]
    return 100 * float((deprived["mother_origin"].dropna() == "other").mean())


def _smoked_when_deprived(table: pd.DataFrame) -> float:
    return 100 * float((table.loc[table["deprived"] == "yes", "smoked"].dropna() == "yes").mean())


def _odds_ratio(column: str, value: str) -> Callable[[pd.DataFrame], float]:
    """Crude odds ratio of overweight at 2 years."""

    def measure(table: pd.DataFrame) -> float:
        high = above(table, "bmi_2y", c.OVERWEIGHT_2Y)
        known = table[column].notna()
        with_it = high[known & (table[column] == value)].mean()
        without = high[known & (table[column] != value)].mean()
        return float(with_it / (1 - with_it) / (without / (1 - without)))

    return measure


def _z(table: pd.DataFrame, column: str, lms: tuple[tuple[float, float, float], ...]) -> pd.Series:
    boy = table["sex"] == c.BOY
    power, median, spread = (np.where(boy, pair[1], pair[0]) for pair in zip(*lms, strict=True))
    z: pd.Series = ((table[column] / median) ** power - 1.0) / (power * spread)
    return z


def _correlation(table: pd.DataFrame) -> float:
    """Of BMI z-scores [Cole2012] at 2 and 6 years, over the children measured at both."""
    return float(_z(table, "bmi_2y", c.LMS_2Y).corr(_z(table, "bmi_6y", c.LMS_6Y)))


_LINE = "assumed: on the line from 11.1 % at 2 to 17.8 % at 11 years (2015: girls 18.4, boys 17.3)"

TARGETS: Final = (
    Target("overweight incl. obesity at 2 y, %", 11.1, 0.8, "Opgroeien, province of Antwerp, 2021",
           _high("bmi_2y", c.OVERWEIGHT_2Y)),
    Target("overweight at 2 y, girls, %", 11.4, 1.1, "11.1 x 10.0/9.7 (Flanders 2021: girls 10.0, boys 9.4)",
           _high("bmi_2y", c.OVERWEIGHT_2Y, c.GIRL)),
    Target("overweight at 2 y, boys, %", 10.8, 1.1, "11.1 x 9.4/9.7",
           _high("bmi_2y", c.OVERWEIGHT_2Y, c.BOY)),
    Target("obesity at 2 y, %", 1.7, 0.4, "Opgroeien: 1.8 (2020), 1.6 (2021)", _high("bmi_2y", c.OBESITY_2Y)),
    Target("overweight incl. obesity at 6 y, %", 14.1, 1.2, _LINE, _high("bmi_6y", c.OVERWEIGHT_6Y)),
    Target("obesity at 6 y, %", 2.5, 0.6, "assumed: on the line from 1.7 % at 2 to 4 % at 12-14 years (2015)",
           _high("bmi_6y", c.OBESITY_6Y)),
    Target("correlation of BMI z-scores, 2 and 6 y", 0.60, 0.03, "assumed", _correlation),
    Target("odds ratio at 2 y, mother not Belgian at birth", 1.75, 0.25, "Kind en Gezin 2018: 12.3, 7.4 %",
           _odds_ratio("mother_origin", "other")),
    Target("odds ratio at 2 y, deprived", 1.8, 0.25, "assumed; same direction in Flanders",
           _odds_ratio("deprived", "yes")),
    Target("mother not Belgian at birth, %", 53.0, 2.0, "assumed for the city",
           _percent("mother_origin", "other")),
    Target("deprived, %", 26.0, 2.0, "assumed for the city; province 17.5 (Opgroeien 2020)",
           _percent("deprived", "yes")),
    Target("of the deprived, mother not Belgian at birth, %", 74.0, 3.0, "Kind en Gezin, province: 73-75",
           _deprived_not_belgian),
    Target("mother does not speak Dutch to the newborn, %", 57.0, 3.0, "assumed: 55-60; Flanders 30.7",
           _percent("home_language", "other")),
    Target("preterm, %", 7.9, 0.8, "Kind en Gezin 2018 (births of 2017)", _preterm),
    Target("breastfed on day 6, %", 77.0, 2.0, "Opgroeien, births of 2020", _percent("breastfed", "yes")),
    Target("mother overweight (BMI 25 to 30), %", 26.4, 1.5, "SPE 2022", _maternal(25, 30)),
    Target("mother obese (BMI 30 and above), %", 15.7, 1.5, "SPE 2022", _maternal(30, 99)),
    Target("smoked in pregnancy, %", 6.5, 1.0, "assumed: 6-7", _percent("smoked", "yes")),
    Target("smoked in pregnancy, of the deprived, %", 15.0, 2.0, "assumed", _smoked_when_deprived),
    Target("median birth weight of girls, kg", 3.3, 0.05, "Roelants 2009, Flanders 2004",
           _median_birth_weight(c.GIRL)),
    Target("median birth weight of boys, kg", 3.5, 0.05, "Roelants 2009, Flanders 2004",
           _median_birth_weight(c.BOY)),
    Target("SD of birth weight at term, kg", 0.45, 0.04, "assumed", _birth_weight_sd),
)  # fmt: skip
