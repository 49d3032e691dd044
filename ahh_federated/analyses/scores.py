"""How well a risk model works on patients it has not seen: one histogram of predicted risk by outcome.

    sum over patients of e[outcome, bin of the linear predictor]

Bound 1: a patient adds one unit vector, or nothing when a needed column is not known.  The edges are public: equal
steps in logit over the range the released model implies, plus the declared thresholds.  AUROC, calibration, Brier
score and decision curves (analyses/metrics.py) are free post-processing of that one release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.special import logit

from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.metrics import Bins, Score, ScoreTable, score
from ahh_federated.analyses.onehot import one_hot
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Round, Status
from ahh_federated.errors import Breach

STEPS = 9  # edges besides the thresholds
REACH = 2.0  # standard deviations of the linear predictor on either side


@dataclass(frozen=True, slots=True)
class RiskCounts:
    """Patients by outcome (without, then with) and bin of the linear predictor."""

    design: Design
    outcome: Levels
    scale: Scale
    beta: tuple[float, ...]
    edges: tuple[float, ...]
    kind: ClassVar[str] = "scores/1"

    @property
    def width(self) -> int:
        return 2 * (len(self.edges) + 1)

    @property
    def bound(self) -> float:
        return 1.0

    def parameters(self) -> Parameters:
        return {
            "centre": list(self.scale.centre),
            "spread": list(self.scale.spread),
            "beta": list(self.beta),
            "edges": list(self.edges),
        }

    def rows(self, cohort: Cohort) -> F64:
        x = self.scale.standardised(self.design, cohort)
        eta = self.scale.predictor(x, np.array(self.beta))
        bins = np.searchsorted(np.array(self.edges), eta, side="right").astype(np.float64)
        bins[np.isnan(eta)] = np.nan
        return one_hot(bins + (len(self.edges) + 1) * cohort[self.outcome.name], self.width)

    def patients(self, total: F64) -> float | None:
        return float(total.sum())


@dataclass(frozen=True, slots=True)
class Scores:
    """The analysis `scores`: one step.  `fit` is the released model; the node's side does not need it."""

    design: Design
    outcome: Levels
    thresholds: tuple[float, ...]
    fit: Fit | None = None
    exact: bool = False

    def of(self, fit: Fit) -> Scores:
        return replace(self, fit=fit)

    def schedule(self) -> Sequence[Line]:
        return [Line(RiskCounts.kind, 2 * (STEPS + len(self.thresholds) + 1), 1.0)]

    def program(self) -> Program:
        assert self.fit is not None, "scores need a fitted model"
        fit, edges = self.fit, self._edges(self.fit)
        replies: Round = yield RiskCounts(self.design, self.outcome, fit.scale, fit.beta, edges)
        bins = Bins.of(edges, self.thresholds, *fit.predictor)
        partners: dict[str, Score | Status | None] = {}
        for name, reply in sorted(replies.replies.items()):
            partners[name] = reply if isinstance(reply, Status) else score(bins, replies.of(name))
        return ScoreTable(self.outcome.name, bins, replies.total(), partners)

    def _edges(self, fit: Fit) -> tuple[float, ...]:
        mean, sd = fit.predictor
        steps = mean + sd * np.linspace(-REACH, REACH, STEPS)
        return tuple(float(f"{edge:.10g}") for edge in sorted([*steps, *logit(np.array(self.thresholds))]))

    def query(self, kind: str, parameters: Parameters) -> Query:
        terms = self.design.width - 1
        spread = numbers(parameters, "spread", terms, least=LEAST_SPREAD)
        edges = numbers(parameters, "edges", STEPS + len(self.thresholds))
        if sorted(edges) != edges:
            raise Breach("edges out of order do not make a score table")
        scale = Scale(tuple(numbers(parameters, "centre", terms)), tuple(spread), 1.0, self.exact)
        beta = tuple(numbers(parameters, "beta", self.design.width))
        return RiskCounts(self.design, self.outcome, scale, beta, tuple(edges))
