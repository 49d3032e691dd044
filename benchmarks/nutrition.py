"""Made-up children of 0 to 5 years, some of whom waste within six months.

Nine measured columns and five with levels; the truth has thresholds (arm circumference, haemoglobin), a hump at 14 months, an
interaction of breastfeeding with age, and a part that no column shows.  Six partners of unequal size differ in poverty,
weight, diarrhoea and in a risk of their own.  About 9 % waste.  The targets of additive models were set on these children.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit

from ahh_federated.core.cohorts import F64
from benchmarks.readers import Frames, split_by

PARTNERS = {"zone-a": 0.40, "zone-b": 0.25, "zone-c": 0.15, "zone-d": 0.10, "zone-e": 0.07, "zone-f": 0.03}
WATER, SEASONS = ("piped", "well", "tanker", "river"), ("dry", "short-rains", "hungry", "harvest")
_DIFFER = np.array([0.35, 0.35, 0.4, 0.3])  # sd between partners: poverty, weight, diarrhoea, risk
_DIFFERENCES = np.random.default_rng(7).normal(size=(len(PARTNERS), 4)) * _DIFFER


def wasting_children(children: int, seed: int = 0) -> Frames:
    """So many children in all, dealt to the partners."""
    rng = np.random.default_rng(seed)
    place = rng.choice(len(PARTNERS), children, p=list(PARTNERS.values()))
    poverty, weight, diarrhoea, risk = _DIFFERENCES[place].T
    poverty = np.clip(rng.normal(poverty), -3, 3)
    age = np.clip(rng.gamma(2.2, 11, children), 0, 59.9)
    birth = np.clip(rng.normal(3.05 - 0.12 * poverty, 0.48), 1, 5)
    waz = np.clip(rng.normal(-0.7 - 0.3 * poverty + 0.5 * (birth - 3) + 0.3 * weight, 1.05), -5, 4)
    table = {
        "child": np.arange(children),
        "age": age,
        "birth_weight": birth,
        "weight_for_age": waz,
        "height_for_age": np.clip(0.55 * waz + rng.normal(-0.8, 0.9, children), -6, 4),
        "arm": np.clip(rng.normal(142 + 7 * (waz + 0.7) + 0.18 * (age - 24), 8.5), 90, 200),
        "diarrhoea": np.clip(rng.poisson(np.exp(-0.9 + 0.25 * poverty + 0.3 * diarrhoea)), 0, 10),
        "schooling": np.clip(np.round(rng.normal(6 - 1.6 * poverty, 3.4)), 0, 16),
        "household": np.clip(rng.poisson(5 + 0.5 * (poverty > 0)), 1, 15),
        "haemoglobin": np.clip(rng.normal(11 + 0.4 * waz - 0.25 * poverty, 1.3), 4, 17),
        "sex": rng.integers(0, 2, children),
        "breastfed": rng.random(children) < expit(3 - age / 7),
        "water": np.clip(np.floor((poverty + rng.normal(0, 0.8, children) + 3) / 1.6), 0, 3).astype(int),
        "vaccines": rng.binomial(2, expit(1 - 0.5 * poverty)),
        "season": rng.integers(0, 4, children),
    }
    wastes = rng.random(children) < expit(_predictor(table, poverty, risk))
    return split_by(pd.DataFrame({**table, **_words(table), "wasting": _yes(wastes)}), np.array(list(PARTNERS))[place])


def _predictor(of: dict[str, np.ndarray], poverty: F64, risk: F64) -> F64:
    """The true log odds of wasting."""
    thin = np.clip((127 - of["arm"]) / 8, -0.6, 3)
    weaning = np.exp(-(((of["age"] - 14) / 7) ** 2))
    anaemia = (11 - of["haemoglobin"]) * (of["haemoglobin"] < 11)
    straight = -0.45 * (of["weight_for_age"] + 0.7) - 0.05 * of["schooling"] - 0.15 * of["vaccines"] + 0.1 * of["sex"]
    levels = 0.25 * (of["water"] == 3) + 0.5 * (of["season"] == 2) - 0.35 * of["breastfed"] * (of["age"] < 24)
    bent = 0.9 * thin + 1.1 * weaning + 0.35 * np.minimum(of["diarrhoea"], 3) + 0.18 * anaemia
    return np.asarray(-2.6 + bent + straight + levels + 0.22 * poverty + 0.6 * risk)


def _words(of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "sex": np.array(["girl", "boy"])[of["sex"]],
        "breastfed": _yes(of["breastfed"]),
        "water": np.array(WATER)[of["water"]],
        "vaccines": np.array(["none", "some", "all"])[of["vaccines"]],
        "season": np.array(SEASONS)[of["season"]],
    }


def _yes(values: np.ndarray) -> np.ndarray:
    return np.where(values, "yes", "no")
