"""The bill of a study before anything is asked, and the error to expect of each number.

The cost is exact: it depends on the study alone.  The errors come from running the very same study on simulated
patients drawn from the declared ranges and levels (runtimes/simulated.py), so they are what noise and sampling do to a
cohort of that size, not a forecast of the answer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ahh_federated.analyses.numbers import Z95
from ahh_federated.coordinator.session import Outcome
from ahh_federated.core.costs import Spent
from ahh_federated.errors import Misuse
from ahh_federated.runtimes.simulated import simulate
from ahh_federated.study import Ask, Study, open_study

SIZES = (500, 2_000, 20_000)


@dataclass(frozen=True, slots=True)
class Item:
    """One ask's line on the bill.

    `queries`: how often each kind is asked; `errors`: patients per partner -> (number, expected half-width of its interval).
    """

    ask: str
    analysis: str
    share: float
    queries: dict[str, int]
    messages: int
    numbers: int
    epsilon: float
    errors: dict[int, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Quote:
    """The bill: what each ask costs alone, and what all cost together at the study's delta.

    `total`: what ledgers count.  `alone`: the same asks if nothing else is ever asked of these patients, where that is less
    (docs/proofs/sampling.md, section 7).
    """

    study: str
    epsilon: float
    delta: float
    total: float
    alone: float | None
    items: tuple[Item, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.study}: epsilon {self.total:.3g} of {self.epsilon:g} at delta {self.delta:g}, for one patient at one partner"
        ]
        if self.alone is not None:
            lines.append(f"  epsilon {self.alone:.3g} if nothing else is ever asked of these patients")
        for item in self.items:
            asked = ", ".join(kind if times == 1 else f"{times} x {kind}" for kind, times in item.queries.items())
            lines.append(
                f"  {item.ask} ({item.analysis}): epsilon {item.epsilon:.3g} alone, messages a node {item.messages}: {asked}"
            )
            for patients, errors in item.errors.items():
                shown = ", ".join(f"{name} ±{half:.2g}" for name, half in errors.items() if math.isfinite(half))
                lines.append(f"    {patients} patients a partner: {shown or 'not foretold'}")
        return "\n".join(lines)


def quote(study: Study | Path | str, patients: Sequence[int] | int = SIZES, *, partners: int | None = None) -> Quote:
    """What a study costs, and how precise its numbers will be.

    Args:
        study: an opened study, or the path of its file.
        patients: cohort sizes, per partner, at which errors are simulated; empty for none.
        partners: how many partners to simulate; by default the study's minimum.

    Raises:
        Misuse: when there are fewer partners than the study needs.
    """
    study = study if isinstance(study, Study) else open_study(study)
    patients = [patients] if isinstance(patients, int) else patients
    if partners is not None and partners < study.minimum_partners:
        raise Misuse(
            f"{partners} partners are fewer than the {study.minimum_partners} the study needs: simulate at least as many"
        )
    simulated = {n: _simulated(study, n, partners or study.minimum_partners) for n in patients}
    items = [_item(study, ask, {n: outcomes[ask.id] for n, outcomes in simulated.items()}) for ask in study.asks]
    total = study.cost.epsilon(study.budget.delta)
    return Quote(study.id, study.budget.epsilon, study.budget.delta, total, study.epsilon_alone, tuple(items))


def _item(study: Study, ask: Ask, errors: dict[int, dict[str, float]]) -> Item:
    lines = ask.lines
    return Item(
        ask=ask.id,
        analysis=ask.name,
        share=ask.share,
        queries=dict(Counter(line.kind for line in lines)),
        messages=len(lines),
        numbers=sum(line.width for line in lines),
        epsilon=Spent.of(study.events(ask)).epsilon(study.budget.delta),
        errors=errors,
    )


def _simulated(study: Study, patients: int, partners: int) -> dict[str, dict[str, float]]:
    """By ask; nothing for networks and what rests on them: a bill must not take minutes, nor need torch."""
    left_out: set[str] = set()
    for ask in study.asks:
        if ask.name == "neural" or left_out & set(ask.models):
            left_out.add(ask.id)
    quick = replace(study, asks=tuple(ask for ask in study.asks if ask.id not in left_out))
    found = {outcome.ask.id: dict(_errors(outcome)) for outcome in simulate(quick, patients, partners)}
    return {ask.id: found.get(ask.id, {}) for ask in study.asks}


def _errors(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """The expected half-widths of an answer's overall numbers; the widest of its kind where there are many."""
    answer: dict[str, Any] = outcome.answer.to_json() if outcome.answer is not None else {}
    match outcome.ask.name:
        case "count":
            yield "each count", max(_half(cell["overall"]) for cell in answer.get("cells", [{"overall": None}]))
        case "moments":
            for name, column in answer.get("columns", {}).items():
                yield f"mean of {name}", _half(column["mean"])
                yield f"sd of {name}", _half(column["sd"])
        case "quantiles":
            for p, value in zip(answer.get("probabilities", []), answer.get("overall", []), strict=True):
                yield f"quantile {p:g}", _half(value)
        case "histogram":
            yield "each bin", max((_half(value) for value in answer.get("overall", [])), default=float("nan"))
        case "logistic" | "linear":
            for term in answer.get("terms", [])[1:]:
                yield f"{'log odds of ' if outcome.ask.name == 'logistic' else ''}{term['name']}", Z95 * float(term["se"])
        case "additive":
            for name, curve in answer.get("curves", {}).items():
                yield f"curve of {name}, at its best", Z95 * min(curve["se"])
        case "scores":
            for key, name in _FIGURES[answer.get("family", "binary")].items():
                yield name, _half(answer.get("overall", {}).get(key))
        case "recalibration":
            for key in ("intercept", "slope"):
                yield f"{key}, at its widest", _half(answer.get("overall", {}).get(key))
        case "select":
            yield "each loss", max(_half(each["loss"]) for each in answer.get("candidates", [{"loss": None}]))


_WIDEST = "calibration slope, at its widest"  # the made-up outcome follows no predictor
_VALUES = {"r2": "R2", "calibration_slope": _WIDEST}
_FIGURES = {
    "binary": {"auroc": "AUROC", "observed_expected": "observed : expected", "calibration_slope": _WIDEST},
    "levels": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"},
    "continuous": _VALUES,
    "count": _VALUES,
}


def _half(number: dict[str, Any] | None) -> float:
    """Half the width of an interval; not a number where nothing would be released."""
    if number is None or number["value"] is None:
        return float("nan")
    return float(number["high"] - number["low"]) / 2
