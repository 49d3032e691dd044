"""Per-patient gradients: a micro-batch loop's bit for bit, torch's own within rounding, and each patient's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.linear import compute_linear_grad_sample
from scipy.special import expit

from ahh_federated.analyses.design import GRID
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.sums import integer_sum, integer_sum_slowly, patient_integers
from ahh_federated.neural import gradients
from ahh_federated.neural.architecture import Activation, Network
from ahh_federated.neural.exact import forward, rounded_network
from ahh_federated.neural.gradients import ExactLinear, per_patient_gradients
from tests.laws.own_integers import law_broken
from tests.neural.populations import OUTCOMES, gradient, network, patients, some_inputs, some_theta

SHAPES = [network(), network(1, (8, 5), "relu"), network(1, ()), network(1, (6,), architecture="mlp")]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation} {s.architecture}")
every_family = pytest.mark.parametrize("family", OUTCOMES)


def of(shape: Network, theta: F64, x: F64, y: F64) -> F64:
    return per_patient_gradients(shape, theta, x, lambda eta: expit(eta) - y[:, None], 1.0)


def sample(shape: Network, count: int, seed: int) -> tuple[F64, F64, F64]:
    rng = np.random.default_rng(seed)
    return some_theta(shape, seed), some_inputs(count, shape.inputs, seed), (rng.random(count) < 0.3).astype(np.float64)


@every_shape
def test_gradients_equal_a_micro_batch_loop_bit_for_bit(shape: Network) -> None:
    theta, x, y = sample(shape, 70, 1)
    one_by_one = [of(shape, theta, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    assert np.array_equal(of(shape, theta, x, y), np.concatenate(one_by_one))


@every_shape
def test_gradients_equal_torchs_own_within_rounding(shape: Network) -> None:
    theta, x, y = sample(shape, 40, 2)
    parameter = torch.from_numpy(theta.copy()).requires_grad_()
    expected = []
    for i in range(len(x)):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(_plain(shape, parameter, x[i : i + 1]), _column(y[i]))
        expected.append(torch.autograd.grad(loss, parameter)[0].numpy())
    np.testing.assert_allclose(of(shape, theta, x, y), np.array(expected), atol=2e-4)


def _column(y: float) -> torch.Tensor:
    return torch.tensor([[float(y)]], dtype=torch.float64)


def _plain(shape: Network, parameter: torch.Tensor, x: F64) -> torch.Tensor:
    """The network in torch's ordinary operations."""
    values, at = parameter * torch.from_numpy(shape.factors()), 0
    a = inputs = torch.from_numpy(x)
    for number, (outputs, before) in enumerate(shape.shapes):
        matrix = values[at : at + outputs * before].reshape(outputs, before)
        a = a @ matrix.T + values[at + outputs * before : at + outputs * (before + 1)]
        at += outputs * (before + 1)
        if number < len(shape.hidden):
            a = torch.tanh(a) if shape.activation == "tanh" else torch.clamp(a, 0.0, 8.0)
    return a + inputs @ values[at:].reshape(shape.outputs, shape.inputs).T if shape.direct else a


def test_opacus_makes_the_gradients_by_its_own_sampler_for_linear_layers() -> None:
    assert GradSampleModule.GRAD_SAMPLERS[ExactLinear] is compute_linear_grad_sample


