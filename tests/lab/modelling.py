"""A study with a model of every kind, on made-up patients whose table is as untidy as real ones."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.models import Family
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.lab.models.fitted import Fitted, fitted, form_of
from ahh_federated.lab.studies import StudyResults
from ahh_federated.neural.architecture import Activation, Network
from ahh_federated.neural.families import Outcome
from ahh_federated.neural.fit import NeuralPredictor
from ahh_federated.neural.queries import Point
from ahh_federated.runtimes import running
from ahh_federated.runtimes.frames import read_columns
from ahh_federated.study import Study, parse_study

TEXT = """
[study]
id = "models"
title = "Models of every kind"
purpose = "Tests."
version = 1
consortium = "harbour"
minimum_partners = 1
expires = 2099-12-31
data = "synthetic"

[requester]
name = "A researcher"
organisation = "A university"
permit = "fictitious-1"

[privacy]
epsilon = 3.5
delta = 1e-6
neighbours = "add-or-remove-one"
noise = "each-node"

[patient]
key = "child"

[columns.sex]
levels = ["girl", "boy"]

[columns.smoked]
levels = ["no", "yes", "stopped"]
missing = ["unclear"]

[columns.parity]
levels = ["0", "1", "2"]

[columns.weight]
range = [0.5, 5.5]
unit = "kg"
missing = [1.111]

[columns.income]
range = [0, 50]
unit = "1000 EUR"
outside = "clip"

[columns.bmi]
range = [10, 35]
unit = "kg/m2"

[columns.visits]
range = [0, 40]
unit = "visits"

[cases.heavy]
label = "Heavy for the age"
when = "bmi >= 20"

[cases.small]
when = "weight < 2.5 and not sex == 'boy'"
"""

FEATURES = '["sex", "smoked", "weight", "income"]'
PAIRS = '[["weight", "income"], ["sex", "weight"], ["smoked", "sex"]]'
ASKS: Mapping[str, str] = {
    "plain": f'analysis = "logistic"\noutcome = "heavy"\nfeatures = {FEATURES}',
    "gaps": f'analysis = "logistic"\noutcome = "heavy"\nfeatures = {FEATURES}\nmissing = "indicator"',
    "case": 'analysis = "logistic"\noutcome = "heavy"\nfeatures = ["small", "parity"]',
    "pairs": f'analysis = "logistic"\noutcome = "heavy"\nfeatures = {FEATURES}\nmissing = "indicator"\ninteractions = {PAIRS}',
    "line": f'analysis = "linear"\noutcome = "bmi"\nfeatures = {FEATURES}\ninteractions = {PAIRS}',
    "curves": f'analysis = "additive"\noutcome = "heavy"\nfeatures = {FEATURES}\nknots = {{ weight = [2.5, 3.5] }}',
    "values": f'analysis = "additive"\noutcome = "bmi"\nfeatures = {FEATURES}\nmissing = "indicator"\ninteractions = {PAIRS}',
}

JUDGED: Mapping[str, str] = {  # asks about the models of others
    "choice": 'analysis = "select"\nselect = ["plain", "gaps"]',
    "places": 'analysis = "recalibration"\nmodel = "plain"',
    "settled": 'analysis = "recalibration"\nmodel = "choice"',
}
TRAINED: Mapping[str, str] = {
    "network": f'analysis = "neural"\noutcome = "heavy"\nfeatures = {FEATURES}\nhidden = [4]\nrounds = 3',
    "visits": f'analysis = "neural"\noutcome = "visits"\nfamily = "count"\nfeatures = {FEATURES}\nhidden = [3, 2]\nrounds = 2',
}


def study(*asks: str, **about: Any) -> Study:
    """The study with these asks, and keys of [study] set otherwise."""
    every, chosen = {**ASKS, **JUDGED, **TRAINED}, asks or tuple(ASKS)
    blocks = [f'[[ask]]\nid = "{ask}"\nshare = {1 / len(chosen):.6f}\n{every[ask]}\n' for ask in chosen]
    content = tomllib.loads(TEXT + "\n".join(blocks))
    content["study"] |= about
    return parse_study(content)


def rows(patients: int = 3_000, seed: int = 1) -> pd.DataFrame:
    """One row a patient, as a CSV would hold it: texts, gaps, codes, values out of range, levels that nobody declared."""
    rng = np.random.default_rng(seed)
    weight, income = rng.normal(3.3, 0.7, patients), rng.gamma(3.0, 9.0, patients)
    boy, smoked = rng.random(patients) < 0.5, rng.choice(3, patients, p=[0.6, 0.25, 0.15])
    bmi = (
        18 + 1.5 * np.abs(weight - 3.3) + 0.8 * (smoked == 1) + 0.3 * boy * weight - 0.03 * income + rng.normal(0, 2.0, patients)
    )
    table = pd.DataFrame(
        {
            "child": [f"p{k}" for k in range(patients)],
            "sex": np.where(boy, "boy", "girl"),
            "smoked": np.array(["no", "yes", "stopped"])[smoked],
            "parity": rng.integers(0, 3, patients).astype(str),
            "weight": [f"{value:.3f}" for value in np.clip(weight, 0.6, 5.4)],
            "income": [f"{value:.2f}" for value in income],
            "bmi": [f"{value:.2f}" for value in np.clip(bmi, 10.1, 34.9)],
            "visits": rng.poisson(3.0, patients).astype(str),
        }
    )
    for name, cells in {
        "sex": ["", "NA", "  boy "],
        "smoked": ["unclear", "", "null"],
        "weight": ["", "1.111", "9.5", "0.1", " 3.5 ", "inf", "3e0"],
        "income": ["", "-4", "70", "NaN"],
    }.items():
        places = rng.choice(patients, 20 * len(cells), replace=False)
        table.loc[places, name] = np.tile(cells, 20)
    return table


def clean(model: Fitted, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that a model reads, cases too: measured ones as numbers, levels as text; NaN and None where not known."""
    read = read_columns(frame, model.columns, model.cases.values())
    cells: dict[str, Any] = {}
    for name, column in model.features.items():
        if isinstance(column, Levels):
            cells[name] = [None if np.isnan(code) else column.levels[int(code)] for code in read[name]]
        else:
            cells[name] = read[name]
    return pd.DataFrame(cells)


