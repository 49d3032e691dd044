"""Everybody, and declared subgroups: the blocks in which an evaluation is counted.

A patient is in the block of everybody and in one block for each subgroup column, "not known" being a level.  A query
whose vector has length b in one block therefore has the bound b sqrt(1 + columns).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ahh_federated.analyses.onehot import one_hot
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import NOT_KNOWN, Levels
from ahh_federated.core.releases import Pooled, Round, Status


@dataclass(frozen=True, slots=True)
class Groups:
    """Blocks in order: everybody, then every level of each column of `by` and its "not known"."""

    by: tuple[Levels, ...] = ()

    @property
    def names(self) -> list[dict[str, str]]:
        """The subgroup of each block after the first, as {column: level}."""
        return [{column.name: level} for column in self.by for level in (*column.levels, NOT_KNOWN)]

    @property
    def blocks(self) -> int:
        return 1 + len(self.names)

    @property
    def factor(self) -> float:
        return math.sqrt(1 + len(self.by))

    def places(self, cohort: Cohort) -> Iterator[F64]:
        """For everybody, then for each column: the number of the patient's block, shape (patients,)."""
        yield np.zeros(len(cohort))
        first = 1
        for column in self.by:
            level = cohort[column.name]
            yield first + np.where(np.isnan(level), float(len(column.levels)), level)
            first += len(column.levels) + 1

    def split(self, total: Pooled) -> list[Pooled]:
        """The part of a total that each block holds."""
        return [Pooled(part, total.stderr) for part in np.split(total.values, self.blocks)]

    def cells(self, cohort: Cohort, cell: F64, width: int) -> F64:
        """One-hot rows of shape (patients, blocks * width): the patient's cell in each of the patient's blocks."""
        everybody, *places = self.places(cohort)
        rows = one_hot(everybody * width + cell, self.blocks * width)
        for place in places:
            rows += one_hot(place * width + cell, self.blocks * width)
        return rows

    def vectors(self, cohort: Cohort, vectors: F64) -> F64:
        """Rows of shape (patients, blocks * width): the patient's vector, shape (width, patients), in each block."""
        width = len(vectors)
        rows = np.zeros((self.blocks * width, len(cohort)))
        for place in self.places(cohort):
            for block in range(self.blocks):
                mine = place == block
                rows[block * width : (block + 1) * width, mine] = vectors[:, mine]
        return rows.T


EVERYBODY = Groups()
TOO_FEW = "too few"


def by_partner(replies: Round, groups: Groups) -> dict[str, Pooled | Status]:
    """What each partner's block of everybody holds, or why there is none."""
    return {
        name: reply if isinstance(reply, Status) else groups.split(replies.of(name))[0]
        for name, reply in sorted(replies.replies.items())
    }


def figures_by_part(replies: Round, groups: Groups, figures: Callable[[Pooled], dict[str, Any] | None]) -> dict[str, Any]:
    """Overall, by partner and by subgroup."""
    everybody, *subgroups = groups.split(replies.total())
    partners = by_partner(replies, groups)
    return {
        "overall": _said(figures(everybody)),
        "partners": {
            name: {"status": str(part)} if isinstance(part, Status) else _said(figures(part)) for name, part in partners.items()
        },
        "subgroups": [{"group": name, **_said(figures(part))} for name, part in zip(groups.names, subgroups, strict=True)],
    }


def _said(figures: dict[str, Any] | None) -> dict[str, Any]:
    return {"status": TOO_FEW} if figures is None else {"status": str(Status.RELEASED), **figures}
