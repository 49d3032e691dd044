"""The results of a study as plain data, from which the report is made: a function of what crossed the wire."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ahh_federated.analyses.models import ModelAnalysis
from ahh_federated.analyses.numbers import Number, missing, number
from ahh_federated.coordinator.session import Outcome
from ahh_federated.coordinator.transcript import Exchange, Header, Spending
from ahh_federated.core.costs import Spent
from ahh_federated.core.queries import Query
from ahh_federated.core.releases import Answer, Exact, Release, Status, part_told
from ahh_federated.core.sums import step
from ahh_federated.study import Ask, Study, canonical

FORMAT = "ahh-results/1"
_PAID = (Status.RELEASED, Status.BELOW, Status.FAILED)  # a failure may have come before the debit: count it all the same


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """A finished run: how each ask came out, and what each partner spent."""

    header: Header
    outcomes: Sequence[Outcome]
    exchanges: Sequence[Exchange]
    spending: Mapping[str, Spending]
    software: str

    def outcome(self, ask_id: str) -> Outcome:
        return next(outcome for outcome in self.outcomes if outcome.ask.id == ask_id)

    def to_json(self) -> dict[str, Any]:
        study = self.header.study
        return {
            "format": FORMAT,
            "software": {"ahh_federated": self.software},
            "stamp": self.header.stamp,
            "study": _about(study),
            "privacy": {
                "epsilon": study.budget.epsilon,
                "epsilon_alone": study.epsilon_alone,
                "delta": study.budget.delta,
                "neighbours": "add-or-remove-one",
                "noise": "each-node",
            },
            "partners": [self._partner(name) for name in self.header.partners],
            "asks": [{**_ask(study, outcome), **self._trained_on(outcome.ask)} for outcome in self.outcomes],
        }

    def _partner(self, name: str) -> dict[str, Any]:
        answered = [outcome for outcome in self.outcomes if outcome.answer is not None]
        statuses = [outcome.coverage.get(name, Status.FAILED) for outcome in answered or self.outcomes]
        told = self.spending.get(name)
        return {
            "name": name,
            "status": str(_overall(statuses)),
            "epsilon_study": self._spent(name).epsilon(self.header.study.budget.delta),
            "epsilon_dataset": told.epsilon if told else None,
            "epsilon_limit": told.epsilon_limit if told else None,
            "delta_limit": told.delta_limit if told else None,
        }

    def _trained_on(self, ask: Ask) -> dict[str, Any]:
        """How many patients each partner brought to a model, as the first message of its fit says."""
        first = next((each for each in self.exchanges if each.request.ask == ask.id and each.request.step == 0), None)
        if first is None or not isinstance(ask.analysis, ModelAnalysis) or ask.models:
            return {}
        query, found = ask.analysis.query(first.request.kind, first.request.parameters), {}
        for name, reply in sorted(first.replies.items()):
            answer: Answer | None = None if reply.exact is None else Exact(reply.exact)
            if reply.cells is not None:
                answer = Release.from_bytes(reply.cells, width=query.width, step=step(query), sigma=reply.sigma)
            found[name] = missing(reply.status) if answer is None else _patients(query, answer)
        return {"patients": {name: each.to_json() for name, each in found.items()}}

    def _spent(self, name: str) -> Spent:
        study, spent = self.header.study, Spent()
        for exchange in self.exchanges:
            reply = exchange.replies.get(name)
            if reply is not None and reply.exact is None and reply.status in _PAID:
                ask = study.ask(exchange.request.ask)
                spent = spent + study.event(ask, ask.lines[exchange.request.step])
        return spent


def _patients(query: Query, answer: Answer) -> Number:
    counts, told = part_told(query, answer, 0)
    patients = counts.patients(told.values)
    assert patients is not None, f"{query.kind} begins a model, and does not tell how many patients it is of"
    return number(patients, told.stderr * math.sqrt(counts.width - 1), least=0.0)


def _overall(statuses: Sequence[Status]) -> Status:
    """Released if the partner is in at least one answer; else what it said first."""
    return Status.RELEASED if not statuses or Status.RELEASED in statuses else statuses[0]


def _ask(study: Study, outcome: Outcome) -> dict[str, Any]:
    ask = outcome.ask
    answer = None if outcome.answer is None else outcome.answer.to_json()
    if answer is not None and len(ask.models) == 1:
        answer["model"] = ask.models[0]
    if answer is not None and "outcome" in answer:
        case = study.cases.get(answer["outcome"])
        answer["definition"] = f"{case.label}: {case.when.text}" if case else answer["outcome"]
    return {
        "id": ask.id,
        "title": ask.title,
        "analysis": ask.name,
        "where": ask.where.text if ask.where else None,
        "share": ask.share,
        "epsilon": study.ask_epsilon(ask),
        "models": list(ask.models),
        "messages": outcome.messages,
        "status": str(outcome.status),
        "reason": outcome.reason,
        "coverage": {name: str(status) for name, status in sorted(outcome.coverage.items())},
        "answer": answer,
    }


def _about(study: Study) -> dict[str, Any]:
    content = json.loads(canonical(study.content))
    return {
        "id": study.id,
        "title": study.title,
        "purpose": study.purpose,
        "version": study.version,
        "consortium": study.consortium,
        "digest": study.digest,
        "requester": study.requester,
        "organisation": study.organisation,
        "permit": study.permit,
        "expires": study.expires.isoformat(),
        "minimum_partners": study.minimum_partners,
        "data": study.data,
        "columns": content["columns"],
        "cases": {name: {"when": case.when.text, "label": case.label} for name, case in study.cases.items()},
    }
