"""How well models do at a given privacy, and what training them takes.

python -m benchmarks.utility --sets uci_heart,adult --epsilon 0.5,1,none --seeds 10 --json FILE

Every method may spend the whole (epsilon, delta) of a patient on training; seeds vary the noise and nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.errors import AhhError
from benchmarks import federated
from benchmarks.datasets import SETS, data_set
from benchmarks.metrics import Quality, quality
from benchmarks.tasks import Task, prepare

EACH_NODE, SUMMED, POOLED, FEDAVG = METHODS = ("ahh each-node", "ahh summed noise", "pooled sklearn", "FedAvg Opacus")


@dataclass(frozen=True, slots=True)
class Run:
    """One trained model on the test patients; `partners` is how many are in it."""

    quality: Quality
    messages: int
    cpu_s: float
    partners: int


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one data set at one epsilon (None: no privacy) over some seeds; `failed` runs have no model."""

    set: str
    method: str
    mode: str
    epsilon: float | None
    delta: float | None
    runs: tuple[Run, ...]
    failed: int = 0

    def mean(self, of: Callable[[Run], float]) -> float:
        return statistics.fmean(map(of, self.runs))

    def sd(self, of: Callable[[Run], float]) -> float:
        return statistics.stdev(map(of, self.runs)) if len(self.runs) > 1 else 0.0

    def to_json(self) -> dict[str, str | float | None]:
        """Means over the seeds that gave a model."""
        return {
            "set": self.set,
            "method": self.method,
            "mode": self.mode,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "seeds": len(self.runs),
            "auroc": self.mean(lambda run: run.quality.auroc),
            "accuracy": self.mean(lambda run: run.quality.accuracy),
            "logloss": self.mean(lambda run: run.quality.logloss),
            "slope": self.mean(lambda run: run.quality.slope),
            "rounds": self.mean(lambda run: run.messages),
            "messages": self.mean(lambda run: run.messages),
            "cpu_s": self.mean(lambda run: run.cpu_s),
            "auroc_sd": self.sd(lambda run: run.quality.auroc),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run on every data set; `delta` None takes the data set's own."""

    epsilons: tuple[float | None, ...]
    delta: float | None
    seeds: int
    opacus_seeds: int
    methods: tuple[str, ...] = METHODS


def rows(task: Task, plan: Plan) -> Iterator[Row]:
    """All rows of one data set; those without a single model are left out."""
    delta = plan.delta or task.data.delta
    if POOLED in plan.methods:
        yield _pooled(task)
    for epsilon in plan.epsilons:
        if EACH_NODE in plan.methods and epsilon is None:
            trained = federated.exact(task, delta)
            yield Row(task.data.name, EACH_NODE, "exact", None, None, (_run(task, trained),))
        if epsilon is not None:
            for method, mode, train in ((EACH_NODE, "each-node", federated.each_node), (SUMMED, "summed", federated.summed)):
                if method in plan.methods:
                    yield from _private(task, Row(task.data.name, method, mode, epsilon, delta, ()), train, plan.seeds)
        if FEDAVG in plan.methods:
            yield _fedavg(task, epsilon, delta, plan.opacus_seeds)


def _private(task: Task, empty: Row, train: Callable[[Task, float, float, int], federated.Trained], seeds: int) -> Iterator[Row]:
    assert empty.epsilon is not None and empty.delta is not None
    runs, failed = [], 0
    for seed in range(seeds):
        try:
            runs.append(_run(task, train(task, empty.epsilon, empty.delta, seed)))
        except federated.NotEnough:
            failed += 1
    if runs:
        yield Row(empty.set, empty.method, empty.mode, empty.epsilon, empty.delta, tuple(runs), failed)


def _run(task: Task, trained: federated.Trained) -> Run:
    return Run(_judged(task, trained.fit.predict), trained.messages, trained.cpu_s, trained.partners)


def _pooled(task: Task) -> Row:
    from benchmarks import baselines

    fitted = baselines.pooled_sklearn(task)
    run = Run(_judged(task, fitted.predict), fitted.messages, fitted.cpu_s, len(task.cohorts))
    return Row(task.data.name, POOLED, "pooled", None, None, (run,))


def _fedavg(task: Task, epsilon: float | None, delta: float, seeds: int) -> Row:
    from benchmarks import baselines

    sites = baselines.sites(task, epsilon, delta)
    fits = [baselines.fedavg(task, sites, seed) for seed in range(seeds)]
    runs = tuple(Run(_judged(task, fit.predict), fit.messages, fit.cpu_s, len(sites)) for fit in fits)
    if epsilon is None:
        return Row(task.data.name, FEDAVG, "not private", None, None, runs)
    return Row(task.data.name, FEDAVG, "each-node", epsilon, delta, runs)


def _judged(task: Task, predict: Callable[[Cohort], F64]) -> Quality:
    test = task.test().values()
    return quality(
        [task.outcome(cohort) for cohort in test], [predict(cohort) for cohort in test], by_partner=task.data.by_partner
    )


def shown(results: Sequence[Row]) -> Table:
    """A table, one line a row; ± is the standard deviation over seeds."""
    table = Table(title="Models on patients they have not seen", title_justify="left")
    for name in ("set", "epsilon", "delta", "method", "AUROC", "accuracy", "log loss", "slope"):
        table.add_column(name)
    for name in ("rounds", "messages", "CPU s", "partners", "runs"):
        table.add_column(name, justify="right")
    for row in results:
        table.add_row(
            row.set,
            "none" if row.epsilon is None else f"{row.epsilon:g}",
            "" if row.delta is None else f"{row.delta:g}",
            row.method,
            _spread(row, lambda run: run.quality.auroc),
            _spread(row, lambda run: run.quality.accuracy),
            _spread(row, lambda run: run.quality.logloss),
            _spread(row, lambda run: run.quality.slope, 2),
            *(f"{row.mean(lambda run: run.messages):g}",) * 2,
            f"{row.mean(lambda run: run.cpu_s):.3f}",
            f"{row.mean(lambda run: run.partners):.3g}",
            f"{len(row.runs)} of {len(row.runs) + row.failed}",
        )
    return table


def _spread(row: Row, of: Callable[[Run], float], digits: int = 3) -> str:
    mean = f"{row.mean(of):.{digits}f}"
    return mean if len(row.runs) == 1 else f"{mean} ± {row.sd(of):.{digits}f}"


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    plan = Plan(asked.epsilon, asked.delta, asked.seeds, asked.opacus_seeds or asked.seeds, asked.methods)
    results: list[Row] = []
    with threadpool_limits(1):
        _one_torch_thread(plan)
        for name in asked.sets:
            started = time.monotonic()
            try:
                results.extend(rows(prepare(data_set(name)), plan))
            except AhhError as error:
                Console(stderr=True).print(f"{name} is left out: {error}", highlight=False)
            else:
                Console(stderr=True).print(f"{name}: {time.monotonic() - started:.0f} s", highlight=False)
    if not results:
        return 2
    Console(width=180).print(shown(results))
    if asked.json is not None:
        asked.json.write_text(json.dumps([row.to_json() for row in results], indent=1) + "\n", encoding="utf-8")
    return 0


def _one_torch_thread(plan: Plan) -> None:
    if FEDAVG in plan.methods:
        import torch

        torch.set_num_threads(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sets", type=_among(tuple(SETS)), default=tuple(SETS), help=f"some of {','.join(SETS)}; all when left out"
    )
    parser.add_argument("--epsilon", type=_epsilons, default=(0.5, 1.0, 2.0, 4.0, None), help="for example 0.5,1,none")
    parser.add_argument("--delta", type=float, help="for all sets; when left out each set has its own")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--opacus-seeds", type=int, help="fewer seeds for FedAvg, which takes longest; as --seeds when left out")
    parser.add_argument("--methods", type=_among(METHODS), default=METHODS, help=f"some of {', '.join(METHODS)}, with commas")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    return parser


def _among(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return chosen

    return parse


def _epsilons(text: str) -> tuple[float | None, ...]:
    return tuple(None if each == "none" else float(each) for each in text.split(","))


if __name__ == "__main__":
    raise SystemExit(main())
