"""Queries: what a node may be asked.  Fields are public, call arguments are private.

A query is a bounded sum over the patients of one node.  It comes in two shapes:

    Rows      sum of one vector a patient,   ||v|| <= bound
    Squares   sum of f f' over patients,     ||f||**2 <= bound, so that ||f f'|| (Frobenius) <= bound

A query asked under a filter is a sum over fewer patients; its bound is the same, since a patient left out contributes zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

from ahh_federated.core.cohorts import F64, Cohort

Parameters = Mapping[str, list[float]]


class _Summed(Protocol):
    """What both shapes have.  `kind` names a query and its version in the closed registry, like "glm.score/1"."""

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
        """One vector a patient, shape (patients, width).  Total: a patient who cannot be used has a NaN or a zero."""
        ...


@runtime_checkable
class Squares(_Summed, Protocol):
    def factors(self, cohort: Cohort) -> F64:
        """One factor a patient, shape (patients, root) with root**2 == width."""
        ...


Query = Rows | Squares
