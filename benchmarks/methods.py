"""The methods of the utility benchmark: each trains on a task with a whole (epsilon, delta), and is judged on its test patients.

Nothing here was tuned on any set: a model of ahh_federated is asked for by name, with the defaults it ships with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.special import expit

from ahh_federated.core.cohorts import F64, Cohort
from benchmarks import federated
from benchmarks.metrics import quality
from benchmarks.results import Row, Run
from benchmarks.tasks import Task

POOLED, FEDAVG, CENTRAL = "pooled sklearn", "FedAvg Opacus", "central DP-EBM"
RISK, MEASURED = "binary", "continuous"


@dataclass(frozen=True, slots=True)
class Ours:
    """A model of ahh_federated: the keys of its ask that differ from the ask of a set's study.

    families: the outcomes it is compared on.
    summed: noise is added once, to the sum of all partners, which is a simulation.
    slow: takes seconds to minutes and not fractions of a second.
    """

    ask: Mapping[str, Any]
    families: tuple[str, ...] = (RISK, MEASURED)
    summed: bool = False
    slow: bool = False


_ADDITIVE = {"analysis": "additive"}
OURS: Mapping[str, Ours] = {
    "ahh logistic": Ours({"analysis": "logistic"}, (RISK,)),
    "ahh logistic summed": Ours({"analysis": "logistic"}, (RISK,), summed=True),
    "ahh linear": Ours({"analysis": "linear"}, (MEASURED,)),
    "ahh linear summed": Ours({"analysis": "linear"}, (MEASURED,), summed=True),
    "ahh additive": Ours(_ADDITIVE),
    "ahh additive summed": Ours(_ADDITIVE, summed=True),
    "ahh neural sgd": Ours({"analysis": "neural", "way": "sgd"}, slow=True),
    "ahh neural local": Ours({"analysis": "neural", "way": "local"}, slow=True),
}
METHODS = (POOLED, *OURS, FEDAVG, CENTRAL)


def usual_methods() -> tuple[str, ...]:
    """All methods but those whose package is not installed, which can still be asked for by name."""
    return METHODS if find_spec("interpret") else tuple(name for name in METHODS if name != CENTRAL)


def applies(task: Task, method: str, epsilon: float | None) -> bool:
    """Whether a private method says something about a task at this epsilon; None is the same without noise."""
    if method in OURS:
        return task.analysis.family in OURS[method].families and not (epsilon is None and OURS[method].summed)
    return task.analysis.family == RISK and (method == FEDAVG or (method == CENTRAL and epsilon is not None))


def rows(task: Task, method: str, epsilon: float | None, delta: float, seeds: Sequence[int]) -> Iterator[Row]:
    """One row, or none when no run gave a model.  Raises Misuse when the study refuses the ask."""
    if method in OURS:
        yield from _ours(task, method, epsilon, delta, seeds)
    elif method == FEDAVG:
        yield _fedavg(task, epsilon, delta, seeds)
    elif epsilon is not None:
        yield _central(task, epsilon, delta, seeds)


def _ours(task: Task, method: str, epsilon: float | None, delta: float, seeds: Sequence[int]) -> Iterator[Row]:
    ours, runs, failed = OURS[method], [], 0
    if epsilon is None:
        run = _run(task, federated.exact(task, ours.ask, delta))
        yield Row(task.data.name, method, "exact", None, None, (run,))
        return
    train = federated.summed if ours.summed else federated.each_node
    for seed in seeds:
        try:
            runs.append(_run(task, train(task, ours.ask, epsilon, delta, seed)))
        except federated.NotEnough:
            failed += 1
    if runs:
        mode = "summed" if ours.summed else "each-node"
        yield Row(task.data.name, method, mode, epsilon, delta, tuple(runs), failed)


def _run(task: Task, trained: federated.Trained) -> Run:
    def predict(cohort: Cohort) -> F64:
        linear = trained.model.linear(cohort)
        return np.asarray(expit(linear)) if task.analysis.family == RISK else linear

    return Run(_judged(task, predict), trained.messages, trained.cpu_s, trained.partners)


def pooled(task: Task) -> Row:
    """Everybody's rows in one place, no privacy."""
    from benchmarks import baselines

    fitted = baselines.pooled_sklearn(task)
    run = Run(_judged(task, fitted.predict), fitted.messages, fitted.cpu_s, len(task.cohorts))
    return Row(task.data.name, POOLED, "pooled", None, None, (run,))


def _fedavg(task: Task, epsilon: float | None, delta: float, seeds: Sequence[int]) -> Row:
    from benchmarks import baselines

    sites = baselines.sites(task, epsilon, delta)
    fits = [baselines.fedavg(task, sites, seed) for seed in seeds]
    runs = tuple(Run(_judged(task, fit.predict), fit.messages, fit.cpu_s, len(sites)) for fit in fits)
    if epsilon is None:
        return Row(task.data.name, FEDAVG, "not private", None, None, runs)
    return Row(task.data.name, FEDAVG, "each-node", epsilon, delta, runs)


def _central(task: Task, epsilon: float, delta: float, seeds: Sequence[int]) -> Row:
    from benchmarks import central

    fits = [central.dp_ebm(task, epsilon, delta, seed) for seed in seeds]
    runs = tuple(Run(_judged(task, fit.predict), fit.messages, fit.cpu_s, len(task.cohorts)) for fit in fits)
    return Row(task.data.name, CENTRAL, "central", epsilon, delta, runs)


def _judged(task: Task, predict: Callable[[Cohort], F64]) -> dict[str, float]:
    test = task.test().values()
    outcomes, predictions = [task.outcome(cohort) for cohort in test], [predict(cohort) for cohort in test]
    return quality(task.analysis.family, outcomes, predictions, by_partner=task.data.by_partner)
