"""The speed benchmark compares like with like, and working memory does not grow with the number of patients."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from ahh_federated.core.sums import integer_sum, step
from benchmarks import speed


def test_the_kernel_and_numpy_compute_the_same_score() -> None:
    given = speed.problem(5_000, 6)
    released = integer_sum(given.score, given.cohort) * step(given.score)
    length = np.sqrt(1 + np.sum(given.x**2, axis=1))
    weight = np.minimum(1, (given.score.scale.radius / length) ** 2)
    plain = given.x.T @ (weight * (expit(given.x @ given.beta[1:] + given.beta[0]) - given.y))
    assert released[1:] == pytest.approx(plain, abs=1e-3 * np.abs(plain).max(), rel=0.01)


def test_memory_does_not_grow_with_the_number_of_patients() -> None:
    small, large = (figure.value for figure in speed.memory((150_000, 600_000)))
    assert large < 1.1 * small


def test_ratios_against_numpy_are_measured() -> None:
    figures = speed.step_ratios(2_000, 4, 1)
    assert [figure.unit for figure in figures] == ["times"] * 4
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_ratios_against_opacus_are_measured() -> None:
    pytest.importorskip("torch", reason="needs torch: install the extra `neural`")
    pytest.importorskip("opacus", reason="needs opacus: install the extra `neural`")
    (gradient,) = speed.opacus_ratio(500, 4, 1, 64)
    training = speed.training_ratio(1_000, 4, 1, 1)
    children = speed.set_ratio("nutrition2k", together=True, repeats=1)
    assert gradient.value > 1
    assert len(training) == len(children) == 4
    assert all(figure.value > 1 for figure in (*training, *children))


@pytest.fixture
def engines() -> ModuleType:
    pytest.importorskip("torch", reason="needs torch: install the extra `neural`")
    pytest.importorskip("opacus", reason="needs opacus: install the extra `neural`")
    return importlib.import_module("benchmarks.engines")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("engines")
def test_ratios_against_other_engines_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "STEPS", 5)
    figures = speed.network_ratios(400, 3, 2, 1)
    assert [figure.name.split(",")[0] for figure in figures] == [
        "neural sgd / Opacus' own engine",
        "neural local / Flower and Opacus",
        "Opacus' own engine / additive ask",
        "neural sgd / additive ask",
    ]
    assert all(figure.value > 0 for figure in figures)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_other_engines_train_the_network_they_are_timed_on(engines: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_000, 2))
    y = (x[:, 0] > 0).astype(np.float64)
    recipe = engines.Recipe(4, rate=0.1, clip=1.0, noise=0.1, learning_rate=1.0, rounds=3, local_steps=20)
    data = engines.Data.of(x, y)
    halves = {name: engines.Data.of(x[k::2], y[k::2]) for k, name in enumerate("ab")}
    for model in (engines.opacus_engine(data, recipe), engines.flower_and_opacus(halves, recipe)):
        found = model(data.x).detach().numpy().squeeze(1) > 0
        assert (found == (y == 1)).mean() > 0.9
