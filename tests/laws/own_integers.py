"""THE law, as a function: a patient's integers depend on that patient alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.queries import Stack, Summed
from ahh_federated.core.sums import parts_of, patient_integers

CHUNKS = (1, 2, 7, 64, 1000)


def law_broken(
    query: Summed | Stack,
    cohort: Cohort,
    rng: np.random.Generator,
    *,
    chunks: Sequence[int] = CHUNKS,
    alone: int = 64,
    threads: Sequence[int] = (1, 2),
) -> str | None:
    """What changed a patient's integers, or None: company, order, chunks, deletion of others, threads.

    Args:
        alone: how many patients to look at one by one.
        threads: numbers of BLAS threads.
    """
    whole = _integers(query, cohort)
    for patient in rng.permutation(len(cohort))[:alone]:
        if not _same(_integers(query, cohort.part(patient, patient + 1)), whole[patient : patient + 1]):
            return "company"
    order = rng.permutation(len(cohort))
    if not _same(_integers(query, _reordered(cohort, order)), whole[order]):
        return "order"
    kept = rng.random(len(cohort)) < 0.5
    if kept.any() and not _same(_integers(query, cohort.keep(kept)), whole[kept]):
        return "deletion"
    for rows in chunks:
        parts = [_integers(query, part) for part in cohort.parts(rows)]
        if parts and not _same(np.concatenate(parts), whole):
            return f"chunks of {rows}"
    for number in threads:
        with threadpool_limits(limits=number):
            if not _same(_integers(query, cohort), whole):
                return f"{number} threads"
    return None


def _integers(query: Summed | Stack, cohort: Cohort) -> np.ndarray:
    return np.hstack([patient_integers(part, cohort) for part in parts_of(query)]).astype(np.int64)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.array_equal(one, other))


def _reordered(cohort: Cohort, order: np.ndarray) -> Cohort:
    return Cohort.of({name: values[order] for name, values in cohort.columns.items()}, len(cohort))
