"""A driver for tests: the real gate under the events that a study would order, plans included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import SAMPLED, Budget, Event, plan_sigma, sigma_for
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.programs import Analysis, Line, drive
from ahh_federated.core.queries import Query
from ahh_federated.core.releases import Answer, Round, Status
from tests.analyses.drivers import OpenBooks


def events(analysis: Analysis, budget: Budget) -> list[Event]:
    """What each step costs when the analysis may spend the whole budget."""
    lines = analysis.schedule()
    firsts = {line.plan: line for line in reversed(lines)}
    return [_event(line, budget.mu * math.sqrt(firsts[line.plan].share if line.place else line.share)) for line in lines]


def _event(line: Line, mu: float) -> Event:
    if not line.planned:
        return Event(line.sensitivity, sigma_for(line.sensitivity, mu), line.width)
    sigma = plan_sigma(line.sensitivity, mu, line.rate, line.count)
    return Event(line.sensitivity, sigma, line.width, SAMPLED, line.rate, line.count, line.place, line.steps)


def gated(analysis: Analysis, cohorts: Mapping[str, Cohort], budget: Budget, seed: int) -> Any:
    """The answer through the gate: every partner adds its own noise, for the whole of `budget`."""
    ordered = events(analysis, budget)

    def ask(number: int, line: Line, query: Query) -> Round:
        replies: dict[str, Answer | Status] = {}
        rebuilt = analysis.query(query.kind, query.parameters())
        assert rebuilt == query, f"{query.kind} is rebuilt as another query"
        for name, cohort in cohorts.items():
            order = Order(f"{name} {number}", "study", f"ask:{number}", ordered[number], budget)
            entropy = Entropy.seeded(seed).derive(name.encode())
            replies[name] = release(rebuilt, cohort, where=None, order=order, books=OpenBooks(), entropy=entropy)
        return Round(query, replies)

    return drive(analysis, ask)
