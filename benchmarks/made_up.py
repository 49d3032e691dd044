"""Patients who are made up, of many kinds: what the constants of regressions and curves were chosen on, and can be checked on.

python -m benchmarks.made_up --kinds 200 --json FILE
python -m benchmarks.made_up --kinds 200 --measured

The truth is known (benchmarks/people.py), so a model's loss can be told from the least there is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.special import expit
from threadpoolctl import threadpool_limits

from ahh_federated.analyses.curves import AdditiveFit
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.mixture import Mixture
from ahh_federated.analyses.models import Model
from ahh_federated.analyses.numbers import Z95
from ahh_federated.analyses.prior import Part, before_scores
from ahh_federated.core.cohorts import F64, Cohort
from benchmarks import federated
from benchmarks.federated import NotEnough
from benchmarks.metrics import calibration_slope
from benchmarks.people import Kind, People, World

SHIPPED = "shipped"
FRESH = 20_000  # patients a model is judged on
CODE = "ahh_federated.analyses"
Change = tuple[str, Any]
RISKS: Mapping[str, tuple[Change, ...]] = {
    SHIPPED: (),
    "x one normal": ((f"{CODE}.logistic.mixture", lambda mean, covariance, levels, skewness: Mixture.normal(mean, covariance)),),
    "one prior for all slopes": ((f"{CODE}.logistic.parts_of", lambda standard: (Part(np.arange(1, len(standard.used)), 1.0),)),),
    "prior that does not learn": ((f"{CODE}.logistic.expected_variances", lambda *_, parts: before_scores(parts)),),
    "two scores": ((f"{CODE}.additive.ROUNDS", 2),),
    "first solution as it is": ((f"{CODE}.newton._STRONGEST", float("inf")),),
    "first solution at most 4": ((f"{CODE}.newton._STRONGEST", 4.0),),
}
MEASURED: Mapping[str, tuple[Change, ...]] = {
    SHIPPED: (),
    "one prior for all slopes": ((f"{CODE}.linear._prior", lambda standard: _one_prior(len(standard.used))),),
}


def _one_prior(width: int) -> F64:
    return np.array([1.0, *[0.5 / (width - 1)] * (width - 1)])


def asked(kind: Kind) -> tuple[tuple[str, str], Mapping[str, tuple[Change, ...]]]:
    """The analyses and the variants that go with an outcome."""
    return (("linear", "additive"), MEASURED) if kind.measured else (("logistic", "additive"), RISKS)


def rows(kind: Kind) -> Iterator[dict[str, Any]]:
    """A row for each analysis and variant: log loss beyond the least there is (nats), and calibration slope (1 is right).

    The log loss of a measured outcome is that of normal residuals of variance one: half the squared error of what is expected.

    `held`, where straight lines are the truth and are fitted: for each feature its kind, and whether its interval holds.
    `curves`: whether hats are in use.
    """
    world = World.of(kind)
    cohorts, fresh = world.partners(), world.people(FRESH, stream=1)
    judged = Cohort.of(fresh.columns, FRESH)
    analyses, variants = asked(kind)
    for analysis in analyses:
        for variant, changes in variants.items():
            with ExitStack() as changed:
                for target, value in changes:
                    changed.enter_context(patch(target, value))
                try:
                    model = federated.train(world.study(analysis), cohorts, kind.seed).model
                except NotEnough:
                    continue
            excess, slope = (_of_values if kind.measured else _of_risks)(fresh, model.linear(judged))
            curves = isinstance(model, AdditiveFit) and model.choice.curves
            found = {"variant": variant, "excess": excess, "slope": slope, "held": _held(world, model), "curves": curves}
            yield {**asdict(kind), "clear": kind.clear, "analysis": analysis, **found}


def _of_risks(fresh: People, log_odds: F64) -> tuple[float, float]:
    risk = expit(log_odds)
    excess = _loss(fresh.expected, risk) - _loss(fresh.expected, fresh.expected)
    return excess, calibration_slope(fresh.columns["y"], np.clip(risk, 1e-6, 1 - 1e-6))


def _of_values(fresh: People, values: F64) -> tuple[float, float]:
    (variance, covariance), _ = np.cov(values, fresh.columns["y"])
    return float(np.mean((values - fresh.expected) ** 2)) / 2, float(covariance / max(variance, 1e-12))


def _held(world: World, model: Model) -> list[tuple[str, bool]]:
    if world.kind.bent or not isinstance(model, Fit | LinearFit):
        return []
    error = np.abs(model.coefficients()[1:] - world.truth())
    held = error < Z95 * np.hypot(*model.standard_errors())[1:]
    return [(feature.kind, bool(each)) for feature, each in zip(world.features, held, strict=True)]


def _loss(truth: F64, risk: F64) -> float:
    held = np.clip(risk, 1e-9, 1 - 1e-9)
    return float(-(truth * np.log(held) + (1 - truth) * np.log1p(-held)).mean())


def losses(found: list[dict[str, Any]], of: str) -> Table:
    """Means over kinds; ± is the standard error of a difference from what is shipped."""
    table = Table(title=f"Made-up patients, {of}: log loss beyond the least, 1/1000 nats", title_justify="left")
    for name in ("analysis", "variant", "kinds", "excess", "less shipped", "worst, best", "slope 10 %, 50 %, 90 %"):
        table.add_column(name)
    kept = {(row["analysis"], row["variant"], row["seed"]): row for row in found}
    for analysis in dict.fromkeys(row["analysis"] for row in found):
        seeds = sorted({row["seed"] for row in found if row["analysis"] == analysis})
        shipped = np.array([kept[analysis, SHIPPED, seed]["excess"] for seed in seeds]) * 1e3
        for variant in dict.fromkeys(row["variant"] for row in found):
            mine = [kept[analysis, variant, seed] for seed in seeds]
            excess = np.array([row["excess"] for row in mine]) * 1e3
            less = excess - shipped
            error = less.std() / max(len(less), 1) ** 0.5
            slopes = np.quantile([row["slope"] for row in mine], [0.1, 0.5, 0.9])
            extremes = f"{less.max():+.1f}, {less.min():+.1f}"
            difference = "" if variant == SHIPPED else f"{less.mean():+.2f} ± {error:.2f}"
            numbers = [str(len(mine)), f"{excess.mean():.2f}", difference, "" if variant == SHIPPED else extremes]
            table.add_row(analysis, variant, *numbers, ", ".join(f"{slope:.2f}" for slope in slopes))
    return table


def intervals(found: list[dict[str, Any]], of: str) -> Table:
    """Shares of 95 % intervals of straight lines that hold the truth, by what a feature is."""
    table = Table(title=f"Made-up patients, {of}: intervals that hold the truth", title_justify="left")
    kinds = ("all", "normal", "uniform", "skewed", "common", "rare")
    for name in ("variant", "intervals", *kinds):
        table.add_column(name)
    for variant in dict.fromkeys(row["variant"] for row in found):
        held = [each for row in found if row["variant"] == variant for each in row["held"]]
        shares = [[hit for kind, hit in held if name in (kind, "all")] for name in kinds]
        table.add_row(variant, str(len(held)), *(f"{np.mean(share):.3f}" if share else "" for share in shares))
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.made_up", description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", type=int, default=200, help="how many kinds of patients")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--bend", type=float, default=0.7, help="how far effects bend at most, where they do: 0.7, or 2 for far")
    parser.add_argument(
        "--strength", type=float, default=1.0, help="models are so many times as strong: 1, or 0.125 for weak ones"
    )
    parser.add_argument("--measured", action="store_true", help="measured outcomes, and not such of two levels")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    given = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for seed in track(range(given.first, given.first + given.kinds), "kinds", console=Console(stderr=True)):
            kind = Kind.drawn(seed)
            strength = kind.strength * given.strength
            found += rows(replace(kind, bend=given.bend, strength=strength, measured=given.measured))
    clear = [row for row in found if row["clear"]]
    curved = {row["seed"] for row in found if row["curves"]}
    for of, kept in (("all kinds", found), ("patients outnumber the noise", clear)):
        if kept:
            Console(width=140).print(losses(kept, of), intervals(kept, of))
    if curved:
        additive = [row for row in found if row["analysis"] == "additive" and row["seed"] in curved]
        Console(width=140).print(losses(additive, "curves are fitted"))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
