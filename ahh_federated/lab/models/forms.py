"""What a released model computes, as plain numbers: a sum of effects of single columns, or a small network on them.

An effect is a function of one column:

    Line     coefficient x value, the value held between two ends
    Curve    straight between its points, constant beyond them
    ByLevel  a number for each level

`unknown` is the effect where the column is not known; None: then there is no prediction.  Predicting, scikit-learn objects
(lab/models/ordinary.py), ONNX (lab/models/export.py) and model files (lab/models/form_files.py) all read these few shapes.

The equation is on the original scale.  What a node computes differs from it by rounding alone: a node truncates each
standardised term to a multiple of 2**-16 (analyses/design.py), so the two linear predictors are at most 2**-16 times the sum
of |beta| apart, a product's counted nine times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ahh_federated.neural.architecture import Activation
from ahh_federated.neural.exact import RELU_REACH

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Line:
    """coefficient x value, for values held between `low` and `high`."""

    column: str
    coefficient: float
    low: float
    high: float
    unknown: float | None = None

    def of(self, values: F64) -> F64:
        return _known(self.coefficient * np.clip(values, self.low, self.high), values, self.unknown)

    def read(self, columns: Mapping[str, F64]) -> F64:
        return self.of(columns[self.column])

    def times(self, factor: float) -> Line:
        return replace(self, coefficient=self.coefficient * factor, unknown=_times(self.unknown, factor))


@dataclass(frozen=True, slots=True)
class Curve:
    """Straight between the points (`at`, `value`), `at` rising; constant beyond the first and the last."""

    column: str
    at: tuple[float, ...]
    value: tuple[float, ...]
    unknown: float | None = None

    def of(self, values: F64) -> F64:
        return _known(np.interp(values, self.at, self.value), values, self.unknown)

    def read(self, columns: Mapping[str, F64]) -> F64:
        return self.of(columns[self.column])

    def times(self, factor: float) -> Curve:
        return replace(self, value=tuple(each * factor for each in self.value), unknown=_times(self.unknown, factor))


@dataclass(frozen=True, slots=True)
class ByLevel:
    """A number for each level, in the order of the column's levels."""

    column: str
    value: tuple[float, ...]
    unknown: float | None = None

    def of(self, values: F64) -> F64:
        place = np.nan_to_num(values).astype(np.intp)
        return _known(np.array(self.value)[place], values, self.unknown)

    def read(self, columns: Mapping[str, F64]) -> F64:
        return self.of(columns[self.column])

    def times(self, factor: float) -> ByLevel:
        return replace(self, value=tuple(each * factor for each in self.value), unknown=_times(self.unknown, factor))


Effect = Line | Curve | ByLevel


@dataclass(frozen=True, slots=True)
class Product:
    """A declared interaction: coefficient x (one x other - centre), one x other held between `low` and `high`."""

    coefficient: float
    centre: float
    low: float
    high: float
    one: Curve | ByLevel
    other: Curve | ByLevel

    def read(self, columns: Mapping[str, F64]) -> F64:
        both = self.one.read(columns) * self.other.read(columns)
        return np.asarray(self.coefficient * (np.clip(both, self.low, self.high) - self.centre))

    def times(self, factor: float) -> Product:
        return replace(self, coefficient=self.coefficient * factor)


@dataclass(frozen=True, slots=True)
class Sum:
    """intercept + effects + products."""

    intercept: float
    effects: tuple[Effect, ...]
    products: tuple[Product, ...] = ()

    def linear(self, columns: Mapping[str, F64], rows: int) -> F64:
        """Shape (rows,), NaN where a needed value is not known."""
        eta = np.full(rows, self.intercept)
        for part in (*self.effects, *self.products):
            eta = eta + part.read(columns)
        return eta

    def moved(self, intercept: float, slope: float) -> Sum:
        """intercept + slope x this."""
        effects = tuple(each.times(slope) for each in self.effects)
        return Sum(intercept + slope * self.intercept, effects, tuple(each.times(slope) for each in self.products))


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """`weights` of shape (inputs, outputs), `bias` of shape (outputs,)."""

    weights: F64
    bias: F64


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Fully connected layers on the inputs, with an activation after each but the last; `direct`, when there is one, is a matrix
    of shape (inputs, outputs) from the inputs to the outputs beside them.

    Activations are tanh, or relu up to RELU_REACH, as in neural/exact.py.
    """

    inputs: tuple[Effect | Product, ...]
    activation: Activation
    layers: tuple[Layer, ...]
    direct: F64 | None = None

    @property
    def outputs(self) -> int:
        return len(self.layers[-1].bias)

    def linear(self, columns: Mapping[str, F64], rows: int) -> F64:
        """Shape (rows,) with one output, else (rows, outputs)."""
        a = x = np.column_stack([each.read(columns) for each in self.inputs])
        for layer in self.layers[:-1]:
            z = a @ layer.weights + layer.bias
            a = np.tanh(z) if self.activation == "tanh" else np.clip(z, 0.0, RELU_REACH)
        last = a @ self.layers[-1].weights + self.layers[-1].bias
        if self.direct is not None:
            last = last + x @ self.direct
        return last[:, 0] if self.outputs == 1 else np.asarray(last)

    def moved(self, intercept: float, slope: float) -> Network:
        """intercept + slope x this, in every output."""
        last = self.layers[-1]
        layers = (*self.layers[:-1], Layer(last.weights * slope, last.bias * slope + intercept))
        return replace(self, layers=layers, direct=None if self.direct is None else self.direct * slope)


Form = Sum | Network


def _known(effect: F64, values: F64, unknown: float | None) -> F64:
    return np.where(np.isnan(values), np.nan if unknown is None else unknown, effect)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
