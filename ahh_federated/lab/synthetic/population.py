"""The children as they are: one row each, nothing missing or mistyped.  No partner ever sees this table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from ahh_federated.lab.synthetic import constants as c
from ahh_federated.lab.synthetic.partners import PARTNERS, Partner

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]
Columns = dict[str, npt.NDArray[Any]]

TERM_WEEKS: Final = 39.4


def draw_population(children: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw `children` rows: the columns of `constants.COLUMNS`, and `home`, the index of the child's partner.

    Order of drawing: partner, family, birth, growth.  Each step uses only what was drawn before it.
    """
    home = _homes(children)
    table = _family(home, rng)
    table = table | _birth(home, table, rng)
    table = table | _growth(home, table, rng)
    number = rng.permutation(children)
    frame = pd.DataFrame(
        {
            "child_id": [f"child-{n:07d}" for n in number],
            # Six years old in 2021-2024; days since 1 January 2015.
            "recorded": rng.integers(2192, 2192 + 1461, children),
            "sex": np.where(table["boy"], c.BOY, c.GIRL),
            "birth_weight": np.round(table["birth_weight"], 2),
            "gestation": table["gestation"],
            "mother_origin": np.where(table["non_belgian"], "other", "belgian"),
            "home_language": np.where(table["other_language"], "other", "dutch"),
            "mother_education": np.array(["low", "middle", "high"])[table["education"]],
            "deprived": _yes_no(table["deprived"]),
            "neighbourhood_income": np.round(table["income"], 1),
            "maternal_bmi": np.round(table["maternal_bmi"], 1),
            "smoked": _yes_no(table["smoked"]),
            "breastfed": _yes_no(table["breastfed"]),
            "weight_2y": np.round(table["weight_2y"], 2),
            "bmi_2y": np.round(table["bmi_2y"], 2),
            "bmi_6y": np.round(table["bmi_6y"], 2),
        }
    )[list(c.COLUMNS)]
    frame["home"] = home
    return frame


def _homes(children: int) -> Codes:
    """The partner index of each child; sizes follow the declared shares to within one child."""
    edges = np.round(np.cumsum([partner.share for partner in PARTNERS.values()]) * children)
    return np.searchsorted(edges, np.arange(children), side="right").astype(np.int64)


def _at(home: Codes, attribute: Callable[[Partner], float]) -> Floats:
    """A partner's number, repeated for each of its children."""
    return np.array([attribute(partner) for partner in PARTNERS.values()])[home]


def _family(home: Codes, rng: np.random.Generator) -> Columns:
    n = home.size
    non_belgian = rng.random(n) < _at(home, lambda p: p.non_belgian)
    usual = _logit(np.where(non_belgian, c.DEPRIVED[1], c.DEPRIVED[0]))
    deprived = rng.random(n) < _expit(usual + _at(home, lambda p: p.deprivation))
    other_language = rng.random(n) < np.where(non_belgian, c.OTHER_LANGUAGE[1], c.OTHER_LANGUAGE[0])
    schooling = rng.standard_normal(n) - 0.9 * deprived - 0.2 * non_belgian + _at(home, lambda p: p.education)
    education = np.digitize(schooling, [-1.1, -0.1])  # assumed: about a quarter low, two fifths high
    income = _at(home, lambda p: p.income) * np.exp(rng.normal(0.0, 0.18, n) - 0.10 * deprived + 0.05 * (education == 2))
    centre, spread = c.MATERNAL_BMI_LOG
    maternal = centre + 0.04 * (deprived - 0.26) + 0.03 * (non_belgian - 0.53) + rng.normal(0.0, spread, n)
    smoked = rng.random(n) < np.where(deprived, c.SMOKED[1], c.SMOKED[0])
    return {
        "non_belgian": non_belgian,
        "deprived": deprived,
        "other_language": other_language,
        "education": education,
        "income": income,
        "maternal_bmi": np.clip(np.exp(maternal), 15.0, 58.0),
        "smoked": smoked,
    }


