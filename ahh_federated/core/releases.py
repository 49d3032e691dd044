"""What leaves a node: noised integers on a public grid, or the public reason why nothing does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.cohorts import F64
from ahh_federated.core.queries import Local, Query, Stack, Summed
from ahh_federated.core.sums import step
from ahh_federated.errors import Breach


class Status(StrEnum):
    """How a partner, or a number, came out.  `BELOW` and zero patients stay alike on purpose."""

    RELEASED = "released"
    BELOW = "below threshold"
    REFUSED = "refused"
    FAILED = "failed"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """Noised integers, shape (width,), the value of one grid step and the noise's scale in steps.

    Those of a stack are one vector until it is taken apart (`part_told`).  The result of a local program is noised inside, sum by
    sum: its `stderr` means nothing.
    """

    cells: NDArray[np.int64]
    step: float
    sigma: int

    @property
    def values(self) -> F64:
        return np.asarray(self.cells * self.step, dtype=np.float64)

    @property
    def stderr(self) -> float:
        return self.sigma * self.step

    def to_bytes(self) -> bytes:
        """Little-endian int64; step and sigma follow from the request."""
        return self.cells.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, *, width: int, step: float, sigma: int) -> Release:
        if len(data) != 8 * width:
            raise Breach(f"a release of {width} numbers has {8 * width} bytes, got {len(data)}")
        return cls(np.frombuffer(data, dtype="<i8").astype(np.int64), step, sigma)


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """A sum without noise or grid: laboratory and tests, on data declared synthetic or public."""

    values: F64
    stderr: float = 0.0


Answer = Release | Exact


def part_told(query: Query, answer: Answer, number: int) -> tuple[Summed | Local, Answer]:
    """One part of a stack with its own answer; what is no stack is its own only part."""
    if not isinstance(query, Stack):
        return query, answer
    part, start = query.parts[number], sum(each.width for each in query.parts[:number])
    cells = slice(start, start + part.width)
    if isinstance(answer, Release):
        return part, Release(answer.cells[cells], step(part) / query.multipliers[number], answer.sigma)
    return part, Exact(answer.values[cells])


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """The sum over partners: values of shape (width,) and their standard error from privacy noise."""

    values: F64
    stderr: float


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Every partner's reply to one query."""

    query: Query
    replies: Mapping[str, Answer | Status]

    @property
    def partners(self) -> tuple[str, ...]:
        """Those who released, in name order."""
        return tuple(sorted(name for name, reply in self.replies.items() if not isinstance(reply, Status)))

    def of(self, partner: str) -> Pooled:
        reply = self.replies[partner]
        assert not isinstance(reply, Status), f"{partner} released nothing"
        return Pooled(reply.values, reply.stderr)

    def total(self, partners: Iterable[str] | None = None) -> Pooled:
        """The sum over some partners, by default all who released, each with weight one."""
        assert not isinstance(self.query, Stack), f"the parts of {self.query.kind} have units of their own: take one"
        parts = [self.of(name) for name in (self.partners if partners is None else sorted(partners))]
        values = np.sum([part.values for part in parts], axis=0) if parts else np.zeros(self.query.width)
        return Pooled(np.asarray(values), float(np.sqrt(sum(part.stderr**2 for part in parts))))

    def part(self, number: int) -> Round:
        """The round of one part of a stack."""
        assert isinstance(self.query, Stack), f"{self.query.kind} is no stack"
        told = {name: r if isinstance(r, Status) else part_told(self.query, r, number)[1] for name, r in self.replies.items()}
        return Round(self.query.parts[number], told)


def everywhere(rounds: Iterable[Round]) -> tuple[str, ...]:
    """The partners that answered every round: what sums of theirs add up to stays coherent."""
    return tuple(sorted(set.intersection(*(set(replies.partners) for replies in rounds))))
