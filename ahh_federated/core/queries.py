"""Queries: what a node may be asked.  Fields are public, call arguments are private.

A query is a bounded sum over the patients of one node.  It comes in two shapes:

    Rows      sum of one vector a patient,   ||v|| <= bound
    Squares   sum of f f' over patients,     ||f||**2 <= bound, so that ||f f'|| (Frobenius) <= bound

A *stack* is several of them in one message: a patient's vector is those of the parts, one after the other.

A query asked under a filter, or about a secret sample, is a sum over fewer patients; its bound is the same, since a patient
left out contributes zero.

A *local program* is a number of Rows sums, one after the other at the node, each noised and paid for like one that leaves.
What is computed between them is free; only its result leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from ahh_federated.core.cohorts import F64, Cohort

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Parameters = Mapping[str, list[float]]


class _Summed(Protocol):
    """What both shapes have.  `kind` names a query and its version in the closed registry, like "glm.score/2"."""

    kind: ClassVar[str]

    @property
    def width(self) -> int: ...

    @property
    def bound(self) -> float: ...

    def parameters(self) -> Parameters:
        """The numbers that came from earlier releases; everything else about a query stands in the study."""
        ...

    def patients(self, total: F64) -> float | None:
        """How many patients a (noised) total says it covers, or None when it does not say."""
        ...


@runtime_checkable
class Rows(_Summed, Protocol):
    def rows(self, cohort: Cohort) -> F64:
        """One vector a patient, shape (patients, width), in an array of its own: the sum is computed in its place.

        Total: a patient who cannot be used has a NaN or a zero.
        """
        ...


@runtime_checkable
class Squares(_Summed, Protocol):
    def factors(self, cohort: Cohort) -> F64:
        """One factor a patient, shape (patients, root) with root**2 == width; likewise."""
        ...


Summed = Rows | Squares


def is_rows(query: object) -> TypeIs[Rows]:
    """`isinstance` of a protocol would look at every attribute, which takes longer than many a sum."""
    return hasattr(query, "rows")


def is_squares(query: object) -> TypeIs[Squares]:
    return hasattr(query, "factors")


def is_local(query: object) -> TypeIs[Local]:
    return hasattr(query, "advance")


def vectors_of(query: Summed, cohort: Cohort) -> F64:
    """Its rows or its factors."""
    return query.rows(cohort) if is_rows(query) else query.factors(cohort)


@dataclass(frozen=True, slots=True)
class Stack:
    """Several sums in one message, which do not wait for each other.

    Each part keeps its own bound and grid; its integers are multiplied by a public one, so that the parts can share a single
    scale of noise as their shares of the budget say (core/sums.py: sensitivity).  The first part tells how many patients there
    are, if one does.

    Raises:
        ValueError: unless every part has a multiplier, a positive integer, and parts agree on the parameters that they share.
    """

    parts: tuple[Summed, ...]
    multipliers: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.multipliers) or not all(type(m) is int and m > 0 for m in self.multipliers):
            raise ValueError(f"every part of a stack has a multiplier, a positive integer: got {self.multipliers}")
        if any(self.parameters()[name] != values for part in self.parts for name, values in part.parameters().items()):
            raise ValueError(f"the parts of {self.kind} carry different numbers under one name")

    @property
    def kind(self) -> str:
        return joined(*(part.kind for part in self.parts))

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    def parameters(self) -> Parameters:
        return {name: values for part in self.parts for name, values in part.parameters().items()}

    def vectors(self, cohort: Cohort) -> Iterator[F64]:
        """The rows or factors of each part, one after the other; parts may have computed in common what they share."""
        return (vectors_of(part, cohort) for part in self.parts)


def joined(*kinds: str) -> str:
    """The kind of a stack: "glm.classes/3+glm.gram/2"."""
    return "+".join(kinds)


@runtime_checkable
class Local(_Summed, Protocol):
    """A program of `steps` noised sums.  All its functions but the queries' rows see noised sums and public numbers only.

    What they do after the debit may fail: the gate then goes on with zeros (core/local.py).
    """

    @property
    def steps(self) -> int: ...

    def start(self) -> F64:
        """The state before the first sum; public."""
        ...

    def query(self, state: F64) -> Rows:
        """The next sum, of this program's width and bound."""
        ...

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        """The state after a noised sum, shape (width,), in the query's unit.

        stderr: of the sum's noise, public; zero in an exact run.
        """
        ...

    def result(self, state: F64) -> F64:
        """What leaves, shape (width,); rounded to multiples of LOCAL_STEP."""
        ...


Query = Summed | Stack | Local
