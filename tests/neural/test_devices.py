"""What a GPU is asked to do, as far as a machine without one can tell; tests/neural/test_gradients.py compares on one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from scipy.special import expit

from ahh_federated.analyses.design import GRID
from ahh_federated.neural import gradients
from ahh_federated.neural.architecture import Network
from ahh_federated.neural.exact import activate, rounded_network
from ahh_federated.neural.gradients import per_patient_gradients
from tests.neural.populations import network, some_inputs, some_theta

SHAPES = [network(), network(1, (8, 5), "relu"), network(1, (6,), architecture="mlp")]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation} {s.architecture}")


@every_shape
def test_every_number_of_a_step_lies_on_the_device_of_the_model(shape: Network) -> None:
    """On torch's device without memory, which computes with nothing that lies elsewhere."""
    device = torch.device("meta")
    rounded = rounded_network(shape, some_theta(shape, 1), 1.0)
    layers = gradients._Layers(rounded, device)
    kept = [each.returning for each in layers.modules() if isinstance(each, gradients.ExactLinear)]
    assert {each.device for each in [*layers.parameters(), *kept]} == {device}
    model = GradSampleModule(layers, loss_reduction="sum")
    inputs = torch.empty((7, shape.inputs), dtype=torch.float64, device=device).requires_grad_()
    outputs = model(inputs)
    outputs.backward(torch.empty_like(outputs))
    samples = [parameter.grad_sample for parameter in model.parameters()]
    assert {(each.device, each.dtype) for each in samples} == {(device, torch.float64)}
    assert sum(each[0].numel() for each in samples) == shape.width


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_torchs_activations_lie_on_the_grid_and_a_step_from_numpys_at_most(activation: gradients.Activation) -> None:
    z = np.concatenate([np.linspace(-30, 30, 20_001), [0.0, -0.0, 1e-300, 1e12, -1e12]])
    found = gradients._by_torch(torch.from_numpy(z), activation).numpy() * GRID
    assert np.array_equal(found, np.rint(found))
    assert np.abs(found - activate(z, activation) * GRID).max() <= 1


@every_shape
def test_gradients_by_torchs_activations_are_the_same_within_the_grid(shape: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    theta, x = some_theta(shape, 7), some_inputs(300, shape.inputs, 7)
    y = (np.random.default_rng(7).random(300) < 0.3)[:, None]
    by_numpy = per_patient_gradients(shape, theta, x, lambda eta: expit(eta) - y, 1.0)
    monkeypatch.setattr(gradients, "_activated", gradients._by_torch)
    by_torch = per_patient_gradients(shape, theta, x, lambda eta: expit(eta) - y, 1.0)
    np.testing.assert_allclose(by_torch, by_numpy, atol=2e-4)
