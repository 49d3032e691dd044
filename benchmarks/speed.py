"""How fast the kernel is, as ratios within one run, on one thread; and how much memory it works in.

python -m benchmarks.speed --json FILE
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import expit
from threadpoolctl import threadpool_limits

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.glm import Gram, Score
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import Budget
from ahh_federated.core.sums import integer_sum
from ahh_federated.errors import Misuse
from ahh_federated.study import Study
from benchmarks import federated
from benchmarks.datasets import data_set
from benchmarks.federated import Trained
from benchmarks.tasks import pooled, prepare

if TYPE_CHECKING:  # it needs torch
    from benchmarks.baselines import Site

MEMORY_SIZES = (100_000, 1_000_000, 10_000_000)
BATCHES = (64, 1_000, 10_000)
HIDDEN, RATE, CLIP, STEPS = 16, 0.01, 1.5, 100  # of networks
ANALYSES = ("logistic", "additive")
OUTCOME = Levels("y", ("no", "yes"))


@dataclass(frozen=True, slots=True)
class Sizes:
    """Patients of each comparison."""

    step: int = 1_000_000
    gradient: int = 100_000
    training: int = 20_000
    sets: tuple[str, ...] = ("nutrition20k", "adult")
    memory: tuple[int, ...] = MEMORY_SIZES
    repeats: int = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.  `aim`, where there is one, says which side of a number it should be on."""

    name: str
    value: float
    unit: str
    aim: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Simulated patients with normal features: as a cohort, and as the arrays x (patients, features), y and beta."""

    cohort: Cohort
    score: Score
    gram: Gram
    x: F64
    y: F64
    beta: F64


def problem(patients: int, features: int) -> Problem:
    rng = np.random.default_rng(0)
    columns = tuple(Numeric(f"x{j}", -5.0, 5.0, "sd") for j in range(features))
    values = np.clip(rng.normal(size=(features, patients)), -5, 5)
    y = (rng.random(patients) < 0.3).astype(np.float64)
    cohort = Cohort.of({**{column.name: values[j] for j, column in enumerate(columns)}, OUTCOME.name: y})
    design = Design(columns)
    scale = Scale((0.0,) * features, (0.2,) * features, (features + 1.0) ** 0.5)
    beta = np.concatenate([[-1.0], rng.normal(size=features) / features**0.5])
    score = Score(design, OUTCOME, scale, tuple(beta))
    return Problem(cohort, score, Gram(design, OUTCOME, scale), np.ascontiguousarray(values.T), y, beta)


def step_ratios(patients: int, features: int, repeats: int) -> list[Figure]:
    """A Newton step on the integer grid, against the same sums in plain numpy on a ready matrix."""
    given = problem(patients, features)
    weight = np.full((patients, 1), 0.21)

    def plain_score() -> F64:
        return np.asarray(given.x.T @ (expit(given.x @ given.beta[1:] + given.beta[0]) - given.y))

    score = best(lambda: integer_sum(given.score, given.cohort), repeats)
    gram = best(lambda: integer_sum(given.gram, given.cohort), repeats)
    numpy_score = best(plain_score, repeats)
    numpy_gram = best(lambda: given.x.T @ (weight * given.x), repeats)
    size = f"{patients:,} x {features}"
    return [
        Figure(f"score and Gram / numpy X'WX, {size}", (score + gram) / numpy_gram, "times", "at most 4"),
        Figure(f"score and Gram / numpy score and X'WX, {size}", (score + gram) / (numpy_score + numpy_gram), "times"),
        Figure(f"score / numpy score, {size}", score / numpy_score, "times"),
        Figure(f"Gram / numpy X'WX, {size}", gram / numpy_gram, "times"),
    ]


def opacus_ratio(patients: int, features: int, repeats: int, batch: int) -> list[Figure]:
    """One clipped and summed gradient of a logistic model: Opacus' hooks in batches, against the kernel's score.

    Not the same work: Opacus gets a ready matrix in float32, the kernel standardises columns and rounds them to its grid
    in float64.  Batches of 64 are what DP-SGD takes; large ones show what the hooks cost by themselves.
    """
    import torch
    from opacus import GradSampleModule

    given = problem(patients, features)
    x, y = torch.tensor(given.x, dtype=torch.float32), torch.tensor(given.y, dtype=torch.float32)
    module = GradSampleModule(torch.nn.Linear(features, 1), loss_reduction="sum")
    loss = torch.nn.BCEWithLogitsLoss(reduction="sum")

    def clipped() -> torch.Tensor:
        total = torch.zeros(features + 1)
        for part, truth in zip(x.split(batch), y.split(batch), strict=True):
            module.zero_grad()
            loss(module(part).squeeze(1), truth).backward()
            each = torch.cat([parameter.grad_sample.flatten(1) for parameter in module.parameters()], dim=1)
            total += (each * (1 / each.norm(dim=1).clamp(min=1))[:, None]).sum(dim=0)
        return total

    hooks = best(clipped, repeats)
    score = best(lambda: integer_sum(given.score, given.cohort), repeats)
    name = f"Opacus' clipped gradient / score, {patients:,} x {features}, batches of {batch:,}"
    return [Figure(name, hooks / score, "times", "at least 10" if batch <= 64 else "")]


def training_ratio(patients: int, features: int, partners: int, repeats: int) -> list[Figure]:
    """A whole training of simulated patients, all predictors measured: see `_against_opacus`."""
    from benchmarks import baselines

    given = problem(patients, features)
    sites = [baselines.site(given.x[k::partners], given.y[k::partners], 1.0, 1e-5) for k in range(partners)]
    studies = {analysis: _study(given, partners, {"analysis": analysis}) for analysis in ANALYSES}
    cohorts = _parts(given, studies[ANALYSES[0]], partners)
    return _against_opacus(f"{patients:,} x {features}", sites, studies, cohorts, repeats)


def set_ratio(name: str, together: bool, repeats: int) -> list[Figure]:
    """The same of a data set, with its partners or with all its patients at one.

    Raises:
        Misuse: when its files are not there.
    """
    from benchmarks import baselines

    task = prepare(data_set(name))
    cohorts = {"everybody": pooled(task.training())} if together else task.training()
    sites = [baselines.site(task.features(each), task.outcome(each), 1.0, task.data.delta) for each in cohorts.values()]
    studies = {analysis: task.only_training(1.0, task.data.delta, len(cohorts), {"analysis": analysis}) for analysis in ANALYSES}
    return _against_opacus(name, sites, studies, cohorts, repeats)


def _against_opacus(
    size: str, sites: list[Site], studies: Mapping[str, Study], cohorts: Mapping[str, Cohort], repeats: int
) -> list[Figure]:
    """A whole training: 20 rounds of one local Opacus epoch, against all messages of an ask with real desks.

    They take turns, since a machine is not equally fast all the time; medians of the turns' ratios.  Opacus' time is that of the
    partners; averaging models is left out.
    """
    from benchmarks import baselines

    ratios: dict[str, list[float]] = {}
    for _ in range(repeats):
        started = time.process_time()
        baselines.train_fedavg(sites)
        opacus = time.process_time() - started
        for analysis, study in studies.items():
            ours = _trained(study, cohorts, repeats)
            ratios.setdefault(f"{analysis}, whole training", []).append(opacus / ours.cpu_s)
            ratios.setdefault(f"{analysis}, at the partners", []).append(opacus / ours.node_s)
    size = f"{size}, {len(cohorts)} partner{'s' * (len(cohorts) > 1)}"
    aims = ("at least 50", "at least 100") * len(studies)
    return [
        Figure(f"20 Opacus epochs / {what}, {size}", median(turns), "times", aim)
        for (what, turns), aim in zip(ratios.items(), aims, strict=True)
    ]


def network_ratios(patients: int, features: int, partners: int, repeats: int) -> list[Figure]:
    """Training one small network: the whole of a neural ask with real desks, against other engines (benchmarks/engines.py).

    The same network, number of steps, clip and sampling rate.  A neural ask also counts, standardises, keeps a ledger, rounds
    to its grid and draws its noise from AES; the search for the noise, once a plan, is left out for all.
    """
    from benchmarks import engines

    given = problem(patients, features)
    recipe = engines.Recipe(HIDDEN, RATE, CLIP, noise=1.0, learning_rate=0.1, rounds=5, local_steps=STEPS // 5)
    size = f"{patients:,} x {features}, {STEPS} steps of {RATE:.0%}"

    def asked(parts: int, **keys: Any) -> float:
        shape = {"hidden": [HIDDEN], "architecture": "mlp", "sampling_rate": RATE, "clip": CLIP}
        study = _study(given, parts, {"analysis": "neural", **shape, **keys})
        return _trained(study, _parts(given, study, parts), repeats).cpu_s

    everybody = engines.Data.of(given.x, given.y)
    parts = {f"partner-{k}": engines.Data.of(given.x[k::partners], given.y[k::partners]) for k in range(partners)}
    opacus = best(lambda: engines.opacus_engine(everybody, recipe), repeats)
    flower = best(lambda: engines.flower_and_opacus(parts, recipe), repeats)
    sgd, local = asked(1, way="sgd", rounds=STEPS), asked(partners, way="local", rounds=5, local_steps=STEPS // 5)
    curves = _study(given, 1, {"analysis": "additive"})
    additive = _trained(curves, _parts(given, curves, 1), repeats).cpu_s
    return [
        Figure(f"neural sgd / Opacus' own engine, {size}, 1 partner", sgd / opacus, "times"),
        Figure(f"neural local / Flower and Opacus, {size}, {partners} partners", local / flower, "times"),
        Figure(f"Opacus' own engine / additive ask, {size}, 1 partner", opacus / additive, "times"),
        Figure(f"neural sgd / additive ask, {size}, 1 partner", sgd / additive, "times"),
    ]


def _trained(study: Study, cohorts: Mapping[str, Cohort], repeats: int) -> Trained:
    """The whole of an ask for a model: of several runs after one to warm up, that of the least CPU time."""
    return min([federated.train(study, cohorts, seed) for seed in range(repeats + 1)][1:], key=lambda run: run.cpu_s)


def _parts(given: Problem, study: Study, partners: int) -> dict[str, Cohort]:
    """The patients of each partner."""
    columns = {name: given.cohort[name] for name in study.columns}
    return {f"partner-{k}": Cohort.of({name: values[k::partners] for name, values in columns.items()}) for k in range(partners)}


def _study(given: Problem, partners: int, ask: Mapping[str, Any]) -> Study:
    names = [column.name for column in given.score.design.features]
    ranges = {name: {"range": [-5.0, 5.0], "unit": "sd"} for name in names}
    columns = {**ranges, OUTCOME.name: {"levels": list(OUTCOME.levels)}}
    ask = {"outcome": OUTCOME.name, "features": names, **ask}
    return federated.one_model("Speed", columns, ask, Budget(1.0, 1e-5), partners)


def memory(sizes: tuple[int, ...], features: int = 10) -> list[Figure]:
    """Peak memory of a score and a Gram matrix beyond the cohort itself, in MiB."""
    figures = []
    for patients in sizes:
        given = problem(patients, features)
        cohort, queries = given.cohort, (given.score, given.gram)
        del given
        tracemalloc.start()
        for query in queries:
            integer_sum(query, cohort)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        figures.append(Figure(f"memory beyond the input, {patients:,} x {features}", peak, "MiB", "the same at every size"))
    return figures


def best(function: Callable[[], object], repeats: int) -> float:
    """The least CPU time of several calls after one to warm up, in seconds."""
    function()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        times.append(time.process_time() - started)
    return min(times)


def measure(sizes: Sizes) -> list[Figure]:
    """All figures, on one thread."""
    import torch

    torch.set_num_threads(1)
    with threadpool_limits(1):
        return [
            *step_ratios(sizes.step, 30, sizes.repeats),
            *(figure for batch in BATCHES for figure in opacus_ratio(sizes.gradient, 30, sizes.repeats, batch)),
            *training_ratio(sizes.training, 20, 1, sizes.repeats),
            *training_ratio(sizes.training, 20, 8, sizes.repeats),
            *(figure for name in sizes.sets for figure in _set(name, sizes.repeats)),
            *network_ratios(sizes.training, 20, 4, sizes.repeats),
            *memory(sizes.memory),
        ]


def _set(name: str, repeats: int) -> list[Figure]:
    try:
        return [figure for together in (True, False) for figure in set_ratio(name, together, repeats)]
    except Misuse as missing:
        Console(stderr=True).print(f"{name} is left out: {missing}")
        return []


def shown(figures: list[Figure]) -> Table:
    table = Table(title="Speed and memory, one thread, best of several", title_justify="left")
    for name in ("what", "measured", "unit", "aim"):
        table.add_column(name, justify="right" if name == "measured" else "left")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:.3g}", figure.unit, figure.aim)
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; the ratios mean little")
    asked = parser.parse_args(arguments)
    sizes = Sizes(20_000, 5_000, 2_000, ("nutrition2k",), (20_000, 100_000), 1) if asked.quick else Sizes()
    figures = measure(sizes)
    Console(width=140).print(shown(figures))
    if asked.json is not None:
        content = {"threads": 1, "figures": [{"name": f.name, "value": f.value, "unit": f.unit, "aim": f.aim} for f in figures]}
        asked.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
