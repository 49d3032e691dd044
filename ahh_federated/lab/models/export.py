"""A model as ONNX, through plain operators, in double precision.

One input a column, of shape (rows, 1): measured columns as doubles in their unit, NaN for "not known"; levels as strings, any
other text for "not known"; a case as a string column of "no" and "yes".  Codes that mean "not known", and values outside the
range, are treated as a node treats them.  One output, `model.probabilities` (rows, levels) or `model.value` (rows, 1); NaN where
a needed value is not known.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ahh_federated.core.columns import Column, Levels
from ahh_federated.errors import Misuse
from ahh_federated.lab.models.fitted import LARGEST_LOG, Fitted
from ahh_federated.lab.models.forms import ByLevel, Curve, Effect, Line, Network, Product
from ahh_federated.neural.exact import RELU_REACH

OPSET, IR = 19, 9
PROBABILITIES, VALUE = "model.probabilities", "model.value"


def write_onnx(model: Fitted, path: Path) -> None:
    """Raises Misuse when `onnx` is not installed, or the file cannot be written."""
    onnx = _onnx()
    made = onnx_model(model)
    onnx.checker.check_model(made, full_check=True)
    try:
        path.write_bytes(made.SerializeToString())
    except OSError as error:
        raise Misuse(f"{path} cannot be written ({error.strerror}): give a path in a folder that is there") from None


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise Misuse("ONNX needs the package onnx: pip install 'ahh-federated[onnx]'") from None
    return onnx


def onnx_model(model: Fitted) -> Any:
    """An `onnx.ModelProto`."""
    graph = _Graph(_onnx())
    for column in model.features.values():
        graph.input(column)
    form = model.form
    if isinstance(form, Network):
        eta = graph.network(form, model.features)
    else:
        eta = graph.constant(form.intercept)
        for part in (*form.effects, *form.products):
            eta = graph.node("Add", eta, graph.part(part, model.features))
    about = {
        "classes": json.dumps(list(model.levels)),
        "outcome": model.outcome.name,
        "receipt": json.dumps(dict(model.receipt), sort_keys=True),
    }
    return graph.finished(*_output(graph, eta, model), about)


class _Graph:
    """Nodes, constants and inputs as they are added; a value is its name."""

    def __init__(self, onnx: Any) -> None:
        self._onnx, self._helper = onnx, onnx.helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._read: dict[str, str] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"/v{len(self._nodes)}"  # no column has a stroke in its name
        self._nodes.append(self._helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Doubles, or texts."""
        array = np.asarray(values, dtype=object if _texts(values) else np.float64)
        name = f"/c{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def input(self, column: Column) -> None:
        """A column; what a node counts as not known becomes NaN."""
        kind = self._onnx.TensorProto.STRING if isinstance(column, Levels) else self._onnx.TensorProto.DOUBLE
        self._inputs.append(self._helper.make_tensor_value_info(column.name, kind, ["rows", 1]))
        self._read[column.name] = column.name
        if isinstance(column, Levels):
            return
        tests = [self.node("IsInf", column.name)]
        tests += [self.node("Equal", column.name, self.constant(code)) for code in column.missing]
        if column.outside == "missing":
            tests.append(self.node("Less", column.name, self.constant(column.low)))
            tests.append(self.node("Greater", column.name, self.constant(column.high)))
        absent = tests[0]
        for test in tests[1:]:
            absent = self.node("Or", absent, test)
        known = self.node("Where", absent, self.constant(math.nan), column.name)
        self._read[column.name] = self._clipped(known, column.low, column.high)

    def part(self, part: Effect | Product, features: Mapping[str, Column]) -> str:
        """Shape (rows, 1)."""
        return self.product(part, features) if isinstance(part, Product) else self.effect(part, features)

    def effect(self, effect: Effect, features: Mapping[str, Column]) -> str:
        values = self._read[effect.column]
        unknown = self.constant(math.nan if effect.unknown is None else effect.unknown)
        if isinstance(effect, ByLevel):
            column = features[effect.column]
            assert isinstance(column, Levels), f"{effect.column} has no levels"
            is_level = self.node("Equal", values, self.constant([list(column.levels)]))
            hits = self.node("Cast", is_level, to=self._onnx.TensorProto.DOUBLE)
            found = self.node("MatMul", hits, self.constant(np.array(effect.value)[:, None]))
            hit = self.node("MatMul", hits, self.constant(np.ones((len(column.levels), 1))))
            return self.node("Where", self.node("Less", hit, self.constant(0.5)), unknown, found)
        if isinstance(effect, Line):
            held = self._clipped(values, effect.low, effect.high)
            found = self.node("Mul", held, self.constant(effect.coefficient))
        else:
            found = self._curve(values, effect)
        return self.node("Where", self.node("IsNaN", values), unknown, found)

    def _curve(self, values: str, curve: Curve) -> str:
        """value[0] + the sum over the points of how much the slope changes there, times how far the value is beyond."""
        at = np.array(curve.at)
        changes = np.diff(np.diff(curve.value) / np.diff(at), prepend=0.0)
        held = self._clipped(values, curve.at[0], curve.at[-1])
        beyond = self.node("Relu", self.node("Sub", held, self.constant(at[None, :-1])))
        return self.node("Add", self.node("MatMul", beyond, self.constant(changes[:, None])), self.constant(curve.value[0]))

    def product(self, product: Product, features: Mapping[str, Column]) -> str:
        both = self.node("Mul", *(self.effect(each, features) for each in (product.one, product.other)))
        apart = self.node("Sub", self._clipped(both, product.low, product.high), self.constant(product.centre))
        return self.node("Mul", apart, self.constant(product.coefficient))

    def network(self, network: Network, features: Mapping[str, Column]) -> str:
        """Shape (rows, outputs)."""
        a = x = self.node("Concat", *(self.part(each, features) for each in network.inputs), axis=1)
        for place, layer in enumerate(network.layers):
            if place:
                a = self.node("Tanh", a) if network.activation == "tanh" else self._clipped(a, 0.0, RELU_REACH)
            a = self.node("Add", self.node("MatMul", a, self.constant(layer.weights)), self.constant(layer.bias[None, :]))
        return a if network.direct is None else self.node("Add", a, self.node("MatMul", x, self.constant(network.direct)))

    def _clipped(self, values: str, low: float, high: float) -> str:
        return self.node("Clip", values, self.constant(low), self.constant(high))

    def finished(self, last: str, output: str, width: int, about: Mapping[str, str]) -> Any:
        """The whole model, whose output is the value `last`."""
        self._nodes.append(self._helper.make_node("Identity", [last], [output]))
        shown = self._helper.make_tensor_value_info(output, self._onnx.TensorProto.DOUBLE, ["rows", width])
        graph = self._helper.make_graph(self._nodes, "ahh_federated", self._inputs, [shown], self._constants)
        made = self._helper.make_model(
            graph, opset_imports=[self._helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="ahh_federated"
        )
        self._helper.set_model_props(made, dict(about))
        return made


def _texts(values: Any) -> bool:
    return isinstance(values, list)


def _output(graph: _Graph, eta: str, model: Fitted) -> tuple[str, str, int]:
    """The value that comes out, its name and its width; no column has a name with a full stop."""
    if model.family == "binary":
        risk = graph.node("Sigmoid", eta)
        without = graph.node("Sub", graph.constant(1.0), risk)
        return graph.node("Concat", without, risk, axis=1), PROBABILITIES, 2
    if model.family == "levels":
        return graph.node("Softmax", eta, axis=1), PROBABILITIES, len(model.levels)
    if model.family == "count":
        return graph.node("Exp", graph.node("Min", eta, graph.constant(LARGEST_LOG))), VALUE, 1
    return eta, VALUE, 1
