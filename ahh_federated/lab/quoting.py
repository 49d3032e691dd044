"""The bill of a study before anything is asked, and the error to expect of each number.

The cost is exact: it depends on the study alone.  The errors come from running the very same study on simulated
patients drawn from the declared ranges and levels (runtimes/simulated.py), so they are what noise and sampling do to a
cohort of that size, not a forecast of the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.numbers import Z95
from ahh_federated.coordinator.session import Outcome
from ahh_federated.core.costs import Event, Spent
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
    """The bill: what each ask costs alone, and what all cost together at the study's delta."""

    study: str
    epsilon: float
    delta: float
    total: float
    items: tuple[Item, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.study}: epsilon {self.total:.3g} of {self.epsilon:g} at delta {self.delta:g}, for one patient at one partner"
        ]
        for item in self.items:
            asked = ", ".join(kind if times == 1 else f"{times} x {kind}" for kind, times in item.queries.items())
            lines.append(
                f"  {item.ask} ({item.analysis}): epsilon {item.epsilon:.3g} alone, {item.messages} messages a node: {asked}"
            )
            for patients, errors in item.errors.items():
                shown = ", ".join(f"{name} ±{half:.2g}" for name, half in errors.items())
                lines.append(f"    {patients} patients a partner: {shown}")
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
    total = Spent.of(event for ask in study.asks for event in _events(study, ask)).epsilon(study.budget.delta)
    return Quote(study.id, study.budget.epsilon, study.budget.delta, total, tuple(items))


def _events(study: Study, ask: Ask) -> list[Event]:
    return [study.event(ask, line) for line in ask.analysis.schedule()]


def _item(study: Study, ask: Ask, errors: dict[int, dict[str, float]]) -> Item:
    lines = ask.analysis.schedule()
    return Item(
        ask=ask.id,
        analysis=ask.name,
        share=ask.share,
        queries=dict(Counter(line.kind for line in lines)),
        messages=len(lines),
        numbers=sum(line.width for line in lines),
        epsilon=Spent.of(_events(study, ask)).epsilon(study.budget.delta),
        errors=errors,
    )


def _simulated(study: Study, patients: int, partners: int) -> dict[str, dict[str, float]]:
    return {outcome.ask.id: dict(_errors(outcome)) for outcome in simulate(study, patients, partners)}


def _errors(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """The expected half-widths of an answer's overall numbers; the widest of its kind where there are many."""
    if isinstance(outcome.answer, Fit):
        sampling, privacy = outcome.answer.standard_errors()
        names = [term["name"] for term in outcome.answer.to_json()["terms"]]
        for name, s, p in list(zip(names, sampling, privacy, strict=True))[1:]:
            yield f"log odds of {name}", Z95 * float(np.hypot(s, p))
        return
    answer: dict[str, Any] = outcome.answer.to_json() if outcome.answer is not None else {}
    if "cells" in answer:
        yield "each count", max(_half(cell["overall"]) for cell in answer["cells"])
    elif "columns" in answer:
        for name, column in answer["columns"].items():
            yield f"mean of {name}", _half(column["mean"])
            yield f"sd of {name}", _half(column["sd"])
    elif "probabilities" in answer:
        for p, value in zip(answer["probabilities"], answer["overall"], strict=True):
            yield f"quantile {p:g}", _half(value)
    elif "roc" in answer:
        for name, key in (
            ("AUROC", "auroc"),
            ("observed : expected", "observed_expected"),
            ("calibration slope, at its widest", "calibration_slope"),  # the made-up outcome follows no predictor
        ):
            yield name, _half(answer["overall"].get(key))
    elif "overall" in answer:
        yield "each bin", max(_half(value) for value in answer["overall"])


def _half(number: dict[str, Any] | None) -> float:
    """Half the width of an interval; not a number where nothing would be released."""
    if number is None or number["value"] is None:
        return float("nan")
    return float(number["high"] - number["low"]) / 2