def _birth(home: Codes, family: Columns, rng: np.random.Generator) -> Columns:
    n = home.size
    boy = rng.random(n) < c.BOYS_SHARE
    preterm = rng.random(n) < np.clip(_at(home, lambda p: p.preterm) + 0.02 * (family["smoked"] - 0.07), 0, 1)
    early = 36.99 - rng.exponential(2.0, n)
    weeks = np.floor(np.where(preterm, np.clip(early, 24, None), np.clip(rng.normal(40.3, 1.2, n), 37, 42)))
    missed = np.clip(TERM_WEEKS - weeks, 0, None)
    late = np.clip(weeks - TERM_WEEKS, 0, None)
    # A smooth fit, by eye, to usual median weights at 28, 32 and 37 weeks: 1.1, 1.8 and 2.9 kg.
    log_size = -0.068 * missed - 0.003 * missed**2 + 0.02 * late + rng.normal(0.0, c.BIRTH_WEIGHT_LOG_SD, n)
    log_size += -0.05 * family["smoked"] + 0.004 * (family["maternal_bmi"] - 24.5)
    breastfed_logit = (
        c.BREASTFED_LOGIT
        + 0.5 * family["non_belgian"]
        - 0.5 * family["deprived"]
        + 0.4 * (family["education"] == 2)
        - 0.8 * family["smoked"]
        - 0.7 * preterm
    )
    return {
        "boy": boy,
        "gestation": weeks,
        "birth_weight": np.clip(_by_sex(c.BIRTH_WEIGHT, boy) * np.exp(log_size), 0.4, 5.8),
        "breastfed": rng.random(n) < _expit(breastfed_logit),
    }


def _growth(home: Codes, known: Columns, rng: np.random.Generator) -> Columns:
    n = home.size
    boy = known["boy"].astype(bool)
    explained = _explained(known, boy)
    baseline = _at(home, lambda p: p.baseline)
    first, second = rng.standard_normal(n), rng.standard_normal(n)
    rho = c.RESIDUAL_CORRELATION
    later = rho * first + np.sqrt(1.0 - rho**2) * second
    sd2, sd6 = (_left_over(total, boy, explained) for total in (c.SD_Z_2Y, c.SD_Z_6Y))
    z2 = _by_sex(c.MEAN_Z_2Y, boy) + 0.5 * baseline + explained + sd2 * first
    z6 = _by_sex(c.MEAN_Z_6Y, boy) + baseline + explained + sd6 * later
    bmi_2y = _bmi(z2, boy, c.LMS_2Y)
    mean, variation = (_by_sex(column, boy) for column in zip(*c.HEIGHT_2Y, strict=True))
    metres = mean * (1.0 + variation * rng.standard_normal(n)) / 100.0
    return {"bmi_2y": bmi_2y, "bmi_6y": _bmi(z6, boy, c.LMS_6Y), "weight_2y": bmi_2y * metres**2}


def _explained(known: Columns, boy: Flags) -> Floats:
    """The part of the BMI z-score the statements at birth account for, with mean zero."""
    weight = known["birth_weight"]
    weight_z = np.clip((weight - _by_sex(c.BIRTH_WEIGHT, boy)) / 0.45, -3.5, 3.5)
    effect = (
        c.EFFECT_NON_BELGIAN * known["non_belgian"]
        + c.EFFECT_DEPRIVED * known["deprived"]
        + c.EFFECT_MATERNAL_BMI * known["maternal_bmi"]
        + c.EFFECT_BIRTH_WEIGHT_Z * weight_z
        + c.EFFECT_SMOKED * known["smoked"]
        + c.EFFECT_BREASTFED * known["breastfed"]
    )
    return np.asarray(effect - effect.mean(), dtype=np.float64)


def _left_over(total: tuple[float, float], boy: Flags, explained: Floats) -> Floats:
    """SD of the noise that brings the z-score to its total SD."""
    return np.asarray(np.sqrt(_by_sex(total, boy) ** 2 - explained.var()), dtype=np.float64)


def _bmi(z: Floats, boy: Flags, lms: tuple[tuple[float, float, float], ...]) -> Floats:
    """BMI in kg/m2 at a z-score kept within 4: M (1 + L S z)^(1/L) [Cole2012]."""
    power, median, spread = (_by_sex(column, boy) for column in zip(*lms, strict=True))
    return np.asarray(median * (1.0 + power * spread * np.clip(z, -4.0, 4.0)) ** (1.0 / power))


def _by_sex(girl_boy: tuple[float, ...], boy: Flags) -> Floats:
    return np.where(boy, girl_boy[1], girl_boy[0])


def _yes_no(flags: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.where(flags, "yes", "no")


def _logit(p: Floats) -> Floats:
    return np.log(p / (1.0 - p))


def _expit(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))
