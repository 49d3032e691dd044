"""Networks, declared by data: widths, an activation, and the name of an architecture out of a closed registry.

A network is fully connected layers with an activation after each but the last; its numbers are one flat vector theta.  Every
layer computes W a / sqrt(inputs) + b (the "neural tangent" parametrisation: Jacot, Gabriel and Hongler, NeurIPS 2018,
section 3).  The sum over a layer's inputs is then of order one, whatever its width, and so is one patient's gradient: the public
clip touches few patients, and so biases little.

    mlp         h(x)
    wide-deep   h(x) + V x / sqrt(inputs)       a direct path beside the layers (Cheng et al., DLRS 2016, section 3)

The direct path learns what is linear from the first step, which noise would else drown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from scipy.special import ndtri

from ahh_federated.analyses.scaling import rounded
from ahh_federated.core.bounds import WIDEST
from ahh_federated.core.cohorts import F64
from ahh_federated.core.entropy import Entropy
from ahh_federated.errors import Misuse

Activation = Literal["tanh", "relu"]
ACTIVATIONS: Final[tuple[Activation, ...]] = ("tanh", "relu")
ARCHITECTURES: Final[Mapping[str, bool]] = {"mlp": False, "wide-deep": True}  # whether there is a direct path
MOST_LAYERS = 8  # hidden ones


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a network multiplies with: for each layer a matrix of shape (outputs, inputs) and a bias of shape (outputs,).

    `direct`: shape (outputs, inputs) of the whole network, or None.
    """

    layers: tuple[tuple[F64, F64], ...]
    direct: F64 | None


@dataclass(frozen=True, slots=True)
class Network:
    """Public: the shape of a network.  Without hidden layers it is a generalised linear model.

    Raises:
        Misuse: when it has no such architecture or activation, or too many numbers.
    """

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    activation: Activation = "tanh"
    architecture: str = "wide-deep"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise Misuse(f"{self.architecture!r} is no architecture: choose among {', '.join(ARCHITECTURES)}")
        if self.activation not in ACTIVATIONS:
            raise Misuse(f"{self.activation!r} is no activation: choose among {', '.join(ACTIVATIONS)}")
        if len(self.hidden) > MOST_LAYERS or not all(each >= 1 for each in (self.inputs, *self.hidden, self.outputs)):
            raise Misuse(f"a network has at most {MOST_LAYERS} hidden layers, each of at least one unit: got {list(self.hidden)}")
        if self.width > WIDEST:
            raise Misuse(f"the network has {self.width} numbers, at most {WIDEST}: narrow its layers or name fewer features")

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of each layer."""
        return tuple((after, before) for before, after in pairwise((self.inputs, *self.hidden, self.outputs)))

    @property
    def direct(self) -> bool:
        return bool(self.hidden) and ARCHITECTURES[self.architecture]

    @property
    def width(self) -> int:
        """Numbers in theta: layer by layer the matrix row by row and the bias, then the direct path row by row."""
        return sum(outputs * (inputs + 1) for outputs, inputs in self.shapes) + self.direct * self.outputs * self.inputs

    def factors(self) -> F64:
        """What a number of theta is multiplied with to become a weight, shape (width,)."""
        parts = []
        for outputs, inputs in self.shapes:
            parts += [np.full(outputs * inputs, inputs**-0.5), np.ones(outputs)]
        if self.direct:
            parts.append(np.full(self.outputs * self.inputs, self.inputs**-0.5))
        return np.concatenate(parts)

    def weights(self, theta: F64) -> Weights:
        """theta, shape (width,), as matrices."""
        values, at, layers = theta * self.factors(), 0, []
        for outputs, inputs in self.shapes:
            middle, end = at + outputs * inputs, at + outputs * (inputs + 1)
            layers.append((values[at:middle].reshape(outputs, inputs), values[middle:end]))
            at = end
        return Weights(tuple(layers), values[at:].reshape(self.outputs, self.inputs) if self.direct else None)

    def initial(self, bias: F64) -> F64:
        """Where training starts, shape (width,): public, and the same on every machine.

        Hidden weights are standard normal; the last layer and the direct path are zero, so that the first predictions are
        `bias`, shape (outputs,), for everybody.
        """
        theta, at = np.zeros(self.width), 0
        stream = Entropy.seeded(0).derive(f"neural/1 {self.inputs} {self.hidden} {self.outputs}".encode())
        for outputs, inputs in self.shapes[:-1]:
            theta[at : at + outputs * inputs] = _normal(outputs * inputs, stream)
            at += outputs * (inputs + 1)
        at += self.outputs * math.prod(self.shapes[-1][1:])
        theta[at : at + self.outputs] = bias
        return np.array(rounded(theta))


def _normal(count: int, stream: Entropy) -> F64:
    return np.asarray(ndtri(((stream.words(count) >> np.uint64(12)) + 0.5) * 2.0**-52))
