"""Choosing among models by one paid message."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.models import Model, ModelAnalysis
from ahh_federated.analyses.scores import Scores
from ahh_federated.analyses.selection import Chosen, Selection
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.errors import Breach
from tests.analyses.drivers import exactly, noised, split
from tests.analyses.populations import AGE, CASE, FEATURES, patients

POOR, GOOD = Logistic(Design((AGE,)), CASE), Logistic(Design(FEATURES), CASE)
SELECTION = Selection(("poor", "good"), (POOR, GOOD))


@pytest.fixture(scope="module")
def models() -> tuple[Model, ...]:
    trained = split(patients(4000, seed=1), 2)
    return tuple(exactly(Logistic(each.design, CASE, EXACT_ROUNDS, exact=True), trained) for each in (POOR, GOOD))


def test_the_better_model_is_chosen_and_its_loss_is_the_brier_score(models: tuple[Model, ...]) -> None:
    tested = patients(6000, seed=2)
    chosen = exactly(SELECTION.of(*models), split(tested, 3))
    assert isinstance(chosen, Chosen)
    assert isinstance(chosen, Model)
    assert (chosen.ask, chosen.model) == ("good", models[1])
    told = chosen.to_json()
    for each, model in zip(told["candidates"], models, strict=True):
        risk = 1 / (1 + np.exp(-model.linear(Cohort.of(tested))))
        assert each["loss"]["value"] == pytest.approx(brier_score_loss(tested["case"], risk), rel=1e-9)


def test_a_node_rebuilds_the_question_and_the_chosen_model_from_numbers(models: tuple[Model, ...]) -> None:
    cohort = Cohort.of(patients(50, seed=3))
    query = next(SELECTION.of(*models).program())
    again = SELECTION.exactly().query(query.kind, query.parameters())  # the models come from an exact run
    assert np.array_equal(again.rows(cohort), query.rows(cohort))
    chosen = exactly(SELECTION.of(*models), {"a": Cohort.of(patients(4000, seed=4))})
    rebuilt = SELECTION.exactly().predictor(chosen.parameters())
    assert rebuilt.parameters() == chosen.parameters()
    assert np.array_equal(rebuilt.linear(cohort), chosen.linear(cohort))
    table = exactly(Scores(SELECTION, (0.2,)).of(chosen), split(patients(3000, seed=5), 2))
    assert table.to_json()["overall"]["auroc"]["value"] > 0.6


def test_a_selection_is_a_model_analysis() -> None:
    assert isinstance(SELECTION, ModelAnalysis)
    assert SELECTION.features == FEATURES


@pytest.mark.parametrize(
    "change",
    [
        {"choice": [2.0]},
        {"choice": [0.5]},
        {"choice": [-1.0]},
        {"choice": []},
    ],
)
def test_a_choice_that_is_none_is_a_breach(change: dict[str, list[float]], models: tuple[Model, ...]) -> None:
    parameters = {"choice": [1.0], **models[1].parameters(), **change}
    with pytest.raises(Breach):
        SELECTION.predictor(parameters)


@pytest.mark.parametrize("name", ["2.beta", "beta", ".beta", "x.beta", "-1.beta", "1000000.beta", "\u0661.beta"])
def test_a_parameter_of_no_candidate_is_a_breach(name: str, models: tuple[Model, ...]) -> None:
    query = next(SELECTION.of(*models).program())
    with pytest.raises(Breach):
        SELECTION.query(query.kind, {**query.parameters(), name: [1.0]})


def test_with_noise_the_better_model_still_wins_mostly(models: tuple[Model, ...]) -> None:
    wins = sum(
        noised(SELECTION.of(*models), split(patients(4000, seed=10 + k), 2), Budget(1.0, 1e-6), k).ask == "good"
        for k in range(10)
    )
    assert wins >= 8
