"""Choosing among fitted models by one paid message; every candidate's training was paid for too.

    sum over patients of (1, loss of model 1, ..., loss of model m),   bound sqrt(1 + m)

The loss is a proper score on [0, 1], no clip: for two levels the Brier score (y - p)**2; for several levels half the
squared distance between the outcome's unit vector and the predicted shares; for values ((y - p) / 2)**2, both on [-1, 1].

The model with the smallest noised loss is chosen, the earlier one when two are equal.  That is post-processing of releases,
so it is as private as they are together: under adaptive composition of Gaussian DP mu**2 adds up (Dong, Roth & Su, "Gaussian
differential privacy", JRSS B 2022, Cor. 3.3 and Prop. 2.8; as a filter: Smith & Thakurta 2022, Thm. 3.1).  The study pays for
every candidate it tries, the losers included.  Choosing with a score that nobody paid for has no such bound (Papernot &
Steinke, "Hyperparameter tuning with Renyi differential privacy", ICLR 2022, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from ahh_federated.analyses.models import Family, Model, ModelAnalysis, Predictor, exponential, outcome_spread, softmax
from ahh_federated.analyses.numbers import number
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column, Numeric
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Pooled, Round
from ahh_federated.errors import Breach

CHOICE = "choice"


def losses(predictor: Predictor, cohort: Cohort) -> F64:
    """Each patient's loss on [0, 1], shape (patients,); NaN where the prediction or the outcome is not known."""
    y, eta = cohort[predictor.outcome.name], predictor.linear(cohort)
    if predictor.family == "binary":
        return np.asarray((y - expit(eta)) ** 2)
    if isinstance(predictor.outcome, Numeric):
        predicted = exponential(eta) if predictor.family == "count" else eta
        return np.asarray((predictor.outcome.scaled(y) - predictor.outcome.scaled(predicted)) ** 2 / 4)
    loss = np.zeros(len(y))
    for k, p in enumerate(softmax(eta).T):
        loss = loss + ((y == k) - p) ** 2 / 2
    return np.where(np.isnan(y), np.nan, loss)


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums of the losses of several models over the patients whom all of them can judge."""

    predictors: tuple[Predictor, ...]
    kind: ClassVar[str] = "select.losses/2"

    @property
    def width(self) -> int:
        return 1 + len(self.predictors)

    @property
    def bound(self) -> float:
        return math.sqrt(self.width)

    def parameters(self) -> Parameters:
        return {f"{k}.{name}": v for k, each in enumerate(self.predictors) for name, v in each.parameters().items()}

    def rows(self, cohort: Cohort) -> F64:
        each = [losses(predictor, cohort) for predictor in self.predictors]
        return np.stack([np.ones(len(cohort)), *each], axis=1)

    def patients(self, total: F64) -> float | None:
        return float(total[0])


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The answer of `select`: the model that was chosen, and what every candidate scored."""

    asks: tuple[str, ...]
    models: tuple[Model, ...]
    total: Pooled

    @property
    def place(self) -> int:
        return int(np.argmin(self.total.values[1:]))

    @property
    def ask(self) -> str:
        return self.asks[self.place]

    @property
    def model(self) -> Model:
        return self.models[self.place]

    @property
    def family(self) -> Family:
        return self.model.family

    @property
    def outcome(self) -> Column:
        return self.model.outcome

    @property
    def features(self) -> tuple[Column, ...]:
        return self.model.features

    @property
    def spread(self) -> tuple[float, float]:
        return self.model.spread

    @property
    def outcome_spread(self) -> tuple[float, float] | None:
        return outcome_spread(self.model)

    @property
    def partners(self) -> tuple[str, ...]:
        return self.model.partners

    @property
    def rounds(self) -> int:
        return self.model.rounds

    def parameters(self) -> Parameters:
        return {CHOICE: [float(self.place)], **self.model.parameters()}

    def linear(self, cohort: Cohort) -> F64:
        return self.model.linear(cohort)

    def to_json(self) -> dict[str, Any]:
        n, s = max(float(self.total.values[0]), 1.0), self.total.stderr
        found = [(ask, float(value) / n) for ask, value in zip(self.asks, self.total.values[1:], strict=True)]
        candidates = [
            {"ask": ask, "loss": number(loss, s / n * math.hypot(1.0, loss), least=0.0, most=1.0).to_json()}
            for ask, loss in found
        ]
        return {
            "outcome": self.outcome.name,
            "family": self.family,
            "chosen": self.ask,
            "n": number(float(self.total.values[0]), s, least=0.0).to_json(),
            "candidates": candidates,
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """The analysis `select`: one step.  `asks` are the ids of the candidates, `fits` their answers."""

    asks: tuple[str, ...]
    candidates: tuple[ModelAnalysis, ...]
    fits: tuple[Model, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        return self.asks

    @property
    def family(self) -> Family:
        return self.candidates[0].family

    @property
    def outcome(self) -> Column:
        return self.candidates[0].outcome

    @property
    def features(self) -> tuple[Column, ...]:
        """Every column that some candidate needs."""
        return tuple(dict.fromkeys(column for each in self.candidates for column in each.features))

    def of(self, *models: Model) -> Selection:
        return replace(self, fits=models)

    def exactly(self) -> Selection:
        return replace(self, candidates=tuple(each.exactly() for each in self.candidates))

    def predictor(self, parameters: Parameters) -> Predictor:
        place = numbers(parameters, CHOICE, 1, least=0.0, most=len(self.candidates) - 1.0)[0]
        if not place.is_integer():
            raise Breach("the chosen model is numbered by a whole number")
        own = {name: values for name, values in parameters.items() if name != CHOICE}
        return _Numbered(place, self.candidates[int(place)].predictor(own))

    def schedule(self) -> Sequence[Line]:
        return [Line(Losses.kind, 1 + len(self.candidates), 1.0)]

    def program(self) -> Program:
        assert self.fits, "a selection needs fitted models"
        replies: Round = yield Losses(self.fits)
        return Chosen(self.asks, self.fits, replies.total())

    def query(self, kind: str, parameters: Parameters) -> Query:
        if kind != Losses.kind:
            raise Breach(f"a selection asks no query of kind {kind!r}")
        parts: list[dict[str, list[float]]] = [{} for _ in self.candidates]
        for name, values in parameters.items():
            place, _, own = name.partition(".")
            if not place.isdecimal() or len(place) > 3 or int(place) >= len(parts):
                raise Breach(f"the parameter {ascii(name)[:60]} is of no candidate")
            parts[int(place)][own] = values
        return Losses(tuple(each.predictor(own) for each, own in zip(self.candidates, parts, strict=True)))


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A candidate's predictor that says which candidate it is."""

    place: float
    inner: Predictor

    @property
    def family(self) -> Family:
        return self.inner.family

    @property
    def outcome(self) -> Column:
        return self.inner.outcome

    @property
    def features(self) -> tuple[Column, ...]:
        return self.inner.features

    def parameters(self) -> Parameters:
        return {CHOICE: [self.place], **self.inner.parameters()}

    def linear(self, cohort: Cohort) -> F64:
        return self.inner.linear(cohort)
