"""A fitted network.  Predicting needs numpy alone, and is the arithmetic that training used (neural/exact.py)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.models import Family
from ahh_federated.analyses.numbers import number, share_used
from ahh_federated.analyses.scaling import UNIFORM, rounded
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import NOT_KNOWN, Column, Levels, Numeric
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.queries import Parameters
from ahh_federated.neural.architecture import Network, Weights
from ahh_federated.neural.exact import forward, rounded_network
from ahh_federated.neural.families import Outcome
from ahh_federated.neural.queries import Point, inputs

_DRAWN = 4096  # made-up patients of `spread_of`
_LEAST_SD = 0.1


@dataclass(frozen=True, slots=True)
class NeuralPredictor:
    """A released network's way from columns to a prediction."""

    design: Design
    target: Outcome
    network: Network
    point: Point

    @property
    def family(self) -> Family:
        return self.target.family

    @property
    def outcome(self) -> Column:
        return self.target.column

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    def parameters(self) -> Parameters:
        return self.point.parameters(self.target)

    def linear(self, cohort: Cohort) -> F64:
        """Shape (patients,), or (patients, levels); NaN where a needed column is not known (analyses/models.py)."""
        x, known = inputs(self.design, self.point.scale, cohort)
        outputs = forward(rounded_network(self.network, np.array(self.point.theta), self.target.most), x)
        outputs[~known] = np.nan
        return self.target.linear(outputs, self.point.centre, self.point.spread)


@dataclass(frozen=True, slots=True, eq=False)
class NeuralFit:
    """Everything here is released or derived from releases.

    `settings`: the public constants of training, as the study has them.
    `counts`: patients used, by level of the outcome where it has levels, then those not used; `stderr` of each.
    `spread`: mean and standard deviation of the linear predictor over made-up patients with the released moments.
    """

    predictor: NeuralPredictor
    way: str
    settings: Mapping[str, float | str]
    spread: tuple[float, float]
    counts: tuple[float, ...]
    stderr: float
    partners: tuple[str, ...]
    rounds: int

    @property
    def family(self) -> Family:
        return self.predictor.family

    @property
    def outcome(self) -> Column:
        return self.predictor.outcome

    @property
    def features(self) -> tuple[Column, ...]:
        return self.predictor.features

    @property
    def outcome_spread(self) -> tuple[float, float] | None:
        """Mean and standard deviation of a measured outcome, in its unit; of a count, at most its mean or the root of that."""
        outcome, point = self.outcome, self.predictor.point
        if not isinstance(outcome, Numeric):
            return None
        if self.family == "count":
            return point.centre, max(point.centre, math.sqrt(point.centre))
        return outcome.unscaled(point.centre), point.spread * (outcome.high - outcome.low) / 2

    @property
    def design(self) -> Design:
        return self.predictor.design

    @property
    def network(self) -> Network:
        return self.predictor.network

    def parameters(self) -> Parameters:
        return self.predictor.parameters()

    def linear(self, cohort: Cohort) -> F64:
        return self.predictor.linear(cohort)

    def weights(self) -> Weights:
        """Matrices and biases on x (analyses/design.py, without its constant), with outputs as in neural/families.py."""
        return self.network.weights(np.array(self.predictor.point.theta))

    def to_json(self) -> dict[str, Any]:
        used, shape = math.fsum(self.counts[:-1]), self.network
        se = self.stderr * math.sqrt(len(self.counts) - 1)
        return {
            "family": self.family,
            "outcome": self.outcome.name,
            **({"levels": list(self.outcome.levels)} if isinstance(self.outcome, Levels) else {"unit": self.outcome.unit}),
            "features": [column.name for column in self.features],
            "layers": [shape.inputs, *shape.hidden, shape.outputs],
            "activation": shape.activation,
            "architecture": shape.architecture,
            "way": self.way,
            "settings": dict(self.settings),
            "missing": "indicator" if self.design.indicators else "complete-cases",
            "n": number(used, se, least=0.0).to_json(),
            **({"events": number(self.counts[1], self.stderr, least=0.0).to_json()} if self.family == "binary" else {}),
            "complete": share_used(used, self.counts[-1], self.stderr, len(self.counts) - 1).to_json(),
            "rounds": self.rounds,
            "partners": list(self.partners),
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        if not self.predictor.target.weights:
            return []
        advice = "recalibrate before use" if self.family == "binary" else "read them as an order, not as risks"
        return [f"Levels were weighted in training, so predicted risks are not those of the patients: {advice}."]


def spread_of(predictor: NeuralPredictor) -> tuple[float, float]:
    """Mean and sd of the linear predictor over made-up patients: independent columns with the released moments."""
    linear = predictor.linear(_made_up(predictor))
    unit = predictor.point.spread if predictor.family == "continuous" else 1.0
    found = rounded(np.array([float(linear.mean()), max(float(linear.std()), _LEAST_SD * unit)]))
    return found[0], found[1]


def _made_up(predictor: NeuralPredictor) -> Cohort:
    """Patients drawn from the released centres and spreads; a fixed stream, nothing secret."""
    design, scale = predictor.design, predictor.point.scale
    stream = Entropy.seeded(0).derive(b"neural/1 made-up patients")
    place = {(term.column.name, term.level): j for j, term in enumerate(design.main)}
    columns = {}
    for column in design.features:
        if isinstance(column, Numeric):
            j = place[column.name, None]
            u, z, flat = _uniform(stream), ndtri(_uniform(stream)), 2 * _uniform(stream) - 1
            drawn = np.where(u < UNIFORM, flat, np.clip(scale.centre[j] + scale.spread[j] * z, -1, 1))
            values = (drawn + 1) / 2 * (column.high - column.low) + column.low
        else:
            shares = np.array([max(scale.centre[place[column.name, level]], 0.0) for level in column.levels[1:]])
            values = np.searchsorted(np.cumsum(shares), _uniform(stream) * max(1.0, shares.sum()), side="right") + 1.0
            values[values > len(shares)] = 0.0
        if design.indicators:
            values = np.where(_uniform(stream) < scale.centre[place[column.name, NOT_KNOWN]], np.nan, values)
        columns[column.name] = values
    return Cohort.of(columns, _DRAWN)


def _uniform(stream: Entropy) -> F64:
    return np.asarray(((stream.words(_DRAWN) >> np.uint64(12)) + 0.5) * 2.0**-52)
