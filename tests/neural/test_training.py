"""The analysis: its schedule, its program under every driver, what it refuses, and what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.metrics import roc_auc_score

from ahh_federated.analyses.models import Model, ModelAnalysis
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget, Spent
from ahh_federated.core.programs import check_schedule
from ahh_federated.core.queries import Local, Query, Rows, Stack
from ahh_federated.core.releases import Status
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.errors import Breach, Misuse
from ahh_federated.neural.fit import NeuralFit
from ahh_federated.neural.queries import Gradient, LocalTraining
from ahh_federated.neural.training import DEFAULTS, WAYS, Neural
from tests.analyses.drivers import exactly, split
from tests.architecture.source import ROOT
from tests.neural.gated import events, gated
from tests.neural.populations import CASE, DESIGN, PRESSURE, STAGE, VISITS, patients

pytest.importorskip("torch", reason="needs torch: install the extra `neural`")
pytest.importorskip("opacus", reason="needs opacus: install the extra `neural`")

GENEROUS = Budget(8.0, 1e-3)
BINARY = Neural(DESIGN, CASE, "binary", hidden=(8,))
SAMPLE = [
    BINARY,
    replace(BINARY, sampling_rate=0.2, rounds=10),
    replace(BINARY, way="local", rounds=4, local_steps=5),
    replace(BINARY, way="local", rounds=4, local_steps=5, sampling_rate=0.2, server_optimiser="fedprox"),
    Neural(DESIGN, STAGE, "levels"),
    Neural(DESIGN, PRESSURE, "continuous"),
    Neural(DESIGN, VISITS, "count"),
]
every_way = pytest.mark.parametrize("analysis", SAMPLE, ids=lambda a: f"{a.family} {a.way} {a.sampling_rate:g}")


def cohorts(size: int, seed: int, partners: int = 3) -> dict[str, Cohort]:
    return split(patients(size, seed), partners)


def whole(size: int, seed: int) -> Cohort:
    return Cohort.of(patients(size, seed))


@every_way
def test_the_schedule_is_sound_and_public(analysis: Neural) -> None:
    lines = check_schedule(analysis.schedule())
    assert len(lines) == 1 + analysis.rounds
    assert sum(line.share for line in lines) == pytest.approx(1.0)
    assert {line.width for line in lines[1:]} == {analysis.network.width}
    assert isinstance(analysis, ModelAnalysis)


@pytest.mark.parametrize(
    "analysis",
    [SAMPLE[0], SAMPLE[1], SAMPLE[2], pytest.param(SAMPLE[3], marks=pytest.mark.slow)],
    ids=lambda a: f"{a.way} {a.sampling_rate:g}",
)
def test_a_whole_training_costs_no_more_than_its_budget(analysis: Neural) -> None:
    budget = Budget(1.0, 1e-5)
    assert Spent.of(events(analysis, budget)).mu_squared <= budget.mu_squared * (1 + 1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_the_public_defaults_make_a_training(way: str) -> None:
    analysis = Neural(DESIGN, CASE, "binary", way=way, **DEFAULTS[way])
    assert check_schedule(analysis.schedule())


def test_a_sampled_training_is_one_plan_and_a_full_one_is_single_steps() -> None:
    sampled = replace(BINARY, sampling_rate=0.25, rounds=7).schedule()[1:]
    assert [(line.place, line.count, line.rate, line.steps) for line in sampled] == [(k, 7, RATE_ONE // 4, 1) for k in range(7)]
    assert [line.share > 0 for line in sampled] == [True, *[False] * 6]
    local = replace(BINARY, way="local", rounds=3, local_steps=5).schedule()[1:]
    assert [(line.place, line.count, line.rate, line.steps) for line in local] == [(k, 15, RATE_ONE, 5) for k in range(3)]
    assert not any(line.planned for line in BINARY.schedule())


def standard(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Standardised and clipped at eight standard deviations, as a design does it."""
    x = np.stack([columns["age"], columns["bmi"], columns["sex"], columns["zone"] == 1, columns["zone"] == 2], axis=1)
    return np.clip((x - x.mean(axis=0)) / x.std(axis=0), -8, 8)


def test_without_layers_or_noise_it_is_a_logistic_regression() -> None:
    fit = exactly(replace(BINARY, hidden=(), rounds=150, optimiser="sgd", learning_rate=3.0), cohorts(600, 1, partners=1))
    columns = patients(600, 1)
    pooled = LogisticRegression(C=1e8, max_iter=5000).fit(standard(columns), columns["case"])
    expected, found = pooled.decision_function(standard(columns)), fit.linear(whole(600, 1))
    assert np.abs(found - expected).max() < 0.02


