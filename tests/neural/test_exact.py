"""Exact products: every sum in its 53 bits, no value moved by its neighbours, numbers near those of plain arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ahh_federated.analyses.design import GRID
from ahh_federated.core.bounds import WIDEST
from ahh_federated.core.cohorts import F64
from ahh_federated.neural.architecture import Network
from ahh_federated.neural.exact import INPUT_REACH, activate, forward, reach_of, rounded_network
from tests.neural.populations import network, some_inputs, some_theta

SHAPES = [
    network(),
    network(3, (8, 5), "relu"),
    network(1, ()),
    network(2, (6,), architecture="mlp"),
]


def hostile(shape: Network, kind: str, seed: int) -> F64:
    """theta as nobody would send it, up to the largest that a node accepts."""
    rng = np.random.default_rng(seed)
    theta = {
        "zero": np.zeros(shape.width),
        "largest": np.full(shape.width, 1e6),
        "alternating": 1e6 * (-1.0) ** np.arange(shape.width),
        "tiny": np.full(shape.width, 1e-300),
        "mixed": 10.0 ** rng.uniform(-12, 6, shape.width) * rng.choice([-1, 1], shape.width),
    }
    return np.asarray(theta[kind])


KINDS = ["zero", "largest", "alternating", "tiny", "mixed"]


def largest_partial_sum(matrix: F64, bias: F64, reach: float, unit: float) -> Fraction:
    """In steps of `unit`, of a row against inputs of at most `reach`."""
    rows = [sum((abs(Fraction(w)) for w in row), Fraction(0)) * Fraction(reach) for row in matrix.tolist()]
    return max(row + abs(Fraction(b)) for row, b in zip(rows, bias.tolist(), strict=True)) / Fraction(unit)


def unit_of(values: F64) -> float:
    """The largest power of two of which all are multiples (one where all are zero)."""
    least = 1.0
    for value in values[values != 0].ravel().tolist():
        numerator, denominator = abs(Fraction(value)).as_integer_ratio()
        least = min(least, float(Fraction(numerator & -numerator, denominator)))
    return least


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation}")
@pytest.mark.parametrize("kind", KINDS)
def test_every_partial_sum_of_a_forward_product_has_53_bits(shape: Network, kind: str) -> None:
    rounded = rounded_network(shape, hostile(shape, kind, 3), 4.0)
    reaches = [INPUT_REACH, *[reach_of(shape.activation)] * len(shape.hidden)]
    maps = [*zip(rounded.layers, reaches, strict=True), *([(rounded.direct, INPUT_REACH)] if rounded.direct else [])]
    for product, reach in maps:
        unit = min(unit_of(product.forward) / GRID, unit_of(product.bias))
        assert largest_partial_sum(product.forward, product.bias, reach, unit) <= 2**53


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation}")
@pytest.mark.parametrize("kind", KINDS)
def test_every_partial_sum_of_a_backward_product_has_53_bits(shape: Network, kind: str) -> None:
    """delta never exceeds its bound, which the grids cover: 2**28 steps at each layer."""
    most = 4.0
    rounded = rounded_network(shape, hostile(shape, kind, 4), most)
    bound = Fraction(most)
    for layer, grid in zip(reversed(rounded.layers), reversed(rounded.grids), strict=True):
        assert bound <= Fraction(grid) * 2**28
        columns = [sum((abs(Fraction(w)) for w in column), Fraction(0)) for column in layer.backward.T.tolist()]
        assert max(columns) * bound <= Fraction(unit_of(layer.backward)) * Fraction(grid) * 2**53
        assert bound * Fraction(INPUT_REACH) <= Fraction(grid) / Fraction(GRID) * 2**53  # Opacus' product of delta and input
        bound = max(columns) * bound


def test_the_widest_network_keeps_its_bits() -> None:
    shape = Network((WIDEST - 1), (), 1)
    theta = np.full(shape.width, 1e6)
    rounded = rounded_network(shape, theta, 1.0)
    x = np.full((3, shape.inputs), INPUT_REACH)
    expected = sum(Fraction(w) * 16 for w in rounded.layers[0].forward[0].tolist()) + Fraction(rounded.layers[0].bias[0])
    assert [Fraction(each) for each in forward(rounded, x)[:, 0].tolist()] == [expected] * 3


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation}")
def test_a_forward_pass_equals_pythons_fractions(shape: Network) -> None:
    rounded = rounded_network(shape, some_theta(shape, 5), 1.0)
    x = some_inputs(4, shape.inputs, 5)
    outputs = forward(rounded, x)
    for row, found in zip(x, outputs, strict=True):
        a = [Fraction(each) for each in row.tolist()]
        for layer in rounded.layers[:-1]:
            z = np.array([float(each) for each in _row(layer.forward, layer.bias, a)])
            a = [Fraction(each) for each in activate(z, shape.activation).tolist()]
        last = [float(each) for each in _row(rounded.layers[-1].forward, rounded.layers[-1].bias, a)]
        if rounded.direct is not None:
            wide = _row(rounded.direct.forward, rounded.direct.bias, [Fraction(each) for each in row.tolist()])
            last = [one + float(other) for one, other in zip(last, wide, strict=True)]
        assert found.tolist() == last


def _row(matrix: F64, bias: F64, a: list[Fraction]) -> list[Fraction]:
    return [
        sum((Fraction(w) * each for w, each in zip(row, a, strict=True)), Fraction(b))
        for row, b in zip(matrix.tolist(), bias.tolist(), strict=True)
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.hidden} {s.activation}")
def test_a_forward_pass_is_near_plain_arithmetic(shape: Network) -> None:
    theta, x = some_theta(shape, 6), some_inputs(200, shape.inputs, 6)
    weights = shape.weights(theta)
    a = x
    for matrix, bias in weights.layers[:-1]:
        a = np.tanh(a @ matrix.T + bias) if shape.activation == "tanh" else np.clip(a @ matrix.T + bias, 0, 8)
    plain = a @ weights.layers[-1][0].T + weights.layers[-1][1]
    plain = plain if weights.direct is None else plain + x @ weights.direct.T
    np.testing.assert_allclose(forward(rounded_network(shape, theta, 1.0), x), plain, atol=1e-4)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_no_activation_depends_on_its_place(activation: str) -> None:
    """Vector units treat the last values of an array otherwise than the first; ours may not."""
    z = np.random.default_rng(1).normal(0, 3, 4099)
    whole = activate(z, activation)
    for offset in range(1, 18):
        assert np.array_equal(activate(np.ascontiguousarray(z[offset:]), activation), whole[offset:])
    alone = [float(activate(z[i : i + 1], activation)[0]) for i in range(500)]
    assert alone == whole[:500].tolist()
