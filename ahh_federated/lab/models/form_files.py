"""Forms (lab/models/forms.py) as plain data, and back with every number, length and name checked.

equation   {"intercept", "effects": [...], "products": [...]}
network    {"inputs": [...], "activation", "widths": [inputs, ..., outputs], "direct"}, its numbers in tensors

effect     {"column", "unknown"} with {"coefficient", "low", "high"}, {"at", "value"} or {"levels": {level: value}}
product    {"coefficient", "centre", "low", "high", "one", "other"}, the last two being effects
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.errors import Misuse
from ahh_federated.lab.models.forms import F64, ByLevel, Curve, Effect, Layer, Line, Network, Product, Sum
from ahh_federated.neural.architecture import ACTIVATIONS
from ahh_federated.study.fields import Table

LARGEST = 1e30  # of any number in an equation: nothing overflows when they are multiplied
MOST_EFFECTS = 1_000
MOST_POINTS = 200
DIRECT = "direct.weights"
WIDEST = 4_096  # of a layer
MOST_LAYERS = 16

Columns = Mapping[str, Column]


def part_json(effect: Effect | Product, columns: Columns) -> dict[str, Any]:
    if isinstance(effect, Product):
        own: dict[str, Any] = {"coefficient": effect.coefficient, "centre": effect.centre, "low": effect.low, "high": effect.high}
        return {**own, "one": part_json(effect.one, columns), "other": part_json(effect.other, columns)}
    if isinstance(effect, Line):
        own = {"coefficient": effect.coefficient, "low": effect.low, "high": effect.high}
    elif isinstance(effect, Curve):
        own = {"at": list(effect.at), "value": list(effect.value)}
    else:
        column = columns[effect.column]
        assert isinstance(column, Levels), f"{effect.column} has no levels"
        own = {"levels": dict(zip(column.levels, effect.value, strict=True))}
    return {"column": effect.column, **own, "unknown": effect.unknown}


def sum_json(form: Sum, columns: Columns) -> dict[str, Any]:
    return {
        "intercept": form.intercept,
        "effects": [part_json(effect, columns) for effect in form.effects],
        "products": [part_json(product, columns) for product in form.products],
    }


def network_json(form: Network, columns: Columns) -> dict[str, Any]:
    return {
        "inputs": [part_json(part, columns) for part in form.inputs],
        "activation": form.activation,
        "widths": [len(form.inputs), *(len(layer.bias) for layer in form.layers)],
        "direct": form.direct is not None,
    }


def tensors(form: Network) -> dict[str, F64]:
    """The numbers of a network by name."""
    named = {} if form.direct is None else {DIRECT: form.direct}
    for place, layer in enumerate(form.layers):
        named |= {f"layer{place}.weights": layer.weights, f"layer{place}.bias": layer.bias}
    return {name: np.ascontiguousarray(values) for name, values in named.items()}


def read_sum(table: Table, columns: Columns) -> Sum:
    """Raises Misuse naming what does not fit."""
    effects = tuple(_effect(each, columns) for each in _tables(table, "effects"))
    products = tuple(_product(each, columns) for each in _tables(table, "products"))
    found = Sum(_number(table, "intercept"), effects, products)
    table.done()
    return found


def read_network(table: Table, columns: Columns, numbers: Mapping[str, F64], outputs: int) -> Network:
    """A network whose numbers are `numbers`.  Raises Misuse naming what does not fit."""
    inputs = tuple(_product(each, columns) if "one" in each else _effect(each, columns) for each in _tables(table, "inputs"))
    activation = table.choice("activation", ACTIVATIONS)
    widths = table.raw("widths")
    whole = isinstance(widths, list) and all(type(width) is int and 1 <= width <= WIDEST for width in widths)
    if not whole or not 2 <= len(widths) <= MOST_LAYERS or (widths[0], widths[-1]) != (len(inputs), outputs):
        raise Misuse(f"{table.at('widths')} are not those of a network from {len(inputs)} inputs to {outputs} outputs")
    direct = table.raw("direct")
    if not isinstance(direct, bool):
        raise Misuse(f"{table.at('direct')} is neither true nor false")
    table.done()
    shapes: dict[str, tuple[int, ...]] = {DIRECT: (widths[0], widths[-1])} if direct else {}
    for place, (wide, high) in enumerate(pairwise(widths)):
        shapes |= {f"layer{place}.weights": (wide, high), f"layer{place}.bias": (high,)}
    if set(numbers) != set(shapes):
        raise Misuse(f"the tensors are not those of the network: it has {', '.join(sorted(shapes))}")
    for name, shape in shapes.items():
        if numbers[name].shape != shape or numbers[name].dtype != np.float64 or not (np.abs(numbers[name]) <= LARGEST).all():
            raise Misuse(f"the tensor {name} is not {shape} finite numbers of 64 bits")
    places = range(len(widths) - 1)
    layers = tuple(Layer(numbers[f"layer{place}.weights"], numbers[f"layer{place}.bias"]) for place in places)
    return Network(inputs, activation, layers, numbers.get(DIRECT))


def _tables(table: Table, key: str) -> list[Table]:
    content = table.raw(key)
    if not isinstance(content, list) or len(content) > MOST_EFFECTS:
        raise Misuse(f"{table.at(key)} is not a list of at most {MOST_EFFECTS}")
    return [Table(each, f"{table.at(key)}[{place}]") for place, each in enumerate(content)]


def _product(table: Table, columns: Columns) -> Product:
    low, high = _ends(table)
    one, other = (_effect(table.table(key), columns) for key in ("one", "other"))
    if isinstance(one, Line) or isinstance(other, Line):
        raise Misuse(f"{table.path} has a factor that is neither a curve nor by level")
    found = Product(_number(table, "coefficient"), _number(table, "centre"), low, high, one, other)
    table.done()
    return found


def _effect(table: Table, columns: Columns) -> Effect:
    name = table.text("column")
    column = columns.get(name)
    unknown = None if table.raw("unknown") is None else _number(table, "unknown")
    found: Effect
    if isinstance(column, Levels):
        values = table.table("levels")
        if set(values.names()) != set(column.levels):
            raise Misuse(f"{values.path} has other levels than the column {name!r}")
        found = ByLevel(name, tuple(_number(values, level) for level in column.levels), unknown)
    elif isinstance(column, Numeric) and "coefficient" in table:
        low, high = _ends(table)
        found = Line(name, _number(table, "coefficient"), low, high, unknown)
    elif isinstance(column, Numeric):
        at, value = (table.numbers(key) for key in ("at", "value"))
        rising = all(a < b for a, b in pairwise(at))
        if not rising or len(at) != len(value) or not 2 <= len(at) <= MOST_POINTS or max(map(abs, (*at, *value))) > LARGEST:
            raise Misuse(f"{table.path} is not 2 to {MOST_POINTS} points that rise, with a value each")
        found = Curve(name, at, value, unknown)
    else:
        raise Misuse(f"{table.at('column')} names a column that the model does not declare")
    table.done()
    return found


def _ends(table: Table) -> tuple[float, float]:
    low, high = _number(table, "low"), _number(table, "high")
    if low > high:
        raise Misuse(f"{table.path} has its low end above the high one")
    return low, high


def _number(table: Table, key: str) -> float:
    value = table.raw(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise Misuse(f"{table.at(key)} is not a number from {-LARGEST:g} to {LARGEST:g}")
    return float(value)
