"""A network as the plain layers of scikit-learn's multi-layer perceptron, which has one activation and no direct path.

    relu up to 8     clip(h, 0, 8) = relu(h) - relu(h - 8)
    direct path      each hidden layer carries x on:  x = relu(x) - relu(-x),  or  x = tanh(e x) / e  to e**2 |x|**3 / 3

With e = 2**-20 and |x| <= 16 the last is less than 2e-9; all else is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ahh_federated.lab.models.fitted import Fitted
from ahh_federated.lab.models.forms import F64, Layer, Network
from ahh_federated.neural.exact import RELU_REACH

_SMALL = 2.0**-20


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """units times `weights`, plus `constant`."""

    weights: F64
    constant: F64

    def then(self, weights: F64, bias: F64 | float = 0.0) -> Affine:
        return Affine(self.weights @ weights, self.constant @ weights + bias)


def perceptron(model: Fitted, network: Network, inputs: Affine) -> Any:
    """A fitted perceptron on the units of which `inputs` makes the network's inputs.

    One step of training on nothing makes every attribute; then the weights are set.  scikit-learn sorts the levels.
    """
    layers = _layers(network, inputs)
    last = _sorted(model, layers.pop())
    shape: dict[str, Any] = {"hidden_layer_sizes": tuple(len(layer.bias) for layer in layers), "activation": network.activation}
    nothing = np.zeros((max(len(model.levels), 1), len(inputs.weights)))
    if model.levels:
        made = MLPClassifier(**shape, random_state=0).partial_fit(nothing, np.array(model.levels), classes=np.array(model.levels))
    else:
        loss = {"loss": "poisson"} if model.family == "count" else {}  # from scikit-learn 1.7 on
        made = MLPRegressor(**shape, **loss, random_state=0).partial_fit(nothing, np.ones(1))
    made.coefs_ = [layer.weights for layer in (*layers, last)]
    made.intercepts_ = [layer.bias for layer in (*layers, last)]
    return made


def _layers(network: Network, inputs: Affine) -> list[Layer]:
    found, a, x = [], inputs, inputs
    for layer in network.layers[:-1]:
        h = a.then(layer.weights, layer.bias)
        units, a = _activated(network, h)
        if network.direct is not None:
            carrying, x = _carried(network, x)
            width, more = len(units.constant), len(carrying.constant)
            units = Affine(np.hstack([units.weights, carrying.weights]), np.append(units.constant, carrying.constant))
            a = Affine(np.vstack([a.weights, np.zeros((more, a.weights.shape[1]))]), a.constant)
            x = Affine(np.vstack([np.zeros((width, x.weights.shape[1])), x.weights]), x.constant)
        found.append(Layer(units.weights, units.constant))
    last = a.then(network.layers[-1].weights, network.layers[-1].bias)
    if network.direct is not None:
        direct = x.then(network.direct)
        last = Affine(last.weights + direct.weights, last.constant + direct.constant)
    return [*found, Layer(last.weights, last.constant)]


def _activated(network: Network, h: Affine) -> tuple[Affine, Affine]:
    """The units before their activation, and the activations of the network from them."""
    one = np.eye(len(h.constant))
    if network.activation == "tanh":
        return h, Affine(one, np.zeros(len(one)))
    both = Affine(np.hstack([h.weights, h.weights]), np.append(h.constant, h.constant - RELU_REACH))
    return both, Affine(np.vstack([one, -one]), np.zeros(len(one)))


def _carried(network: Network, x: Affine) -> tuple[Affine, Affine]:
    """The units before their activation that carry x on, and x from them."""
    one = np.eye(len(x.constant))
    if network.activation == "tanh":
        return x.then(_SMALL * one), Affine(one / _SMALL, np.zeros(len(one)))
    return x.then(np.hstack([one, -one])), Affine(np.vstack([one, -one]), np.zeros(len(one)))


def _sorted(model: Fitted, last: Layer) -> Layer:
    order = np.argsort(np.array(model.levels)) if model.levels else np.zeros(1, dtype=np.intp)
    if model.family == "levels":
        return Layer(last.weights[:, order], last.bias[order])
    return last if order[0] == 0 else Layer(-last.weights, -last.bias)
