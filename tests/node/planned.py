"""A study with a plan in it: sampled sums over rounds, and local programs, between plain counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ahh_federated.analyses.counts import CellCounts
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query, Rows
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.errors import Breach
from ahh_federated.study import Study
from tests.study.samples import small

WIDTH = 2
ROW = 1 << 20


@dataclass(frozen=True)
class Pull:
    """Which way each patient's weight and bmi lie from a guess: a clipped vector a patient."""

    guess: tuple[float, ...]
    kind: ClassVar[str] = "pull/1"
    width: int = WIDTH
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {"guess": list(self.guess)}

    def patients(self, total: F64) -> float | None:
        return None

    def rows(self, cohort: Cohort) -> F64:
        away = np.stack([cohort["weight"] / 5, cohort["bmi"] / 35], axis=1) - np.array(self.guess)
        return np.where(np.isnan(away), 0.0, np.clip(away, -0.7, 0.7))


@dataclass(frozen=True)
class Walk:
    """The same as a local program of a few steps."""

    guess: tuple[float, ...]
    steps: int
    kind: ClassVar[str] = "pull.local/1"
    width: int = WIDTH
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {"guess": list(self.guess)}

    def patients(self, total: F64) -> None:
        return None

    def start(self) -> F64:
        return np.array(self.guess)

    def query(self, state: F64) -> Rows:
        return Pull(tuple(float(value) for value in state))

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        return state + 0.001 * total

    def result(self, state: F64) -> F64:
        return state - np.array(self.guess)


@dataclass(frozen=True)
class Answer:
    guess: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {"guess": list(self.guess)}


@dataclass(frozen=True)
class Pulls:
    """A count, then `rounds` messages of one plan; `steps` sums each, at the node when there is more than one."""

    rounds: int = 4
    steps: int = 1
    rate: int = RATE_ONE // 4

    def schedule(self) -> Sequence[Line]:
        kind, count = (Pull.kind if self.steps == 1 else Walk.kind), self.rounds * self.steps
        plan = [
            Line(kind, WIDTH, 0.0 if place else 0.7, ROW, self.rate, count, place, self.steps) for place in range(self.rounds)
        ]
        return [Line(CellCounts.kind, 1, 0.3), *plan]

    def program(self) -> Program:
        yield CellCounts(())
        guess = np.array([0.5, 0.5])
        for _ in range(self.rounds):
            replies = yield self._query(guess)
            guess = np.clip(guess + 0.001 * replies.total().values, -1, 1)
        return Answer(tuple(float(value) for value in guess))

    def _query(self, guess: F64) -> Query:
        values = tuple(float(value) for value in guess)
        return Pull(values) if self.steps == 1 else Walk(values, self.steps)

    def query(self, kind: str, parameters: Parameters) -> Query:
        if kind == CellCounts.kind:
            return CellCounts(())
        if kind != self.schedule()[1].kind:
            raise Breach("no such query")
        return self._query(np.array(numbers(parameters, "guess", WIDTH)))


def planned(**other: Any) -> Study:
    """The small study with two asks: a plan and, after it, a plain count."""
    study = small()
    net = replace(study.ask("children"), id="net", name="pulls", where=None, share=0.8, analysis=Pulls(**other))
    return replace(study, asks=(net, study.ask("children")))