def test_without_layers_or_noise_a_count_is_a_poisson_regression() -> None:
    columns = patients(600, 2)
    pooled = PoissonRegressor(alpha=0, max_iter=5000).fit(standard(columns), columns["visits"])
    fit = exactly(Neural(DESIGN, VISITS, "count", hidden=(), rounds=150), cohorts(600, 2, partners=1))
    assert np.corrcoef(fit.linear(whole(600, 2)), np.log(pooled.predict(standard(columns))))[0, 1] > 0.99


def test_a_network_learns_what_no_line_can() -> None:
    line = exactly(replace(BINARY, hidden=()), cohorts(1500, 3, partners=1))
    bent = exactly(replace(BINARY, hidden=(16,)), cohorts(1500, 3, partners=1))
    fresh = whole(4000, 4)
    assert roc_auc_score(fresh["case"], bent.linear(fresh)) > roc_auc_score(fresh["case"], line.linear(fresh)) + 0.05


SOME = [
    (BINARY, 0.72),
    (replace(BINARY, sampling_rate=0.25), 0.67),
    (replace(BINARY, rounds=20, optimiser="sgd", learning_rate=1.0), 0.62),
    (replace(BINARY, way="local", rounds=4, local_steps=5, sampling_rate=0.25, learning_rate=0.2), 0.67),
    (replace(BINARY, way="local", rounds=4, local_steps=5, optimiser="sgd", learning_rate=0.3), 0.62),
    (replace(BINARY, way="local", rounds=6, server_optimiser="fedadam", local_steps=5, learning_rate=0.2), 0.62),
]


@pytest.mark.slow
@pytest.mark.parametrize(("analysis", "least"), SOME)
def test_through_the_real_gate_it_predicts(analysis: Neural, least: float) -> None:
    """Each query is rebuilt from its own parameters, as at a node.  A line gets .66 without any noise.  Means of three runs."""
    fits: list[NeuralFit] = [gated(analysis, cohorts(3000, 5), GENEROUS, seed=seed) for seed in (1, 2, 3)]
    fresh = whole(2000, 6)
    assert np.mean([roc_auc_score(fresh["case"], fit.linear(fresh)) for fit in fits]) > least


@pytest.mark.parametrize(
    "analysis",
    [
        replace(BINARY, rounds=8, sampling_rate=0.25),
        replace(BINARY, rounds=2, way="local", local_steps=4, learning_rate=0.2),
    ],
    ids=lambda a: a.way,
)
def test_ways_run_through_the_real_gate(analysis: Neural) -> None:
    fit: NeuralFit = gated(analysis, cohorts(1200, 5, partners=2), GENEROUS, seed=1)
    fresh = whole(1500, 6)
    assert roc_auc_score(fresh["case"], fit.linear(fresh)) > 0.58
    assert isinstance(fit, Model)
    assert fit.rounds == len(analysis.schedule())


@pytest.mark.slow
@pytest.mark.parametrize("analysis", SAMPLE[4:], ids=lambda a: a.family)
def test_other_families_through_the_real_gate(analysis: Neural) -> None:
    fit: NeuralFit = gated(replace(analysis, rounds=25), cohorts(3000, 7), GENEROUS, seed=2)
    fresh = whole(1500, 8)
    linear, truth = fit.linear(fresh), fresh[analysis.outcome.name]
    score = linear @ np.arange(3.0) if analysis.family == "levels" else linear
    assert np.corrcoef(score, truth)[0, 1] > 0.35
    if analysis.family == "continuous":
        assert abs(linear.mean() - truth.mean()) < 3.0


def test_a_run_repeats_itself() -> None:
    one, other = (gated(replace(BINARY, rounds=2), cohorts(100, 9), GENEROUS, seed=3) for _ in range(2))
    assert one.parameters() == other.parameters()


def test_a_partner_that_fell_silent_is_not_in_the_model() -> None:
    fit = exactly(replace(BINARY, rounds=2), cohorts(200, 10), silent={"partner 9": Status.OFFLINE})
    assert fit.partners == ("partner 0", "partner 1", "partner 2")
    assert sum(fit.counts) == 200