@cache
def results(exact: bool = False) -> StudyResults:
    """The study run once, by one partner."""
    return StudyResults(running.run(study(), {"north": rows()}, mode=running.Mode(seed=None if exact else 1, exact=exact)))


@cache
def model(ask: str) -> Fitted:
    """The model of an ask."""
    return fitted(results().results, ask)


TEMPORARY = TemporaryDirectory()

OUTCOMES: Mapping[Family, Column] = {
    "binary": Levels("heavy", ("yes", "no")),  # not in the order of the alphabet
    "levels": Levels("size", ("usual", "thin", "heavy")),
    "continuous": Numeric("bmi", 10.0, 35.0, "kg/m2"),
    "count": Numeric("visits", 0.0, 40.0, "visits"),
}


def predictor(family: Family, activation: Activation = "tanh", *, unknown: bool = False, direct: bool = True) -> NeuralPredictor:
    """A network that nobody trained, on columns, levels and products of them."""
    declared = study().columns
    features = tuple(declared[name] for name in ("sex", "smoked", "weight", "income"))
    sex, _, weight, income = features
    design = Design(features, unknown, ((weight, income), (sex, weight)))
    target = Outcome(OUTCOMES[family], family)
    shape = Network(design.width - 1, (6, 5), target.outputs, activation, "wide-deep" if direct else "mlp")
    rng, terms = np.random.default_rng(3), design.width - 1
    centre, spread = rng.uniform(-0.3, 0.3, terms), rng.uniform(0.1, 0.4, terms)
    centre[-2:], spread[-2:] = 0.1, 1.2  # of products
    scale = Scale(tuple(centre), tuple(spread), 1.0)
    return NeuralPredictor(design, target, shape, Point(scale, 0.2, 0.5, tuple(rng.normal(size=shape.width))))


def network(family: Family, activation: Activation = "tanh", *, unknown: bool = False, direct: bool = True) -> Fitted:
    """The same, as a researcher keeps it."""
    made = predictor(family, activation, unknown=unknown, direct=direct)
    columns = {column.name: column for column in made.features}
    receipt = {**model("plain").receipt, "ask": "network"}
    answer = {"outcome": made.outcome.name}
    return Fitted("neural", family, "A network", made.outcome, made.outcome.name, columns, {}, form_of(made), answer, receipt)
