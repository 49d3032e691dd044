"""ahh_federated as a method of the benchmark: real desks, gate and noise, ledgers in memory, one process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ahh_federated.analyses.models import Model
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.runtimes.local import ExactLink, LocalLink
from ahh_federated.study import Study, parse_study
from ahh_federated.wire import Reply, Request
from benchmarks.tasks import MODEL, Task, pooled

DAY = date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted model and what it took.

    `partners`: how many are in it.  `messages`: replies a node sent.  CPU in seconds of this process: `node_s` of all
    partners together, `cpu_s` of partners and coordinator.
    """

    model: Model
    partners: int
    messages: int
    node_s: float
    cpu_s: float


@dataclass(slots=True)
class _Timed:
    """A link that adds up the partners' CPU time."""

    link: LocalLink | ExactLink
    node_s: float = field(default=0.0)

    @property
    def partners(self) -> tuple[str, ...]:
        return self.link.partners

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        started = time.process_time()
        try:
            return self.link.exchange(request, partners)
        finally:
            self.node_s += time.process_time() - started


def one_model(title: str, columns: Mapping[str, Any], ask: Mapping[str, Any], budget: Budget, minimum_partners: int = 1) -> Study:
    """A study of synthetic data with one ask for a model, which gets the whole budget."""
    about = {"title": title, "purpose": "Measure.", "version": 1, "consortium": "none", "data": "synthetic"}
    name = title.lower().replace(" ", "-")
    privacy = {"epsilon": budget.epsilon, "delta": budget.delta, "neighbours": "add-or-remove-one", "noise": "each-node"}
    return parse_study(
        {
            "study": {"id": name, **about, "minimum_partners": minimum_partners, "expires": DAY},
            "requester": {"name": "nobody", "organisation": "none", "permit": "none"},
            "privacy": privacy,
            "patient": {"key": "id"},
            "columns": dict(columns),
            "ask": [{"id": MODEL, **ask, "share": 1.0}],
        }
    )


class NotEnough(Exception):
    """Too few partners released; the text is the coordinator's reason."""


def each_node(task: Task, ask: Mapping[str, Any], epsilon: float, delta: float, seed: int) -> Trained:
    """Every partner adds its own noise: what a study with `noise = "each-node"` does.  `ask`: the analysis and its keys."""
    study = task.only_training(epsilon, delta, task.study.minimum_partners, ask)
    return train(study, task.cohorts, seed)


def summed(task: Task, ask: Mapping[str, Any], epsilon: float, delta: float, seed: int) -> Trained:
    """A laboratory simulation of noise that is added once, to the sum: one partner that holds everybody."""
    return train(task.only_training(epsilon, delta, 1, ask), {"everybody": pooled(task.cohorts)}, seed)


def exact(task: Task, ask: Mapping[str, Any], delta: float) -> Trained:
    """No noise, no grid, no prior: the fit from exact federated sums."""
    study = task.only_training(1.0, delta, task.study.minimum_partners, ask)
    return _run(study, _Timed(ExactLink(study, task.cohorts)), "", exact=True)


def train(study: Study, cohorts: Mapping[str, Cohort], seed: int) -> Trained:
    """Run a study that has one ask for a model, with seeded noise and a node budget equal to the study's.

    Raises:
        NotEnough: when fewer partners released than the study needs.
    """
    entropy, run = Entropy.seeded(seed), f"+seed{seed}"
    policy = Policy(Budget(study.budget.epsilon, study.budget.delta), data=study.data)
    ledgers = {name: Ledger.in_memory(dataset=name, budget=policy.budget) for name in cohorts}
    try:
        desks = {name: Desk(name, study, cohorts[name], ledgers[name], policy, entropy, run) for name in cohorts}
        return _run(study, _Timed(LocalLink(desks, DAY)), run)
    finally:
        for ledger in ledgers.values():
            ledger.close()


def _run(study: Study, link: _Timed, run: str, *, exact: bool = False) -> Trained:
    started = time.process_time()
    (outcome,) = Session(study, link, lambda exchange: None, Silent(), run, exact).outcomes()
    cpu_s = time.process_time() - started
    if not isinstance(outcome.answer, Model):
        raise NotEnough(f"{study.id}, {MODEL}: {outcome.reason}")
    return Trained(outcome.answer, len(outcome.answer.partners), outcome.messages, link.node_s, cpu_s)
