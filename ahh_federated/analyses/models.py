"""What scores, reports and files need of a model, whatever analysis fitted it.

A released model is numbers.  A node rebuilds its predictor from them and from its own copy of the study, so a model
crosses the wire as a list of floats and never as code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Numeric
from ahh_federated.core.programs import Analysis, numbers
from ahh_federated.core.queries import Parameters

Family = Literal["binary", "levels", "continuous", "count"]


class Predictor(Protocol):
    """A released model's way from a patient's columns to a prediction."""

    @property
    def family(self) -> Family: ...

    @property
    def outcome(self) -> Column: ...

    @property
    def features(self) -> tuple[Column, ...]: ...

    def parameters(self) -> Parameters:
        """The released numbers that rebuild it."""
        ...

    def linear(self, cohort: Cohort) -> F64:
        """Shape (patients,): the log odds (binary), the value in the outcome's unit (continuous), the logarithm of the
        mean (count); or (patients, levels), a logit for each level.  NaN where a needed column is not known.

        A patient's numbers depend on that patient alone, bit for bit (core/bounds.py).
        """
        ...


@runtime_checkable
class Model(Predictor, Protocol):
    """A fitted model: everything is released or derived from releases."""

    @property
    def spread(self) -> tuple[float, float]:
        """Mean and standard deviation of the linear predictor over patients, as the releases tell them."""
        ...

    @property
    def partners(self) -> tuple[str, ...]: ...

    @property
    def rounds(self) -> int: ...

    def to_json(self) -> dict[str, Any]: ...


@runtime_checkable
class ModelAnalysis(Analysis, Protocol):
    """An analysis whose answer is a model."""

    @property
    def family(self) -> Family: ...

    @property
    def outcome(self) -> Column: ...

    @property
    def features(self) -> tuple[Column, ...]: ...

    def predictor(self, parameters: Parameters) -> Predictor:
        """Rebuild a model of this analysis from what crosses the wire.  Raises Breach when the numbers do not fit."""
        ...

    def exactly(self) -> ModelAnalysis:
        """The same without noise, clip, grid, weights and prior: for the laboratory and tests."""
        ...


@runtime_checkable
class OnModels(Analysis, Protocol):
    """An analysis that needs the models of earlier asks."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of those asks."""
        ...

    def of(self, *models: Model) -> Analysis:
        """The analysis with the models that came out."""
        ...

    def exactly(self) -> Analysis: ...


@dataclass(frozen=True, slots=True)
class Equation:
    """A linear predictor x'beta on a design: what logistic, linear and additive models predict with."""

    family: Family
    design: Design
    outcome: Column
    scale: Scale
    beta: tuple[float, ...]

    @classmethod
    def read(cls, family: Family, design: Design, outcome: Column, parameters: Parameters, *, exact: bool = False) -> Equation:
        """From the numbers of a request.  Raises Breach when they do not fit the design."""
        terms = design.width - 1
        centre, spread = numbers(parameters, "centre", terms), numbers(parameters, "spread", terms, least=LEAST_SPREAD)
        scale = Scale(tuple(centre), tuple(spread), 1.0, exact)
        return cls(family, design, outcome, scale, tuple(numbers(parameters, "beta", design.width)))

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    def parameters(self) -> Parameters:
        return {"centre": list(self.scale.centre), "spread": list(self.scale.spread), "beta": list(self.beta)}

    def linear(self, cohort: Cohort) -> F64:
        x = self.scale.standardised(self.design, cohort)
        eta = self.scale.predictor(x, np.array(self.beta))
        if isinstance(self.outcome, Numeric) and self.family == "continuous":
            return np.asarray((eta + 1.0) / 2.0 * (self.outcome.high - self.outcome.low) + self.outcome.low)
        return eta


def outcome_spread(model: Model) -> tuple[float, float] | None:
    """Mean and standard deviation of a measured outcome in its unit, where a model's releases tell them."""
    told: tuple[float, float] | None = getattr(model, "outcome_spread", None)
    return told


def exponential(values: F64) -> F64:
    """e**x for |x| <= 30, larger ones counted as 30; numpy's own may round by a value's place in the array."""
    within = np.clip(values, -30.0, 30.0)
    return np.asarray(expit(within) / expit(-within))


def softmax(eta: F64) -> F64:
    """Shape (patients, levels), summed level by level; whatever a row's neighbours are, its bits stay."""
    largest, total = eta[:, 0], np.zeros(len(eta))
    for column in eta.T:
        largest = np.maximum(largest, column)
    powers = [exponential(column - largest) for column in eta.T]
    for power in powers:
        total = total + power
    return np.stack([power / total for power in powers], axis=1)
