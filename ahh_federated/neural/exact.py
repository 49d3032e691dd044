"""A network's products in exact arithmetic, so that a patient's numbers depend on that patient alone.

Float matrix products do not keep the law (core/bounds.py): how BLAS orders a sum depends on how many rows there are.  Here
every product is of multiples of public powers of two, chosen so that each partial sum stays below 2**53 of its own steps.  Such
sums are exact, in any order, on any number of threads, on a GPU; what is between them is element by element.

    x        multiples of 2**-16, |x| <= 16                     (analyses/design.py)
    a        activations, cut to multiples of 2**-16:           tanh, |a| <= 1; or relu up to 8
    W, b     rounded to multiples of 2**-s and 2**-(s+16)       forward,  s from theta
    W        rounded to multiples of 2**-t                      backward, t from theta
    delta    d loss / d (a layer's outputs), cut to at most 2**28 multiples of 2**-g,     g from theta

The proof is docs/proofs/neural.md, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.design import GRID
from ahh_federated.core.cohorts import F64
from ahh_federated.neural.architecture import Activation, Network

INPUT_REACH = 16.0  # products of terms reach 15
RELU_REACH = 8.0
_FORWARD = 51 - 16  # bits of a row of weights times its inputs
_DELTA = 28  # bits of delta
_BACKWARD = 51 - _DELTA  # bits of a column of weights
_LEAST = 2.0**-40  # of a bound on delta: a path of zero weights has delta zero


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """One linear map: `forward` and `bias` as rounded for the forward product, `backward` for the backward one."""

    forward: F64
    bias: F64
    backward: F64


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """A network ready for exact products; a function of theta and public bounds alone.

    `grids[l]`: what delta is a multiple of at the outputs of layer l.
    """

    activation: Activation
    layers: tuple[Product, ...]
    direct: Product | None
    grids: tuple[float, ...]


def rounded_network(network: Network, theta: F64, most: float) -> Rounded:
    """Round theta, shape (width,); `most` bounds the absolute value of a residual."""
    weights = network.weights(theta)
    reaches = [INPUT_REACH, *[reach_of(network.activation)] * len(network.hidden)]
    layers = [_product(matrix, bias, reach) for (matrix, bias), reach in zip(weights.layers, reaches, strict=True)]
    direct = None if weights.direct is None else _product(weights.direct, np.zeros(network.outputs), INPUT_REACH)
    bounds = [most]
    for layer in reversed(layers[1:]):
        bounds.append(max(float(np.abs(layer.backward).sum(axis=0).max()) * bounds[-1], _LEAST))
    grids = tuple(2.0 ** (math.ceil(math.log2(bound)) - _DELTA) for bound in reversed(bounds))
    return Rounded(network.activation, tuple(layers), direct, grids)


def _product(matrix: F64, bias: F64, reach: float) -> Product:
    row = max(float((np.abs(matrix).sum(axis=1) * reach + np.abs(bias)).max()), 1.0)
    column = max(float(np.abs(matrix).sum(axis=0).max()), _LEAST)
    step = 2.0 ** -math.floor(_FORWARD - math.log2(row))
    back = 2.0 ** -math.floor(_BACKWARD - math.log2(column))
    return Product(_nearest(matrix, step), _nearest(bias, step / GRID), _nearest(matrix, back))


def _nearest(values: F64, step: float) -> F64:
    return np.asarray(np.rint(values / step) * step)


def reach_of(activation: Activation) -> float:
    return 1.0 if activation == "tanh" else RELU_REACH


def cut(values: F64, grid: float) -> F64:
    """Towards zero, to a multiple of a power of two, element by element."""
    return np.asarray(np.trunc(values / grid) * grid)


def activate(z: F64, activation: Activation) -> F64:
    """tanh as 2 expit(2z) - 1: scipy's expit is one scalar function called value by value, so no value's place matters."""
    a = 2.0 * expit(2.0 * z) - 1.0 if activation == "tanh" else np.clip(z, 0.0, RELU_REACH)
    return cut(a, 1.0 / GRID)


def forward(network: Rounded, x: F64) -> F64:
    """Shape (patients, outputs).

    Args:
        x: shape (patients, inputs), multiples of 2**-16 of at most 16.
    """
    a = x
    for layer in network.layers[:-1]:
        a = activate(a @ layer.forward.T + layer.bias, network.activation)
    last = network.layers[-1]
    outputs = a @ last.forward.T + last.bias
    return np.asarray(outputs if network.direct is None else outputs + x @ network.direct.forward.T)
