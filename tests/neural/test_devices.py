"""What a GPU is asked to do, as far as a machine without one can tell; tests/neural/test_gradients.py compares on one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch.utils._python_dispatch import TorchDispatchMode

from ahh_federated.neural import gradients
from ahh_federated.neural.architecture import Network
from ahh_federated.neural.exact import rounded_network
from tests.neural.populations import network, some_inputs, some_theta

SHAPES = [network(), network(1, (8, 5), "relu"), network(1, (6,), architecture="mlp")]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation} {s.architecture}")

ROUNDED_BY_IEEE = {"add", "bitwise_and", "div", "gt", "lt", "mul", "rsub", "trunc"}  # one value at a time
EXACT = {"mm", "bmm"}  # by docs/proofs/neural.md, section 2
MOVING = {"_to_copy", "cat", "copy_", "detach", "empty", "lift_fresh", "permute", "unsqueeze", "view", "zeros"}
OVERWRITTEN = {"uniform_"}  # torch's first weights of a layer


@every_shape
def test_every_number_of_a_step_lies_on_the_device_of_the_model(shape: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """On torch's device without memory, which computes with nothing that lies elsewhere."""
    device = torch.device("meta")
    monkeypatch.setattr(gradients, "_activated", lambda z, activation: torch.empty_like(z))
    layers = gradients._Layers(rounded_network(shape, some_theta(shape, 1), 1.0), device)
    kept = [each.returning for each in layers.modules() if isinstance(each, gradients.ExactLinear)]
    assert {each.device for each in [*layers.parameters(), *kept]} == {device}
    model = GradSampleModule(layers, loss_reduction="sum")
    inputs = torch.empty((7, shape.inputs), dtype=torch.float64, device=device).requires_grad_()
    outputs = model(inputs)
    outputs.backward(torch.empty_like(outputs))
    samples = [parameter.grad_sample for parameter in model.parameters()]
    assert {(each.device, each.dtype) for each in samples} == {(device, torch.float64)}
    assert sum(each[0].numel() for each in samples) == shape.width


class Listening(TorchDispatchMode):
    """Writes down what torch is asked to do on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.asked.add(function.overloadpacket.__name__)
        return function(*arguments, **(named or {}))


@every_shape
def test_torch_is_asked_for_nothing_that_devices_round_differently(shape: Network) -> None:
    """Hence the same bits on every device: activations and residuals are computed on a processor."""
    with Listening() as torchs:
        gradients.per_patient_gradients(shape, some_theta(shape, 2), some_inputs(9, shape.inputs, 2), np.sign, 1.0)
    assert torchs.asked >= {"mm", "mul", "trunc"}
    assert torchs.asked <= ROUNDED_BY_IEEE | EXACT | MOVING | OVERWRITTEN
