"""The only door: the life of a release, from its price to its bytes.

    recall → price → rehearse → debit (durable) → rows → sample → clip and grid → integer sum → noise → store → send

The stages are distinct types: the exact sum is private to this module and has no encoder, only a release has.  After the debit
nothing may fail, or vary, because of a patient; a crash there wastes budget and leaks nothing.  A repeated request
gets the stored bytes, never a fresh draw.

A sum of a plan is about a secret sample: each patient is in by a coin of its own, tossed afresh for every sum.  A local
program makes several such sums, of which it sees what is noised.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import Budget, Event, sigma_for
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import Filter
from ahh_federated.core.local import on_public_grid, walk
from ahh_federated.core.noise import discrete_gaussian
from ahh_federated.core.queries import Local, Query, Stack, Summed, is_local
from ahh_federated.core.releases import Pooled, Release
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import Chosen, integer_sum, sensitivity, step
from ahh_federated.errors import Breach, Misuse, Reason, Refusal

_TO_COIN = np.uint64(64 - 20)  # shifts a word down to the 20 bits of a coin


class Books(Protocol):
    """What the gate needs of a ledger (node/ledger.py)."""

    def recall(self, request: str) -> bytes | None: ...

    def debit(self, *, request: str, study: str, ask: str, query: str, event: Event, ceiling: Budget) -> Any: ...

    def store(self, receipt: Any, released: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Order:
    """A request that the node has accepted: whose budget pays, for what, and under which id.  `ask` is "ask:step"."""

    request: str
    study: str
    ask: str
    event: Event
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
        Breach: when the event is not the query's, or its public numbers cannot be computed with; nothing has been paid then.
        Refusal: when the budget or the ledger says no; nothing has been computed then.
    """
    event = order.event
    steps = query.steps if is_local(query) else 1
    if (event.sensitivity, event.width, event.steps) != (sensitivity(query), query.width, steps):
        raise Breach(f"{query.kind} is to be paid by an event that is not its own")
    stored = books.recall(order.request)
    if stored is None:
        _rehearse(query, cohort, where)
        receipt = books.debit(
            request=order.request, study=order.study, ask=order.ask, query=query.kind, event=event, ceiling=order.ceiling
        )
        stored = _released(query, cohort, where, event, entropy.derive(order.request.encode())).to_bytes()
        books.store(receipt, stored)
    return Release.from_bytes(stored, width=query.width, step=step(query), sigma=event.sigma)


def _released(query: Query, cohort: Cohort, where: Filter | None, event: Event, entropy: Entropy) -> Release:
    if is_local(query):
        return Release(on_public_grid(_result(query, cohort, where, event, entropy)), step(query), event.sigma)
    summed = integer_sum(query, cohort, where, chosen=_coins(event, entropy), thinning=RATE_ONE // event.rate)
    return _noised(query, _Summed(summed), event, entropy)


def _coins(event: Event, entropy: Entropy) -> Chosen | None:
    """Who is in the sample of one sum.  Tossed for everybody, before any filter looks at them."""
    if event.rate == RATE_ONE:
        return None
    coins, rate = entropy.derive(b"coins"), np.uint64(event.rate)
    return lambda patients: coins.words(patients) >> _TO_COIN < rate


def _noised(query: Summed | Stack, summed: _Summed, event: Event, entropy: Entropy) -> Release:
    return Release(summed.total + discrete_gaussian(event.sigma, event.width, entropy), step(query), event.sigma)


def _result(program: Local, cohort: Cohort, where: Filter | None, event: Event, entropy: Entropy) -> F64:
    """Every sum with coins and noise of its own.  A program that fails, on noised sums that is, gives zeros.

    Failing without an answer would let the request come again, for fresh draws that nobody has paid for.
    """
    steps, total = walk(program, program.steps), None
    for number in range(program.steps + 1):
        try:
            query = next(steps) if total is None else steps.send(total)
            _try(query, cohort, where)
        except StopIteration as end:
            return np.asarray(end.value)
        except Exception:
            break
        summed = _released(query, cohort, where, event, entropy.derive(b"sum %d" % number))
        total = Pooled(summed.values, summed.stderr)
    return np.zeros(program.width)


def _rehearse(query: Query, cohort: Cohort, where: Filter | None) -> None:
    """The same computation on two made-up patients, before anything is paid; of a local program its first step.

    A public number that makes the computation fail must fail here: failing after the debit, and only when there is a
    patient to compute with, would tell whether there is one.
    """
    try:
        if is_local(query):
            steps = walk(query, 1)
            _try(next(steps), cohort, where)
            with suppress(StopIteration):
                steps.send(Pooled(np.zeros(query.width), 0.0))
        else:
            _try(query, cohort, where)
    except Misuse as error:  # the node lacks something that the study needs
        raise Refusal(Reason.QUERY, f"{query.kind}: {error}") from None
    except Exception:
        raise Breach(f"{query.kind} cannot be computed with the numbers it carries") from None


def _try(query: Summed | Stack, cohort: Cohort, where: Filter | None) -> None:
    made_up = Cohort.of({name: np.array([np.nan, 0.0]) for name in cohort.columns}, 2)
    integer_sum(query, made_up)
    if where is not None:
        where.mask(made_up)
