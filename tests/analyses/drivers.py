"""Two drivers for tests: exact sums, without noise or grid; and the real gate, one seeded noise for each partner."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import Filter
from ahh_federated.core.gate import Order, price, release
from ahh_federated.core.programs import Analysis, Line, drive
from ahh_federated.core.queries import Query, Rows, Stack
from ahh_federated.core.releases import Answer, Exact, Round, Status

Cohorts = Mapping[str, Cohort]


class OpenBooks:
    """A ledger that admits everything and keeps nothing."""

    def recall(self, request: str) -> bytes | None:
        return None

    def debit(self, *, request: str, study: str, ask: str, query: str, event: Event, ceiling: Budget) -> None:
        return None

    def store(self, receipt: None, released: bytes) -> None:
        return None


def plain_sum(query: Query, cohort: Cohort) -> F64:
    """The sum in floats; whoever has a value that is not known counts as zero."""
    if isinstance(query, Stack):
        return np.concatenate([plain_sum(part, cohort) for part in query.parts])
    vectors = query.rows(cohort) if isinstance(query, Rows) else query.factors(cohort)
    used = np.where(np.isfinite(vectors).all(axis=1)[:, None], vectors, 0.0)
    return used.sum(axis=0) if isinstance(query, Rows) else (used.T @ used).ravel()


def exactly(analysis: Analysis, cohorts: Cohorts, silent: Mapping[str, Status] | None = None) -> Any:
    """The answer without noise; `silent` are further partners that release nothing, and why."""

    def ask(number: int, line: Line, query: Query) -> Round:
        replies: dict[str, Answer | Status] = {name: Exact(plain_sum(query, cohort)) for name, cohort in cohorts.items()}
        return Round(query, {**replies, **(silent or {})})

    return drive(analysis, ask)


def noised(analysis: Analysis, cohorts: Cohorts, budget: Budget, seed: int, where: Filter | None = None) -> Any:
    """The answer through the gate: every partner adds its own noise, for the whole of `budget`."""

    def ask(number: int, line: Line, query: Query) -> Round:
        mu = budget.mu * math.sqrt(line.share)
        replies: dict[str, Answer | Status] = {}
        for name, cohort in cohorts.items():
            order = Order(f"{name} {number}", "study", "ask", price(query, mu), budget)
            entropy = Entropy.seeded(seed).derive(name.encode())
            replies[name] = release(query, cohort, where=where, order=order, books=OpenBooks(), entropy=entropy)
        return Round(query, replies)

    return drive(analysis, ask)


def split(columns: Mapping[str, F64], partners: int) -> dict[str, Cohort]:
    """Consecutive parts of unequal size, as partners hold them."""
    size = len(next(iter(columns.values())))
    shares = np.arange(1, partners + 1, dtype=np.float64)
    cuts = np.concatenate([[0], np.round(np.cumsum(shares / shares.sum()) * size).astype(int)])
    return {
        f"partner {k}": Cohort.of({name: values[start:stop].copy() for name, values in columns.items()}, int(stop - start))
        for k, (start, stop) in enumerate(itertools.pairwise(cuts))
    }
