"""Per-patient gradients by Opacus' hooks on torch.  The only file that imports either.

The layers are ordinary linear layers to Opacus: its own sampler for them makes a gradient a patient from what goes in and what
comes back.  Theirs are exact products (neural/exact.py) on a processor or a GPU, in float64; Opacus then multiplies delta, at
most 2**28 steps, by an input of at most 2**20 steps, which is exact too whatever way einsum takes.

Nothing is summed over patients here, clipped or noised: the kernel does that on its own grid (core/bounds.py, core/gate.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from opacus.grad_sample.linear import compute_linear_grad_sample
from torch import Tensor, nn

from ahh_federated.core.cohorts import F64
from ahh_federated.neural.architecture import Activation, Network
from ahh_federated.neural.exact import RELU_REACH, Product, Rounded, activate, cut, rounded_network


class _ExactProduct(torch.autograd.Function):
    """a W' + b forward, delta W backward; weights have no gradient of their own, Opacus' hooks make one a patient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, weight: Tensor, bias: Tensor | None, backward: Tensor) -> Tensor:
        ctx.save_for_backward(backward)
        product = a @ weight.T
        return product if bias is None else product + bias

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None, None]:
        (backward,) = ctx.saved_tensors
        return delta @ backward, None, None, None


_exact_product: Callable[..., Tensor] = _ExactProduct.apply


class ExactLinear(nn.Linear):
    """A linear layer whose products are exact."""

    def __init__(self, product: Product, device: torch.device, *, bias: bool = True) -> None:
        outputs, inputs = product.forward.shape
        super().__init__(inputs, outputs, bias, device, torch.float64)
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(product.forward))
            if bias:
                self.bias.copy_(torch.from_numpy(product.bias))
        self.returning = torch.from_numpy(product.backward).to(device)

    def forward(self, a: Tensor) -> Tensor:
        return _exact_product(a, self.weight, self.bias, self.returning)


register_grad_sampler(ExactLinear)(compute_linear_grad_sample)


class _Activate(torch.autograd.Function):
    """The activation on its grid forward; delta times its slope, on the grid of the layer before, backward."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, activation: Activation, grid: float) -> Tensor:
        a = _activated(z, activation)
        ctx.save_for_backward(a)
        ctx.activation, ctx.grid = activation, grid
        return a

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor, None, None]:
        (a,) = ctx.saved_tensors
        slope = 1.0 - a * a if ctx.activation == "tanh" else ((a > 0.0) & (a < RELU_REACH)).to(a.dtype)
        return torch.trunc(delta * slope / ctx.grid) * ctx.grid, None, None


def _activated(z: Tensor, activation: Activation) -> Tensor:
    """On a processor, whatever the device: torch's own functions differ from device to device, and by a value's place."""
    return torch.from_numpy(activate(z.cpu().numpy(), activation)).to(z.device)


_activate: Callable[..., Tensor] = _Activate.apply


class _Layers(nn.Module):
    """A rounded network as a torch module."""

    def __init__(self, network: Rounded, device: torch.device) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ExactLinear(product, device) for product in network.layers)
        self.direct = None if network.direct is None else ExactLinear(network.direct, device, bias=False)
        self.activation, self.grids = network.activation, network.grids

    def forward(self, x: Tensor) -> Tensor:
        a = x
        for layer, grid in zip(self.layers[:-1], self.grids[:-1], strict=True):
            a = _activate(layer(a), self.activation, grid)
        outputs: Tensor = self.layers[-1](a)
        return outputs if self.direct is None else outputs + self.direct(x)


def per_patient_gradients(network: Network, theta: F64, x: F64, residual: Callable[[F64], F64], most: float) -> F64:
    """The gradient of each patient's loss in theta, shape (patients, width), not clipped.

    Args:
        network: its shape; theta: its numbers, shape (width,).
        x: shape (patients, inputs), finite multiples of 2**-16 of at most 16.
        residual: from the outputs, shape (patients, outputs), to d loss / d outputs, element by element; finite.
        most: the public bound of the residual's absolute value.
    """
    if not len(x):
        return np.zeros((0, network.width))
    rounded = rounded_network(network, theta, most)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.enable_grad():
        model = GradSampleModule(_Layers(rounded, device), loss_reduction="sum")
        inputs = torch.from_numpy(np.ascontiguousarray(x)).to(device).requires_grad_()
        outputs = model(inputs)
        delta = cut(residual(outputs.detach().cpu().numpy()), rounded.grids[-1])
        outputs.backward(torch.from_numpy(delta).to(device))
    samples = [parameter.grad_sample.reshape(len(x), -1) for parameter in model.parameters()]
    gradients: F64 = torch.cat(samples, dim=1).cpu().numpy()
    return np.asarray(gradients * network.factors())
