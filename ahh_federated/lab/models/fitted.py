"""A fitted model as a researcher keeps it: what it computes, what it was estimated to be, and the receipt of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from ahh_federated.analyses.models import Equation, Family, Model, ModelAnalysis, Predictor
from ahh_federated.analyses.recalibration import Adapted
from ahh_federated.analyses.selection import Chosen
from ahh_federated.coordinator.results import Results
from ahh_federated.core.columns import Column, Levels
from ahh_federated.errors import Misuse
from ahh_federated.lab.models.equations import network_of, sum_of
from ahh_federated.lab.models.forms import F64, Form
from ahh_federated.neural.fit import NeuralPredictor
from ahh_federated.study import Ask, Study
from ahh_federated.study.declarations import Case
from ahh_federated.version import VERSION

LARGEST_LOG = 30.0  # of a mean count, as in analyses/models.py
_LEDGER = ("epsilon_study", "epsilon_dataset", "epsilon_limit", "delta_limit")
RECEIPT = frozenset(
    {
        *("stamp", "study", "version", "digest", "permit", "ask", "where", "share", "epsilon_ask", "epsilon", "delta"),
        *("unit", "neighbours", "noise", "partners", "messages", "ledger"),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """One model.

    `columns` are what a row must have, as declared; `cases` are computed from them.  `form` computes the linear predictor.
    `estimates` is the answer of the ask as data, without its equation.  `receipt` says what the training has cost whom.
    """

    analysis: str
    family: Family
    title: str
    outcome: Column
    definition: str
    columns: Mapping[str, Column]
    cases: Mapping[str, Case]
    form: Form
    estimates: Mapping[str, Any]
    receipt: Mapping[str, Any]
    software: str = VERSION
    recalibration: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def levels(self) -> tuple[str, ...]:
        """The outcome's levels, or none."""
        return self.outcome.levels if isinstance(self.outcome, Levels) else ()

    @property
    def features(self) -> dict[str, Column]:
        """The columns that the form reads: those declared, and the cases made from them."""
        return {**self.columns, **{name: case.column for name, case in self.cases.items()}}

    def moved(self, partner: str) -> Fitted:
        """The model recalibrated to a partner."""
        form = self.form.moved(*self.recalibration[partner])
        return replace(self, form=form, title=f"{self.title}, recalibrated to {partner}", recalibration={})

    def linear(self, columns: Mapping[str, F64], rows: int) -> F64:
        """Shape (rows,), or (rows, levels): the log odds, the value in its unit, the log of the mean, or a logit a level."""
        return self.form.linear(columns, rows)

    def predicted(self, eta: F64) -> F64:
        """From the linear predictor: the probability of each level, shape (rows, levels), or the value, shape (rows,)."""
        if self.family == "binary":
            risk = expit(eta)
            return np.stack([1 - risk, risk], axis=1)
        if self.family == "levels":
            return np.asarray(softmax(eta, axis=1))
        return np.exp(np.minimum(eta, LARGEST_LOG)) if self.family == "count" else eta


def fitted(results: Results, ask_id: str, partners: Sequence[Mapping[str, Any]] | None = None) -> Fitted:
    """The model of an ask.

    Args:
        results: a finished run.
        ask_id: the id of the ask.
        partners: what results.json says of the partners, where that is known already.

    Raises:
        Misuse: when the ask has no answer, or its answer is no model.
        Breach: when its numbers are beyond what any node would compute with.
    """
    study, outcome = results.header.study, results.outcome(ask_id)
    ask, model = outcome.ask, outcome.answer
    analysis = ask.exactly() if results.header.exact else ask.analysis
    if not isinstance(model, Model) or not isinstance(analysis, ModelAnalysis):
        raise Misuse(f"the ask {ask_id!r} is not a model: it is {outcome.status if model is None else ask.name}")
    predictor = analysis.predictor(model.parameters())
    needed, cases = _needed(study, model)
    answer = {key: value for key, value in model.to_json().items() if key not in ("equation", "partners", "rounds")}
    return Fitted(
        analysis=ask.name,
        family=model.family,
        title=ask.title,
        outcome=model.outcome,
        definition=_definition(study, model.outcome),
        columns=needed,
        cases=cases,
        form=form_of(predictor),
        estimates=answer,
        receipt=_receipt(results, ask, model, results.to_json()["partners"] if partners is None else partners),
        recalibration=_recalibration(results, ask_id),
    )


def form_of(predictor: Predictor) -> Form:
    """What a predictor computes, as plain numbers."""
    if isinstance(predictor, Equation):
        return sum_of(predictor)
    if isinstance(predictor, NeuralPredictor):
        return network_of(predictor)
    raise Misuse(f"a {type(predictor).__name__} has no form that can be kept")


def _needed(study: Study, model: Model) -> tuple[dict[str, Column], dict[str, Case]]:
    """The declared columns that a row must have, in the study's order, and the cases made from them."""
    names = {column.name for column in model.features}
    cases = {name: case for name, case in study.cases.items() if name in names}
    read = (names - set(cases)) | {name for case in cases.values() for name in case.when.columns}
    return {name: column for name, column in study.columns.items() if name in read}, cases


def _recalibration(results: Results, ask_id: str) -> dict[str, tuple[float, float]]:
    """Intercept and slope by partner, of the first ask that recalibrates this model, named directly or by a selection."""
    answers = {outcome.ask.id: outcome.answer for outcome in results.outcomes}

    def about(name: str) -> str:
        choice = answers.get(name)
        return choice.ask if isinstance(choice, Chosen) else name

    return next((each.used for each in answers.values() if isinstance(each, Adapted) and about(each.ask) == ask_id), {})


def _definition(study: Study, outcome: Column) -> str:
    return study.cases[outcome.name].when.text if outcome.name in study.cases else outcome.name


def _receipt(results: Results, ask: Ask, model: Model, partners: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The study, the guarantee, who took part and what it has cost each: by this study, and by all so far."""
    study = results.header.study
    spent = {row["name"]: row for row in partners if row["name"] in model.partners}
    return {
        "stamp": results.header.stamp,
        "study": study.id,
        "version": study.version,
        "digest": study.digest,
        "permit": study.permit,
        "ask": ask.id,
        "where": ask.where.text if ask.where else None,
        "share": ask.share,
        "epsilon_ask": study.ask_epsilon(ask),
        "epsilon": study.budget.epsilon,
        "delta": study.budget.delta,
        "unit": "patient",
        "neighbours": "add-or-remove-one",
        "noise": "each-node",
        "partners": list(model.partners),
        "messages": model.rounds,
        "ledger": {name: {key: row[key] for key in _LEDGER} for name, row in sorted(spent.items())},
    }