@every_shape
@pytest.mark.parametrize("size", [0.5, 1e6])
def test_what_opacus_multiplies_is_on_its_grid(shape: Network, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 2**28 steps of delta by at most 2**20 steps of an input: their product is exact whatever way it is made."""
    theta, x = some_theta(shape, 9, size), some_inputs(50, shape.inputs, 9)
    seen: list[tuple[F64, F64]] = []

    def recorded(layer: ExactLinear, inputs: list[torch.Tensor], deltas: torch.Tensor) -> object:
        seen.append((inputs[0].numpy(), deltas.numpy()))
        return compute_linear_grad_sample(layer, inputs, deltas)

    monkeypatch.setitem(GradSampleModule.GRAD_SAMPLERS, ExactLinear, recorded)
    of(shape, theta, x, np.full(50, 0.3))
    rounded = rounded_network(shape, theta, 1.0)
    grids = [*rounded.grids, *([rounded.grids[-1]] if shape.direct else [])]
    assert len(seen) == len(grids)
    for inputs, deltas in seen:
        steps = inputs * GRID
        assert np.array_equal(steps, np.rint(steps))
        assert np.abs(steps).max() <= 2**20
        fitting = [grid for grid in grids if np.array_equal(deltas / grid, np.rint(deltas / grid))]
        assert any(np.abs(deltas).max() <= 2**28 * grid for grid in fitting)


def test_on_a_processor_activations_are_the_exact_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own sigmoid rounds by a value's place in the array, too seldom across a grid step for a test of results."""
    monkeypatch.setattr(gradients, "activate", lambda z, activation: np.full_like(z, 0.25))
    assert gradients._activated(torch.zeros(3, dtype=torch.float64), "tanh").tolist() == [0.25] * 3


def test_torch_and_numpy_give_the_same_outputs() -> None:
    shape = network(2, (8, 5))
    theta, x, _ = sample(shape, 300, 3)
    seen: list[F64] = []

    def residual(eta: F64) -> F64:
        seen.append(eta)
        return np.zeros_like(eta)

    per_patient_gradients(shape, theta, x, residual, 1.0)
    assert np.array_equal(seen[0], forward(rounded_network(shape, theta, 1.0), x))


def test_torchs_ordinary_products_break_the_law() -> None:
    """Why the products are exact: without that, a patient's company moves the last bits of its gradient."""
    shape = network(1, (16,))
    theta, x, _ = sample(shape, 4097, 4)
    matrix = torch.from_numpy(shape.weights(theta).layers[0][0])
    whole = torch.from_numpy(x) @ matrix.T
    alone = [torch.from_numpy(x[i : i + 1]) @ matrix.T for i in range(500)]
    moved = sum(int((one != whole[i]).sum()) for i, one in enumerate(alone))
    if not moved:
        pytest.skip("on this processor the 500 products that were tried do not depend on the batch")
    assert moved > 0


@pytest.mark.parametrize(
    ("family", "activation"), [("binary", "tanh"), ("levels", "relu"), ("continuous", "tanh"), ("count", "relu")]
)
def test_a_patients_integers_are_its_own(family: str, activation: Activation) -> None:
    """Alone, in another order, without others, in chunks, on one and on two threads."""
    query = gradient(family, 1, activation=activation, hidden=(8, 4))
    cohort = Cohort.of(_with_gaps(patients(400, 5), 5))
    assert law_broken(query, cohort, np.random.default_rng(1), alone=25, chunks=(7, 64)) is None


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_patients_integers_are_its_own_in_large(family: str, activation: Activation) -> None:
    cohort = Cohort.of(_with_gaps(patients(4000, 6), 6))
    for seed in range(3):
        query = gradient(family, seed, activation=activation, hidden=(32, 16))
        assert law_broken(query, cohort, np.random.default_rng(seed), alone=200, chunks=(7, 1000)) is None


def _with_gaps(columns: dict[str, F64], seed: int) -> dict[str, F64]:
    """One value in twenty not known, and some that should never be there."""
    rng = np.random.default_rng(seed)
    odd = np.array([np.nan, np.inf, -np.inf, 1e308, 5e-324, -1.0, 7.5])
    made = {}
    for name, values in columns.items():
        bad = rng.random(len(values)) < 1 / 20
        made[name] = np.where(bad, rng.choice(odd, len(values)), values)
    return made


@every_family
def test_the_sum_is_the_slow_sum_and_one_patient_moves_it_by_the_clip_at_most(family: str) -> None:
    query = replace(gradient(family, 3), clip=0.05)  # far below most gradients, so that it binds
    cohort = Cohort.of(patients(30, 7))
    total = integer_sum(query, cohort)
    assert total.tolist() == integer_sum_slowly(query, cohort)
    lengths = [sum(int(k) ** 2 for k in row) for row in patient_integers(query, cohort)]
    assert max(lengths) <= 2**40
    assert max(lengths) > 0.99 * 2**40


@every_family
def test_who_has_a_column_not_known_counts_as_zero(family: str) -> None:
    query, columns = gradient(family, 4), patients(6, 8)
    for row, name in enumerate(("age", "sex", query.outcome.column.name)):
        columns[name][row] = np.nan
    cohort = Cohort.of(columns)
    assert np.isnan(query.rows(cohort)).all(axis=1).tolist() == [True, True, True, False, False, False]
    assert not patient_integers(query, cohort)[:3].any()


def test_nobody_has_no_gradient() -> None:
    query = gradient("binary", 5)
    empty = Cohort.of({name: values[:0] for name, values in patients(1, 1).items()})
    assert query.rows(empty).shape == (0, query.width)


def test_a_caller_that_switches_gradients_off_changes_nothing() -> None:
    theta, x, y = sample(SHAPES[0], 5, 6)
    with torch.no_grad():
        found = of(SHAPES[0], theta, x, y)
    assert np.array_equal(found, of(SHAPES[0], theta, x, y))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_shape
def test_a_gpu_gives_the_same_bits(shape: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    theta, x, y = sample(shape, 500, 7)
    on_gpu = of(shape, theta, x, y)
    monkeypatch.setattr(gradients.torch.cuda, "is_available", lambda: False)
    assert np.array_equal(on_gpu, of(shape, theta, x, y))
