"""Simulated patients with a known logistic truth."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Column, Levels, Numeric

AGE = Numeric("age", 0.0, 18.0, "years")
BMI = Numeric("bmi", 10.0, 40.0, "kg/m2")
ACTIVE = Numeric("active", 0.0, 20.0, "hours a week")
SEX = Levels("sex", ("boy", "girl"))
ZONE = Levels("zone", ("north", "east", "south"))
CASE = Levels("case", ("no", "yes"))
FEATURES: tuple[Column, ...] = (AGE, BMI, ACTIVE, SEX, ZONE)

# Log odds per unit: intercept, age, bmi, active, girl, east, south.
TRUTH = np.array([-4.2, 0.08, 0.12, -0.06, 0.4, -0.3, 0.5])


def patients(size: int, seed: int) -> dict[str, F64]:
    """Columns by name; age, weight and activity hang together, none is normal, the outcome is well specified."""
    rng = np.random.default_rng(seed)
    age = 18 * rng.beta(2, 2, size)
    bmi = np.clip(14 + 0.4 * age + rng.gamma(3.0, 1.4, size), 10, 40)
    active = np.clip(rng.exponential(5.0, size) + 0.2 * (18 - age), 0, 20)
    sex = rng.integers(0, 2, size).astype(np.float64)
    zone = rng.choice(3, size, p=[0.5, 0.3, 0.2]).astype(np.float64)
    matrix = np.stack([np.ones(size), age, bmi, active, sex, zone == 1, zone == 2], axis=1)
    case = (rng.random(size) < expit(matrix @ TRUTH)).astype(np.float64)
    return {"age": age, "bmi": bmi, "active": active, "sex": sex, "zone": zone, "case": case}


def matrix_of(columns: dict[str, F64]) -> F64:
    """The design matrix in the columns' own units, for an outside library."""
    size = len(columns["age"])
    zone = columns["zone"]
    terms = [np.ones(size), columns["age"], columns["bmi"], columns["active"], columns["sex"], zone == 1, zone == 2]
    return np.stack([np.asarray(term, dtype=np.float64) for term in terms], axis=1)
