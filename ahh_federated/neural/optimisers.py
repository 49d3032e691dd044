"""Steps of the coordinator and of local training: free post-processing of noised sums, in numpy.

a gradient comes in        sgd, adam: the coordinator's in way "sgd", each node's own in way "local"
a mean update comes in     fedavg, fedprox (the same here; its pull is at the nodes), fedadam: the coordinator's in way "local"

Adam knows the noise.  The squared gradients it averages are too large by the noise's variance s**2, which is public: it
subtracts that (Tang, Shpilevskiy and Lecuyer, "DP-AdamBC", AAAI 2024, section 3), and keeps at least s**2, so that no number
whose gradient is below the noise is blown up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np

from ahh_federated.analyses.scaling import rounded
from ahh_federated.core.cohorts import F64

OptimiserName = Literal["adam", "sgd"]
ServerName = Literal["fedavg", "fedprox", "fedadam"]
_TINY = 1e-12  # of a second moment, where nothing moves


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """theta, the averages of what came in and of its square, and the number of steps taken; shapes (width,)."""

    theta: F64
    first: F64
    second: F64
    steps: int = 0

    @classmethod
    def at(cls, theta: F64) -> State:
        return cls(theta, np.zeros_like(theta), np.zeros_like(theta))

    @classmethod
    def of(cls, numbers: F64) -> State:
        """From `numbers()`."""
        theta, first, second = np.split(numbers[:-1], 3)
        return cls(theta, first, second, int(numbers[-1]))

    def numbers(self) -> F64:
        """All of it, shape (3 width + 1,): the state of a local program (core/queries.py)."""
        return np.concatenate([self.theta, self.first, self.second, [self.steps]])


class Optimiser(Protocol):
    def step(self, state: State, signal: F64, stderr: float) -> State:
        """After a noised gradient, or mean update, shape (width,), whose numbers have this standard error from noise."""
        ...


@dataclass(frozen=True, slots=True)
class Sgd:
    """Gradient descent with momentum."""

    learning_rate: float
    momentum: float = 0.9

    def step(self, state: State, signal: F64, stderr: float) -> State:
        first = self.momentum * state.first + signal
        return State(state.theta - self.learning_rate * first, first, state.second, state.steps + 1)


@dataclass(frozen=True, slots=True)
class Adam:
    """Kingma and Ba, ICLR 2015, algorithm 1, with a second moment that knows the noise."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.99

    def step(self, state: State, signal: F64, stderr: float) -> State:
        steps = state.steps + 1
        first = self.beta1 * state.first + (1 - self.beta1) * signal
        second = self.beta2 * state.second + (1 - self.beta2) * signal**2
        mean = first / (1 - self.beta1**steps)
        square = np.maximum(second / (1 - self.beta2**steps) - stderr**2, max(stderr**2, _TINY))
        return State(state.theta - self.learning_rate * mean / np.sqrt(square), first, second, steps)


@dataclass(frozen=True, slots=True)
class FedAvg:
    """McMahan et al., AISTATS 2017, algorithm 1: go where the partners went, on average."""

    def step(self, state: State, signal: F64, stderr: float) -> State:
        return State(state.theta + signal, state.first, state.second, state.steps + 1)


@dataclass(frozen=True, slots=True)
class FedAdam:
    """Reddi et al., ICLR 2021, algorithm 2, with the bias-corrected step size of Flower's strategy of this name."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def step(self, state: State, signal: F64, stderr: float) -> State:
        steps = state.steps + 1
        first = self.beta1 * state.first + (1 - self.beta1) * signal
        second = self.beta2 * state.second + (1 - self.beta2) * signal**2
        rate = self.learning_rate * math.sqrt(1 - self.beta2 ** (steps + 1)) / (1 - self.beta1 ** (steps + 1))
        return State(state.theta + rate * first / (np.sqrt(second) + self.tau), first, second, steps)


OPTIMISERS: Final[Mapping[OptimiserName, Callable[[float], Optimiser]]] = {"adam": Adam, "sgd": Sgd}
SERVERS: Final[Mapping[ServerName, Callable[[float], Optimiser]]] = {
    "fedavg": lambda learning_rate: FedAvg(),
    "fedprox": lambda learning_rate: FedAvg(),
    "fedadam": FedAdam,
}


def local_rate(learning_rate: float, partners: int, place: int) -> float:
    """The learning rate of local steps in round `place`, counted from 0; public.

    It falls as the root of rounds, so that the last of few rounds settles.  The mean of the updates of many partners has less
    noise than each, so they go further: by the fourth root, between what one node's noise and what the mean's would allow.
    """
    return rounded(np.array(learning_rate * max(partners, 1) ** 0.25 / math.sqrt(place + 1)))[0]
