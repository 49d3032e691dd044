"""An analysis is a generator: it yields a step, is sent the round of replies, and returns an answer.

The same program runs under four drivers (quote, local, Flower, replay).  What makes a quote honest is the schedule:
public lines of (query kind, width, share), of which the driver accepts a prefix and nothing else, whatever the
replies were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ahh_federated.core.bounds import ROW_STEPS
from ahh_federated.core.queries import Parameters, Query, is_local
from ahh_federated.core.releases import Round
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import sensitivity
from ahh_federated.errors import Breach

LARGEST = 1e6  # of any parameter: designs are standardised, so honest ones stay far below


@dataclass(frozen=True, slots=True)
class Line:
    """One step that an analysis may take: a query kind, its width, its share of the analysis' mu**2, its sensitivity.

    A line of a plan (core/costs.py) also says the plan's `rate` and its `count` of noised sums, its own `place` and how many
    sums it makes, `steps`.  The plan's first line carries its whole share; the others have none.
    """

    kind: str
    width: int
    share: float
    sensitivity: int = ROW_STEPS  # grid steps
    rate: int = RATE_ONE
    count: int = 1
    place: int = 0
    steps: int = 1

    @classmethod
    def of(cls, query: Query, share: float) -> Line:
        """A line that is in no plan."""
        return cls(query.kind, query.width, share, sensitivity(query))

    @property
    def planned(self) -> bool:
        return (self.rate, self.count) != (RATE_ONE, 1)

    @property
    def plan(self) -> Line:
        """All lines of a plan have the same, whatever their place; the share apart."""
        return replace(self, place=0, share=0.0)

    def covers(self, query: Query) -> bool:
        steps = query.steps if is_local(query) else 1
        return (self.kind, self.width, self.sensitivity, self.steps) == (query.kind, query.width, sensitivity(query), steps)


Program = Generator[Query, Round, Any]


class Analysis(Protocol):
    """An analysis bound to a study's declarations: its schedule, its program and the node's side of its queries."""

    def schedule(self) -> Sequence[Line]:
        """Depends on public arguments only; the shares sum to at most 1."""
        ...

    def program(self) -> Program: ...

    def query(self, kind: str, parameters: Parameters) -> Query:
        """Rebuild a query from what crosses the wire.  Raises Breach when the parameters do not fit."""
        ...


def drive(analysis: Analysis, ask: Callable[[int, Line, Query], Round]) -> Any:
    """Run a program to its answer; `ask` is given the step's number, its line and the query.

    Raises:
        Breach: when the program steps off its own schedule.
    """
    lines = check_schedule(analysis.schedule())
    program = analysis.program()
    try:
        query = next(program)
        for number, line in enumerate(lines):
            if not line.covers(query):
                raise Breach(f"step {number} is {query.kind} of width {query.width}, but {line} was quoted")
            query = program.send(ask(number, line, query))
    except StopIteration as end:
        return end.value
    program.close()
    raise Breach(f"the program asks for more than its {len(lines)} quoted steps")


def check_schedule(lines: Sequence[Line]) -> Sequence[Line]:
    """Raises Breach unless every share is positive and they sum to at most one, later lines of a plan apart: these have none.

    A plan begins with the line that pays, its places follow in order, and plans that are alike have equal shares.
    """
    total = math.fsum(line.share for line in lines)
    if not lines or any(not (line.share > 0 or line.place) for line in lines) or total > 1 + 1e-9:
        raise Breach(f"the shares of a schedule are positive and sum to at most 1, got {[line.share for line in lines]}")
    before: dict[Line, Line] = {}
    shares: dict[Line, float] = {}
    for line in lines:
        if line.place and (line.share or line.plan not in before or before[line.plan].place + 1 != line.place):
            raise Breach(f"a later line of a plan has no share and follows the one before it, got {line}")
        if not line.place and shares.setdefault(line.plan, line.share) != line.share and line.planned:
            raise Breach(f"two plans that are alike have equal shares, got {line.share} and {shares[line.plan]}")
        before[line.plan] = line
    return lines


def numbers(parameters: Parameters, name: str, length: int, least: float = -LARGEST, most: float = LARGEST) -> list[float]:
    """The parameter `name` as `length` numbers from `least` to `most`.  Raises Breach otherwise.

    Checked before anything is paid: what a node then computes can neither overflow nor fail.
    """
    values = parameters.get(name)
    if not isinstance(values, list) or len(values) != length:
        raise Breach(f"the parameter {name!r} needs {length} numbers")
    if not all(isinstance(value, float) and least <= value <= most for value in values):
        raise Breach(f"the parameter {name!r} has an entry that is not a number from {least:g} to {most:g}")
    return values
