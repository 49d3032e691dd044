"""All partners in this process: each desk answers in turn, bytes in and bytes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.local import walk
from ahh_federated.core.queries import Query, Stack, Summed, is_local, is_rows, vectors_of
from ahh_federated.core.releases import Pooled, Status
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.errors import Misuse
from ahh_federated.node.desk import Desk
from ahh_federated.study import Study
from ahh_federated.wire import Reply, Request, checked


@dataclass(frozen=True, slots=True)
class LocalLink:
    """Desks by partner name."""

    desks: Mapping[str, Desk]
    today: date

    @property
    def partners(self) -> tuple[str, ...]:
        return tuple(sorted(self.desks))

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        data = request.to_bytes()
        return {name: checked(self.desks[name].answer(data, self.today), request) for name in partners}


@dataclass(frozen=True, slots=True)
class ExactLink:
    """No noise, no grid, no ledger: the laboratory's reference, on data declared synthetic or public."""

    study: Study
    cohorts: Mapping[str, Cohort]

    def __post_init__(self) -> None:
        if not self.study.open_data:
            raise Misuse(f'study.data is "{self.study.data}": an exact run needs data declared "synthetic" or "public"')

    @property
    def partners(self) -> tuple[str, ...]:
        return tuple(sorted(self.cohorts))

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        ask = self.study.ask(request.ask)
        analysis = ask.exactly()
        query = analysis.query(request.kind, request.parameters)
        rate = analysis.schedule()[request.step].rate / RATE_ONE
        replies = {}
        for name in partners:
            cohort = self.cohorts[name]
            kept = cohort if ask.where is None else cohort.keep(ask.where.mask(cohort))
            replies[name] = Reply(request.id, Status.RELEASED, exact=_answer(query, kept, rate))
        return replies


def _answer(query: Query, cohort: Cohort, rate: float) -> F64:
    """What a release is without noise; of sampled sums, on average: `rate` of the sum over all patients."""
    if not is_local(query):
        return rate * _plain_sum(query, cohort)
    steps, total = walk(query, query.steps), None
    while True:
        try:
            inner = next(steps) if total is None else steps.send(total)
        except StopIteration as end:
            return np.asarray(end.value)
        total = Pooled(rate * _plain_sum(inner, cohort), 0.0)


def _plain_sum(query: Summed | Stack, cohort: Cohort) -> F64:
    if isinstance(query, Stack):
        return np.concatenate([_plain_sum(part, cohort) for part in query.parts])
    vectors = vectors_of(query, cohort)
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    used = np.where(finite[:, None], vectors, 0.0)
    return np.asarray(used.sum(axis=0) if is_rows(query) else (used.T @ used).ravel())
