"""Simulated patients with outcomes of every family, partly linear in the features."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.design import GRID, Design, Scale
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.neural.architecture import Activation, Network
from ahh_federated.neural.families import Outcome
from ahh_federated.neural.queries import Gradient, Point

AGE = Numeric("age", 0.0, 18.0, "years")
BMI = Numeric("bmi", 10.0, 40.0, "kg/m2")
SEX = Levels("sex", ("boy", "girl"))
ZONE = Levels("zone", ("north", "east", "south"))
DESIGN = Design((AGE, BMI, SEX, ZONE))
CASE = Levels("case", ("no", "yes"))
STAGE = Levels("stage", ("none", "mild", "severe"))
PRESSURE = Numeric("pressure", 60.0, 180.0, "mmHg")
VISITS = Numeric("visits", 0.0, 30.0, "visits")
OUTCOMES = {
    "binary": Outcome(CASE, "binary", (1.0, 2.5)),
    "levels": Outcome(STAGE, "levels"),
    "continuous": Outcome(PRESSURE, "continuous"),
    "count": Outcome(VISITS, "count"),
}


def patients(size: int, seed: int) -> dict[str, F64]:
    """Columns by name; a line in bmi, its product with sex and a hump in age drive every outcome."""
    rng = np.random.default_rng(seed)
    age, bmi = 18 * rng.beta(2, 2, size), np.clip(14 + rng.gamma(3.0, 2.0, size), 10, 40)
    sex, zone = rng.integers(0, 2, size).astype(np.float64), rng.choice(3, size, p=[0.5, 0.3, 0.2]).astype(np.float64)
    risk = 2.5 * np.exp(-(((age - 9) / 3) ** 2)) + 0.15 * (bmi - 20) * (1 + sex) - 1.4
    stage = (rng.logistic(size=size) < risk).astype(np.float64) + (rng.logistic(size=size) < risk - 1)
    return {
        "age": age,
        "bmi": bmi,
        "sex": sex,
        "zone": zone,
        "case": (rng.random(size) < expit(risk)).astype(np.float64),
        "stage": stage,
        "pressure": np.clip(110 + 8 * risk + rng.normal(0, 6, size), 60, 180),
        "visits": np.minimum(rng.poisson(np.exp(0.4 * risk + 0.5)), 30).astype(np.float64),
    }


def network(
    outputs: int = 1, hidden: tuple[int, ...] = (8,), activation: Activation = "tanh", architecture: str = "wide-deep"
) -> Network:
    return Network(DESIGN.width - 1, hidden, outputs, activation, architecture)


def some_theta(shape: Network, seed: int, size: float = 0.5) -> F64:
    rng = np.random.default_rng(seed)
    return shape.initial(np.zeros(shape.outputs)) + rng.normal(0.0, size, shape.width)


def some_inputs(count: int, terms: int, seed: int) -> F64:
    rng = np.random.default_rng(seed)
    return np.trunc(np.clip(4 * rng.normal(size=(count, terms)), -15, 15) * GRID) / GRID


def gradient(
    family: str, seed: int, *, design: Design = DESIGN, hidden: tuple[int, ...] = (8,), activation: Activation = "tanh"
) -> Gradient:
    """A gradient query at a random point."""
    rng, outcome = np.random.default_rng(seed), OUTCOMES[family]
    terms = design.width - 1
    scale = Scale(tuple(rng.uniform(-0.5, 0.5, terms).tolist()), tuple(rng.uniform(0.1, 0.7, terms).tolist()), 1.0)
    shape = Network(terms, hidden, outcome.outputs, activation)
    theta = some_theta(shape, seed, 10.0 ** rng.uniform(-2, 1))
    centre, spread = {"continuous": (0.1, 0.3), "count": (2.0, 1.0)}.get(family, (0.0, 1.0))
    return Gradient(design, outcome, shape, 1.5, Point(scale, centre, spread, tuple(theta.tolist())))
