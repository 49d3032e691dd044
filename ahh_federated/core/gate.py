"""The only door: the life of a release, from its price to its bytes.

    recall → price → rehearse → debit (durable) → rows → clip and grid → integer sum → noise → store → send

The stages are distinct types: the exact sum is private to this module and has no encoder, only a release has.  After the debit
nothing may fail, or vary, because of a patient; a crash there wastes budget and leaks nothing.  A repeated request
gets the stored bytes, never a fresh draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget, Event, sigma_for
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import Filter
from ahh_federated.core.noise import discrete_gaussian
from ahh_federated.core.queries import Query
from ahh_federated.core.releases import Release
from ahh_federated.core.sums import integer_sum, patient_integers, sensitivity, step
from ahh_federated.errors import Breach


class Books(Protocol):
    """What the gate needs of a ledger (node/ledger.py)."""

    def recall(self, request: str) -> bytes | None: ...

    def debit(self, *, request: str, study: str, ask: str, query: str, event: Event, ceiling: Budget) -> Any: ...

    def store(self, receipt: Any, released: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """A request that the node has accepted: whose budget pays, how much, and under which id."""

    request: str
    study: str
    ask: str
    mu: float
    ceiling: Budget


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Summed:
    """Exact integers.  Never leaves this module."""

    total: NDArray[np.int64]


def price(query: Query, mu: float) -> Event:
    """What a release of this query at mu-Gaussian-DP costs: known without any data."""
    return Event(sensitivity(query), sigma_for(sensitivity(query), mu), query.width)


def release(query: Query, cohort: Cohort, *, where: Filter | None, order: Order, books: Books, entropy: Entropy) -> Release:
    """Release one query about a cohort, paid for and noised.

    Raises:
        Breach: when the query's public numbers cannot be computed with; nothing has been paid then.
        Refusal: when the budget or the ledger says no; nothing has been computed then.
    """
    event = price(query, order.mu)
    stored = books.recall(order.request)
    if stored is None:
        _rehearse(query, cohort, where)
        receipt = books.debit(
            request=order.request, study=order.study, ask=order.ask, query=query.kind, event=event, ceiling=order.ceiling
        )
        summed = _Summed(integer_sum(query, cohort, where))
        stored = _noised(query, summed, event, entropy.derive(order.request.encode())).to_bytes()
        books.store(receipt, stored)
    return Release.from_bytes(stored, width=query.width, step=step(query), sigma=event.sigma)


def _rehearse(query: Query, cohort: Cohort, where: Filter | None) -> None:
    """The same computation on two made-up patients, before anything is paid.

    A public number that makes the computation fail must fail here: failing after the debit, and only when there is a
    patient to compute with, would tell whether there is one.
    """
    made_up = Cohort.of({name: np.array([np.nan, 0.0]) for name in cohort.columns}, 2)
    try:
        patient_integers(query, made_up)
        if where is not None:
            where.mask(made_up)
    except Exception:
        raise Breach(f"{query.kind} cannot be computed with the numbers it carries") from None


def _noised(query: Query, summed: _Summed, event: Event, entropy: Entropy) -> Release:
    return Release(summed.total + discrete_gaussian(event.sigma, event.width, entropy), step(query), event.sigma)