def test_no_budget_makes_a_model_that_fails() -> None:
    """Noise far above the signal: numbers that mean nothing, and every one of them finite."""
    for analysis in (replace(BINARY, rounds=10), replace(BINARY, way="local", rounds=2, learning_rate=10.0)):
        fit = gated(analysis, cohorts(60, 11), Budget(0.01, 1e-6), seed=4)
        assert np.isfinite(fit.linear(whole(100, 12))).all()
        json.dumps(fit.to_json(), allow_nan=False)


@every_way
def test_a_node_rebuilds_each_query_from_its_parameters(analysis: Neural) -> None:
    kinds = {type(query) for query in asked(analysis)}
    training = LocalTraining if analysis.way == "local" else Gradient
    assert kinds == {Stack, training}
    for query in asked(analysis):
        assert analysis.query(query.kind, query.parameters()) == query
        assert isinstance(query, Stack) + isinstance(query, Local) + isinstance(query, Rows) == 1


def asked(analysis: Neural) -> list[Query]:
    """The first two queries of a program that gets nothing but zeros."""
    from ahh_federated.core.releases import Exact, Round

    program, found = analysis.program(), []
    query = next(program)
    for _ in range(2):
        found.append(query)
        query = program.send(Round(query, {"a": Exact(np.zeros(query.width))}))
    return found


def changed(parameters: dict[str, list[float]], **other: Any) -> dict[str, Any]:
    return {**parameters, **other}


@pytest.mark.parametrize(
    "wrong",
    [
        {"theta": [0.0]},
        {"theta": None},
        {"spread": [0.0] * 5},
        {"centre": [float("nan")] * 5},
        {"patients": [0.0]},
        {"patients": []},
        {"learning_rate": [-0.1]},
        {"learning_rate": None},
    ],
    ids=str,
)
def test_numbers_that_do_not_fit_are_a_breach(wrong: dict[str, Any]) -> None:
    analysis = replace(BINARY, way="local")
    good = dict(asked(analysis)[1].parameters())
    with pytest.raises(Breach):
        analysis.query(LocalTraining.kind, changed(good, **wrong))


def test_a_count_cannot_be_divided_by_a_mean_of_zero() -> None:
    analysis = Neural(DESIGN, VISITS, "count")
    good = dict(asked(analysis)[1].parameters())
    with pytest.raises(Breach):
        analysis.query(Gradient.kind, changed(good, outcome_centre=[0.0]))


def test_a_way_asks_no_query_of_the_other() -> None:
    good = asked(BINARY)[1].parameters()
    with pytest.raises(Breach):
        replace(BINARY, way="local").query(Gradient.kind, good)
    with pytest.raises(Breach):
        BINARY.query("glm.gram/2", {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden": (0,)},
        {"hidden": (8,) * 9},
        {"hidden": (4096,)},
        {"activation": "sine"},
        {"architecture": "transformer"},
        {"way": "swarm"},
        {"optimiser": "lbfgs"},
        {"server_optimiser": "krum"},
        {"rounds": 0},
        {"rounds": 1001},
        {"local_steps": 0},
        {"way": "local", "rounds": 1000, "local_steps": 100},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.5},
        {"clip": 0.0},
        {"learning_rate": 0.0},
        {"proximal": -1.0},
        {"class_weights": (1.0,)},
        {"family": "count"},
    ],
    ids=str,
)
def test_what_cannot_work_is_misuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(Misuse):
        replace(BINARY, **wrong)


REPLAYED = """
import sys
import numpy as np
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.programs import drive
from ahh_federated.core.releases import Exact, Round
from ahh_federated.neural.training import Neural
from tests.neural.populations import CASE, DESIGN, patients

analysis = Neural(DESIGN, CASE, "binary", rounds=3)
fit = drive(analysis, lambda number, line, query: Round(query, {"a": Exact(np.full(query.width, 50.0))}))
fit.linear(Cohort.of(patients(10, 1))), fit.to_json(), analysis.predictor(fit.parameters())
print([name for name in ("torch", "opacus") if name in sys.modules])
"""


def test_only_gradients_need_torch() -> None:
    """A quote, a replay and a prediction import neither torch nor Opacus."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", REPLAYED], capture_output=True, text=True, env=environment, check=True)
    assert ended.stdout.split() == ["[]"]


def test_a_node_without_torch_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ahh_federated.neural.gradients", None)
    query = asked(BINARY)[1]
    assert isinstance(query, Gradient)
    with pytest.raises(Misuse, match=r"ahh-federated\[neural\]"):
        query.rows(whole(3, 1))
