"""How well models do at a given privacy, and what training them takes.

python -m benchmarks.utility --sets uci_heart,adult --epsilon 0.5,1,none --seeds 10 --json FILE

Every method may spend the whole (epsilon, delta) of a patient on training; seeds vary the noise and nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from ahh_federated.errors import AhhError
from benchmarks import methods
from benchmarks.datasets import SETS, data_set
from benchmarks.methods import FEDAVG, METHODS, OURS, POOLED
from benchmarks.results import Row, joined, shown, to_json
from benchmarks.tasks import Task, prepare


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run on every data set; `delta` None takes the data set's own."""

    epsilons: tuple[float | None, ...]
    delta: float | None
    seeds: int
    slow_seeds: int
    methods: tuple[str, ...] = METHODS


def rows(task: Task, plan: Plan, split: int = 0) -> Iterator[Row]:
    """All rows of one data set; those without a single model are left out.  No two splits have noise of one seed."""
    delta = plan.delta or task.data.delta
    if POOLED in plan.methods:
        yield methods.pooled(task)
    for epsilon in plan.epsilons:
        for name in plan.methods:
            if methods.applies(task, name, epsilon):
                seeds = plan.slow_seeds if _slow(name) else plan.seeds
                yield from methods.rows(task, name, epsilon, delta, range(split * seeds, (split + 1) * seeds))


def _slow(method: str) -> bool:
    return method not in OURS or OURS[method].slow


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    plan = Plan(asked.epsilon, asked.delta, asked.seeds, asked.slow_seeds or asked.seeds, asked.methods)
    results: list[Row] = []
    progress = Console(stderr=True)
    with threadpool_limits(1):
        _one_torch_thread(plan)
        for name in asked.sets:
            started = time.monotonic()
            try:
                data, splits = data_set(name), range(asked.splits)
                made = [row.of_split(split) for split in splits for row in rows(prepare(data, split), plan, split)]
                results.extend(joined(made))
            except AhhError as error:
                progress.print(f"{name} is left out: {error}", highlight=False)
            else:
                progress.print(f"{name}: {time.monotonic() - started:.0f} s", highlight=False)
    if not results:
        return 2
    for table in shown(results):
        Console(width=180).print(table)
    if asked.json is not None:
        asked.json.write_text(json.dumps(to_json(results), indent=1) + "\n", encoding="utf-8")
    return 0


def _one_torch_thread(plan: Plan) -> None:
    if any(name == FEDAVG or name.startswith("ahh neural") for name in plan.methods):
        import torch

        torch.set_num_threads(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.utility", description=__doc__.splitlines()[0])
    some = _among(tuple(SETS))
    parser.add_argument("--sets", type=some, default=tuple(SETS), help=f"some of {','.join(SETS)}; all when left out")
    parser.add_argument("--epsilon", type=_epsilons, default=(0.5, 1.0, 2.0, 4.0, None), help="for example 0.5,1,none")
    parser.add_argument("--delta", type=float, help="for all sets; when left out each set has its own")
    parser.add_argument("--seeds", type=int, default=10)
    others = "how often to choose who trains and who tests; a made-up set is drawn anew each time"
    parser.add_argument("--splits", type=int, default=1, help=others)
    fewer = "fewer seeds for neural networks and what others made, which take longest; as --seeds when left out"
    parser.add_argument("--slow-seeds", type=int, help=fewer)
    named = f"some of {', '.join(METHODS)}, with commas"
    parser.add_argument("--methods", type=_among(METHODS), default=methods.usual_methods(), help=named)
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
