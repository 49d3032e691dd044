"""How well a model works on patients it has not seen: one message, whatever the model.

    kind                  one patient contributes                                            bound
    scores/2              e[outcome, bin of the log odds]                                      1
    scores.levels/2       e[outcome, likeliest level]                                          1
    scores.values/2       (1, y, p, y**2, p**2, y p), outcome y and prediction p on a window   sqrt(6)

The window is the part of the outcome's range, four standard deviations around the mean, that the released model implies; what
lies outside counts as its end, and it is mapped onto [-1, 1].  All bounds are
times sqrt(1 + k) with k subgroup columns (analyses/groups.py).  A patient contributes nothing when a needed column is not
known.  The edges are public: equal steps in logit over the range the released model implies, plus the declared thresholds.
AUROC, calibration, Brier score and decision curves (analyses/metrics.py), and what is said of levels and values
(analyses/accuracy.py), are free post-processing of that one release.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.special import logit

from ahh_federated.analyses.accuracy import LevelsTable, ValueTable
from ahh_federated.analyses.groups import EVERYBODY, Groups
from ahh_federated.analyses.metrics import Bins, ScoreTable
from ahh_federated.analyses.models import Model, ModelAnalysis, Predictor, exponential, outcome_spread
from ahh_federated.analyses.scaling import rounded
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Round
from ahh_federated.errors import Breach

STEPS = 9  # edges besides the thresholds
REACH = 2.0  # standard deviations of the linear predictor on either side
VALUES = 6
EDGES, WINDOW = "edges", "window"
LEAST_WINDOW = 0.01  # of a range of length 2
_SDS = 4.0  # of the outcome, on either side of its mean


@dataclass(frozen=True, slots=True)
class RiskCounts:
    """Patients by outcome (without, then with) and bin of the linear predictor, in each block."""

    predictor: Predictor
    edges: tuple[float, ...]
    groups: Groups = EVERYBODY
    kind: ClassVar[str] = "scores/2"

    @property
    def width(self) -> int:
        return self.groups.blocks * 2 * (len(self.edges) + 1)

    @property
    def bound(self) -> float:
        return self.groups.factor

    def parameters(self) -> Parameters:
        return {**self.predictor.parameters(), EDGES: list(self.edges)}

    def rows(self, cohort: Cohort) -> F64:
        eta, bins = self.predictor.linear(cohort), len(self.edges) + 1
        cell = np.searchsorted(np.array(self.edges), eta, side="right").astype(np.float64)
        cell[np.isnan(eta)] = np.nan
        return self.groups.cells(cohort, cell + bins * cohort[self.predictor.outcome.name], 2 * bins)

    def patients(self, total: F64) -> float | None:
        return float(total[: 2 * (len(self.edges) + 1)].sum())


@dataclass(frozen=True, slots=True)
class LevelCounts:
    """Patients by outcome and likeliest level, in each block."""

    predictor: Predictor
    groups: Groups = EVERYBODY
    kind: ClassVar[str] = "scores.levels/2"

    @property
    def levels(self) -> int:
        assert isinstance(self.predictor.outcome, Levels)
        return len(self.predictor.outcome.levels)

    @property
    def width(self) -> int:
        return self.groups.blocks * self.levels**2

    @property
    def bound(self) -> float:
        return self.groups.factor

    def parameters(self) -> Parameters:
        return self.predictor.parameters()

    def rows(self, cohort: Cohort) -> F64:
        eta = self.predictor.linear(cohort)
        chosen = np.where(np.isnan(eta).any(axis=1), np.nan, np.argmax(eta, axis=1))
        return self.groups.cells(cohort, chosen + self.levels * cohort[self.predictor.outcome.name], self.levels**2)

    def patients(self, total: F64) -> float | None:
        return float(total[: self.levels**2].sum())


@dataclass(frozen=True, slots=True)
class ValueSums:
    """Sums of (1, y, p, y**2, p**2, y p) in each block; each of the six is at most 1 in absolute value.

    `window`: its ends, on the outcome's range mapped onto [-1, 1].
    """

    predictor: Predictor
    window: tuple[float, float] = (-1.0, 1.0)
    groups: Groups = EVERYBODY
    kind: ClassVar[str] = "scores.values/2"

    @property
    def width(self) -> int:
        return self.groups.blocks * VALUES

    @property
    def bound(self) -> float:
        return math.sqrt(VALUES) * self.groups.factor

    def parameters(self) -> Parameters:
        return {**self.predictor.parameters(), WINDOW: list(self.window)}

    def rows(self, cohort: Cohort) -> F64:
        outcome = self.predictor.outcome
        assert isinstance(outcome, Numeric)
        eta = self.predictor.linear(cohort)
        predicted = exponential(eta) if self.predictor.family == "count" else eta
        seen = part_of(outcome, self.window)
        y, p = seen.scaled(cohort[outcome.name]), seen.scaled(predicted)
        known = ~(np.isnan(y) | np.isnan(p))
        vectors = np.stack([np.ones_like(y), y, p, y * y, p * p, y * p])
        return self.groups.vectors(cohort, np.where(known, vectors, 0.0))

    def patients(self, total: F64) -> float | None:
        return float(total[0])


@dataclass(frozen=True, slots=True)
class Scores:
    """The analysis `scores`: one step.  `ask` is the id of the model's ask; `fit` its answer, which a node does not need."""

    model: ModelAnalysis
    thresholds: tuple[float, ...]
    by: tuple[Levels, ...] = ()
    ask: str = "model"
    fit: Model | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.ask,)

    @property
    def groups(self) -> Groups:
        return Groups(self.by)

    def of(self, *models: Model) -> Scores:
        return replace(self, fit=models[0])

    def exactly(self) -> Scores:
        return replace(self, model=self.model.exactly())

    def schedule(self) -> Sequence[Line]:
        kind, width = self._shape()
        return [Line(kind, self.groups.blocks * width, 1.0)]

    def _shape(self) -> tuple[str, int]:
        """The kind of the query, and its width in one block."""
        outcome = self.model.outcome
        if self.model.family == "binary":
            return RiskCounts.kind, 2 * (STEPS + len(self.thresholds) + 1)
        if self.model.family == "levels" and isinstance(outcome, Levels):
            return LevelCounts.kind, len(outcome.levels) ** 2
        return ValueSums.kind, VALUES

    def program(self) -> Program:
        replies: Round = yield self.asked()
        outcome = self._fit.outcome
        if self._fit.family == "binary":
            return ScoreTable(outcome.name, self.bins(), replies, self.groups)
        if isinstance(outcome, Levels):
            return LevelsTable(outcome, replies, self.groups)
        return ValueTable(self.seen(), self._fit.family, replies, self.groups)

    @property
    def _fit(self) -> Model:
        assert self.fit is not None, "scores need a fitted model"
        return self.fit

    def asked(self) -> Query:
        """The one query about the fitted model."""
        if self._fit.family == "binary":
            return RiskCounts(self._fit, self._edges(), self.groups)
        if self._fit.family == "levels":
            return LevelCounts(self._fit, self.groups)
        return ValueSums(self._fit, _window(self._fit), self.groups)

    def seen(self) -> Numeric:
        """The part of a measured outcome's range that is looked at."""
        assert isinstance(self._fit.outcome, Numeric)
        return part_of(self._fit.outcome, _window(self._fit))

    def bins(self) -> Bins:
        """The public bins of a two-level outcome's log odds."""
        return Bins.of(self._edges(), self.thresholds, *self._fit.spread)

    def _edges(self) -> tuple[float, ...]:
        mean, sd = self._fit.spread
        steps = mean + sd * np.linspace(-REACH, REACH, STEPS)
        return tuple(float(f"{edge:.10g}") for edge in sorted([*steps, *logit(np.array(self.thresholds))]))

    def query(self, kind: str, parameters: Parameters) -> Query:
        wanted, _ = self._shape()
        if kind != wanted:
            raise Breach(f"the scores of a {self.model.family} model are {wanted!r}, not {kind!r}")
        predictor = self.model.predictor({name: v for name, v in parameters.items() if name not in (EDGES, WINDOW)})
        if kind == LevelCounts.kind:
            return LevelCounts(predictor, self.groups)
        if kind == ValueSums.kind:
            low, high = numbers(parameters, WINDOW, 2, least=-1.0, most=1.0)
            if high - low < LEAST_WINDOW:
                raise Breach("a window that is too narrow does not make a score")
            return ValueSums(predictor, (low, high), self.groups)
        edges = numbers(parameters, EDGES, STEPS + len(self.thresholds))
        if sorted(edges) != edges:
            raise Breach("edges out of order do not make a score table")
        return RiskCounts(predictor, tuple(edges), self.groups)


def part_of(outcome: Numeric, window: tuple[float, float]) -> Numeric:
    """The outcome with a window of its range as its range."""
    low, high = (outcome.unscaled(end) for end in window)
    return replace(outcome, low=low, high=high)


def _window(fit: Model) -> tuple[float, float]:
    """Around the outcome's mean as the releases tell it; the whole range where they do not."""
    told = outcome_spread(fit)
    if told is None or not isinstance(fit.outcome, Numeric):
        return -1.0, 1.0
    half = fit.outcome.half
    centre = min(max((told[0] - fit.outcome.low) / half - 1, -1.0), 1.0)
    reach = max(_SDS * told[1] / half, LEAST_WINDOW)
    low, high = rounded(np.array([max(centre - reach, -1.0), min(centre + reach, 1.0)]))
    return low, high
