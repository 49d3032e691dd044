"""One training task: a data set's ask for a model, on its partners' cohorts, with the whole budget for training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.models import ModelAnalysis
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.node.tables import load_cohort
from ahh_federated.study import Ask, Study, open_study, parse_study
from benchmarks.datasets import DataSet

MODEL = "model"  # the id of the ask for a model in every study of the benchmarks


@dataclass(frozen=True, slots=True)
class Task:
    """Cohorts by partner, and which patients train and which test."""

    data: DataSet
    study: Study
    cohorts: Mapping[str, Cohort]

    @property
    def ask(self) -> Ask:
        return self.study.ask(MODEL)

    @property
    def analysis(self) -> ModelAnalysis:
        analysis = self.ask.analysis
        assert isinstance(analysis, ModelAnalysis)
        return analysis

    @property
    def design(self) -> Design:
        """The features as linear models take them."""
        return Design(self.analysis.features)

    def training(self) -> dict[str, Cohort]:
        """The complete cases that the model learns from, by partner."""
        return {name: self._complete(cohort, self.ask) for name, cohort in self.cohorts.items()}

    def test(self) -> dict[str, Cohort]:
        """The complete cases that the study evaluates its model on, by partner; partners without any left out."""
        (evaluation,) = (ask for ask in self.study.asks if MODEL in ask.models)
        kept = {name: self._complete(cohort, evaluation) for name, cohort in self.cohorts.items()}
        return {name: cohort for name, cohort in kept.items() if len(cohort)}

    def outcome(self, cohort: Cohort) -> F64:
        return cohort[self.analysis.outcome.name]

    def features(self, cohort: Cohort) -> F64:
        """Measured values on [-1, 1] by the public range, levels as indicators, shape (patients, terms)."""
        return np.stack(self.design.terms_of(cohort), axis=1)

    def only_training(self, epsilon: float, delta: float, minimum_partners: int, ask: Mapping[str, Any]) -> Study:
        """The study with the model alone, which gets all of the given budget; `ask` says which analysis, with its keys."""
        content = copy.deepcopy(dict(self.study.content))
        content["study"]["minimum_partners"] = minimum_partners
        content["privacy"].update(epsilon=epsilon, delta=delta)
        content["ask"] = [{**each, **ask, "share": 1.0} for each in content["ask"] if each["id"] == MODEL]
        return parse_study(content)

    def _complete(self, cohort: Cohort, ask: Ask) -> Cohort:
        kept = cohort if ask.where is None else cohort.keep(ask.where.mask(cohort))
        known = self.design.complete(kept) & ~np.isnan(kept[self.analysis.outcome.name])
        return kept.keep(known)


def prepare(data: DataSet, split: int = 0) -> Task:
    """Read a data set's tables.  Every `split` has other patients to test on, save where the data come split.

    Made-up patients are drawn anew; others get other keys, from which a study's folds are made.

    Raises:
        Misuse: when its files are not there.
    """
    study = open_study(data.study)
    frames = data.frames() if data.drawn is None else data.drawn(split)
    if split and data.drawn is None:
        key = study.patient.key
        frames = {name: frame.assign(**{key: f"{split}-" + frame[key].astype(str)}) for name, frame in frames.items()}
    return Task(data, study, {name: load_cohort(frames[name], study, name) for name in sorted(frames)})


def pooled(cohorts: Mapping[str, Cohort]) -> Cohort:
    """All patients in one cohort, which no deployment has."""
    parts = list(cohorts.values())
    return Cohort.of({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}, sum(map(len, parts)))
