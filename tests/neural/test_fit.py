"""A fitted network: predictions of a patient's own, words for a report, and its numbers as matrices."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.core.cohorts import Cohort
from ahh_federated.neural.fit import NeuralFit, NeuralPredictor, spread_of
from ahh_federated.neural.queries import Point, inputs
from tests.neural.populations import AGE, BMI, OUTCOMES, SEX, ZONE, network, patients, some_theta

INDICATORS = Design((AGE, BMI, SEX, ZONE), indicators=True, interactions=((AGE, SEX),))
PLAIN = Design((AGE, BMI, SEX, ZONE))


def predictor(family: str, seed: int = 1, design: Design = PLAIN) -> NeuralPredictor:
    outcome, terms = OUTCOMES[family], design.width - 1
    shape = network(outcome.outputs)
    shape = type(shape)(terms, shape.hidden, shape.outputs)
    scale = Scale((0.2,) * terms, (0.4,) * terms, 1.0)
    centre, spread = {"continuous": (0.1, 0.3), "count": (2.0, 1.0)}.get(family, (0.0, 1.0))
    return NeuralPredictor(design, outcome, shape, Point(scale, centre, spread, tuple(some_theta(shape, seed).tolist())))


def fitted(family: str, **other: Any) -> NeuralFit:
    found = predictor(family)
    counts = {"binary": (900.0, 100.0, 50.0), "levels": (600.0, 300.0, 100.0, 50.0)}.get(family, (1000.0, 50.0))
    return NeuralFit(found, "sgd", {"clip": 1.5}, spread_of(found), counts, 5.0, ("a", "b"), 42, **other)


@pytest.mark.parametrize("family", OUTCOMES)
@pytest.mark.parametrize("design", [PLAIN, INDICATORS], ids=["complete cases", "indicators"])
def test_a_prediction_is_its_patients_own(family: str, design: Design) -> None:
    columns = patients(700, 2)
    columns["age"][::9] = np.nan
    cohort = Cohort.of(columns)
    model = predictor(family, design=design)
    whole = model.linear(cohort)
    assert whole.shape == ((700, 3) if family == "levels" else (700,))
    for start, stop in [(0, 1), (5, 6), (13, 14), (100, 137), (350, 700)]:
        assert np.array_equal(model.linear(cohort.part(start, stop)), whole[start:stop], equal_nan=True)
    unknown = np.isnan(whole).reshape(700, -1).any(axis=1)
    assert unknown.tolist() == ([False] * 700 if design.indicators else np.isnan(columns["age"]).tolist())


@pytest.mark.parametrize("family", OUTCOMES)
def test_the_matrices_are_the_model(family: str) -> None:
    """What a file, ONNX and scikit-learn are made of."""
    fit, cohort = fitted(family), Cohort.of(patients(50, 3))
    weights = fit.weights()
    x, _ = inputs(fit.design, fit.predictor.point.scale, cohort)
    a = np.tanh(x @ weights.layers[0][0].T + weights.layers[0][1])
    assert weights.direct is not None
    outputs = a @ weights.layers[1][0].T + weights.layers[1][1] + x @ weights.direct.T
    point = fit.predictor.point
    np.testing.assert_allclose(
        fit.linear(cohort), fit.predictor.target.linear(outputs, point.centre, point.spread), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("family", OUTCOMES)
def test_it_says_what_a_report_needs(family: str) -> None:
    content = fitted(family).to_json()
    json.dumps(content, allow_nan=False)
    assert content["layers"] == [5, 8, OUTCOMES[family].outputs]
    assert content["family"] == family
    assert content["n"]["value"] == pytest.approx(1000.0)
    assert content["complete"]["value"] == pytest.approx(1000 / 1050)
    assert content["rounds"] == 42
    assert ("events" in content) == (family == "binary")
    assert bool(content["notes"]) == bool(OUTCOMES[family].weights)


def test_with_nobody_no_share_is_said() -> None:
    content = NeuralFit(predictor("binary"), "sgd", {"clip": 1.5}, (0.0, 1.0), (1.0, -2.0, 0.5), 5.0, (), 42).to_json()
    assert content["complete"]["value"] is None


@pytest.mark.parametrize("family", ["binary", "continuous", "count"])
def test_the_spread_is_near_that_of_patients_with_these_moments(family: str) -> None:
    """Independent normal columns with the model's own centres and spreads."""
    model, rng, size = predictor(family, 4), np.random.default_rng(1), 20_000
    draw = {c.name: np.array([c.unscaled(u) for u in np.clip(rng.normal(0.2, 0.4, size), -1, 1)]) for c in (AGE, BMI)}
    draw["sex"] = (rng.random(size) < 0.2).astype(np.float64)
    draw["zone"] = rng.choice(3, size, p=[0.6, 0.2, 0.2]).astype(np.float64)
    linear = model.linear(Cohort.of(draw))
    mean, sd = spread_of(model)
    assert mean == pytest.approx(linear.mean(), abs=0.25 * linear.std())
    assert sd == pytest.approx(linear.std(), rel=0.25)
