"""A model as an ordinary scikit-learn pipeline, which can be pickled and used where this library is not installed.

Each effect becomes columns of a ColumnTransformer on which it is linear:

    Line      the value, clipped
    Curve     its hat functions: splines of degree 1 with the curve's points as knots
    ByLevel   0/1 indicators
    Product   the two factors multiplied, and clipped

so an equation is a linear model on them, and the first layer of a network takes them up.  The pipeline expects clean columns:
measured ones as numbers within their range, levels as text, a case as a column of "no" and "yes".  Where the model has no
effect for "not known" it raises ValueError on a missing value; it knows no codes for "not known".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, OneHotEncoder, PolynomialFeatures, SplineTransformer

from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.errors import Misuse
from ahh_federated.lab.models.fitted import Fitted
from ahh_federated.lab.models.forms import F64, ByLevel, Curve, Effect, Line, Product, Sum
from ahh_federated.lab.models.perceptron import Affine, perceptron


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A transformer of some columns; the part is `constant` plus its output times `weights`.

    Parts with the same `key`, such as the levels of one column, share the transformer.
    """

    key: tuple[object, ...]
    transformer: Any
    columns: tuple[str, ...]
    weights: F64
    constant: float = 0.0


def pipeline(model: Fitted) -> Pipeline:
    """The fitted pipeline: `columns`, then `model`."""
    form, features = model.form, model.features
    parts = (*form.effects, *form.products) if isinstance(form, Sum) else form.inputs
    blocks = [_product(each, features) if isinstance(each, Product) else _effect(each, features) for each in parts]
    last = _linear_model(model, form, _parts(blocks)) if isinstance(form, Sum) else perceptron(model, form, _parts(blocks))
    shared = {block.key: block for block in blocks}.values()
    columns = ColumnTransformer([(str(place), each.transformer, list(each.columns)) for place, each in enumerate(shared)])
    return Pipeline([("columns", columns.fit(_example(features.values()))), ("model", last)])


def _parts(blocks: list[_Block]) -> Affine:
    """From the columns of the transformers to the parts of the form."""
    widths = {block.key: len(block.weights) for block in blocks}
    ends = dict(zip(widths, np.cumsum(list(widths.values())), strict=True))
    into = np.zeros((sum(widths.values()), len(blocks)))
    for place, block in enumerate(blocks):
        into[ends[block.key] - widths[block.key] : ends[block.key], place] = block.weights
    return Affine(into, np.array([block.constant for block in blocks]))


def _example(columns: Iterable[Column]) -> pd.DataFrame:
    """Rows to fit transformers on: both ends of each range and every level, as declared."""
    values = {each.name: (each.low, each.high) if isinstance(each, Numeric) else each.levels for each in columns}
    rows = max(map(len, values.values()))
    return pd.DataFrame({name: [each[row % len(each)] for row in range(rows)] for name, each in values.items()})


def _effect(effect: Effect, features: dict[str, Column]) -> _Block:
    column, unknown = (effect.column,), effect.unknown
    if isinstance(effect, ByLevel):
        levels = features[effect.column]
        assert isinstance(levels, Levels), f"{effect.column} has no levels"
        value, first = np.array(effect.value), effect.value[0]
        if unknown is None:
            return _Block((column, True), _indicators(levels.levels, drop="first"), column, value[1:] - first, first)
        whatever = _indicators(levels.levels, handle_unknown="ignore")  # all zero where the level is not known
        return _Block((column, False), whatever, column, value - unknown, unknown)
    key: tuple[object, ...]
    if isinstance(effect, Line):
        inner, weights, fill = _clip(effect.low, effect.high), np.array([effect.coefficient]), effect.low
        key = (column, effect.low, effect.high, unknown is None)
    else:
        inner, weights, fill = _hats(effect.at), np.array(effect.value), effect.at[0]
        key = (column, effect.at, unknown is None)
    if unknown is None:
        return _Block(key, inner, column, weights)
    filled = Pipeline([_fill(fill), ("value", inner)])
    both = FeatureUnion([("value", filled), ("unknown", MissingIndicator(features="all"))])
    at_fill = float(effect.of(np.array([fill]))[0])
    return _Block(key, both, column, np.append(weights, unknown - at_fill))


def _product(product: Product, features: dict[str, Column]) -> _Block:
    pair = (product.one, product.other)
    factors = [(str(place), _factor(factor, features), [factor.column]) for place, factor in enumerate(pair)]
    steps = [
        ("factors", ColumnTransformer(factors)),
        ("product", PolynomialFeatures(degree=(2, 2), interaction_only=True, include_bias=False)),
        ("clip", _clip(product.low, product.high)),
    ]
    columns, weights = tuple(factor.column for factor in pair), np.array([product.coefficient])
    return _Block((product,), Pipeline(steps), columns, weights, -product.coefficient * product.centre)


def _factor(effect: Curve | ByLevel, features: dict[str, Column]) -> Any:
    """One column: an effect that rises along a line, or is one number for one level and another for all others."""
    scaled = MinMaxScaler(feature_range=(min(effect.value), max(effect.value)), clip=True)
    column = features[effect.column]
    if isinstance(effect, ByLevel) and isinstance(column, Levels):
        level = column.levels[effect.value.index(max(effect.value))]
        return Pipeline([("is", _indicators((level,), handle_unknown="ignore")), ("x", scaled)])
    assert isinstance(effect, Curve), f"{effect.column} has no levels"
    steps: list[tuple[str, Any]] = [("clip", _clip(effect.at[0], effect.at[-1])), ("x", scaled)]
    if effect.unknown is not None:
        steps.insert(0, _fill(float(np.interp(effect.unknown, effect.value, effect.at))))
    return Pipeline(steps)


def _fill(value: float) -> tuple[str, Pipeline]:
    """Whole numbers first become floats, which the imputer asks for."""
    floats = FunctionTransformer(np.asarray, kw_args={"dtype": np.float64}, feature_names_out="one-to-one")
    return "fill", Pipeline([("float", floats), ("constant", SimpleImputer(strategy="constant", fill_value=value))])


def _clip(low: float, high: float) -> FunctionTransformer:
    return FunctionTransformer(np.clip, kw_args={"a_min": low, "a_max": high}, validate=True, feature_names_out="one-to-one")


def _hats(at: tuple[float, ...]) -> SplineTransformer:
    return SplineTransformer(degree=1, knots=np.array(at)[:, None], extrapolation="constant")


def _indicators(levels: tuple[str, ...], **options: str) -> OneHotEncoder:
    return OneHotEncoder(categories=[list(levels)], sparse_output=False, **options)


def _linear_model(model: Fitted, form: Sum, parts: Affine) -> Any:
    weights, intercept = parts.weights.sum(axis=1), form.intercept + math.fsum(parts.constant)
    if model.family == "continuous":
        line = LinearRegression()
        line.coef_, line.intercept_ = weights, intercept
        line.n_features_in_ = len(weights)
        return line
    if model.family != "binary":
        raise Misuse(f"scikit-learn has no linear model for a {model.family} outcome here: use the model as it is")
    logistic = LogisticRegression()
    logistic.coef_, logistic.intercept_ = weights[None, :], np.array([intercept])
    logistic.classes_, logistic.n_features_in_ = np.array(model.levels), len(weights)
    return logistic
