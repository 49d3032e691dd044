"""What the analyses by DP-Newton share: their first messages, all replies so far, the coordinates of x that are in use."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses import glm
from ahh_federated.analyses.choice import Choice
from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.scaling import Standard
from ahh_federated.core.bounds import SQUARE_STEPS
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Column
from ahh_federated.core.programs import Line, numbers
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Pooled, Round

COMPLETE, MOMENTS, GRAM, SUMS, GROWTH = 0.02, 0.08, 0.12, 0.25, 1.5  # shares; each score gets GROWTH times the one before


def score_shares(rounds: int) -> list[float]:
    """What the scores get of the rest of the budget."""
    growth = [GROWTH**k for k in range(rounds)]
    return [(1 - COMPLETE - MOMENTS - GRAM - SUMS) * g / sum(growth) for g in growth]


def opening(design: Design, outcome: Column, sums: str) -> list[Line]:
    """The first four lines of a schedule; `sums` is the kind of the fourth."""
    d = design.width
    complete, moments = glm.Complete(design, outcome), glm.FeatureMoments(design, outcome)
    return [
        Line(complete.kind, complete.width, COMPLETE),
        Line(moments.kind, moments.width, MOMENTS),
        Line(glm.Gram.kind, d * d, GRAM, SQUARE_STEPS),
        Line(sums, 2 * d, SUMS),
    ]


def opening_query(kind: str, design: Design, outcome: Column, parameters: Parameters, *, exact: bool) -> Query | None:
    """One of the first three queries, or None."""
    if kind == glm.Complete.kind:
        return glm.Complete(design, outcome)
    if kind == glm.FeatureMoments.kind:
        return glm.FeatureMoments(design, outcome)
    if kind == glm.Gram.kind:
        return glm.Gram(design, outcome, scale_of(parameters, design, exact=exact))
    return None


def scale_of(parameters: Parameters, design: Design, *, exact: bool) -> Scale:
    """The scale that a request carries.  Raises Breach when it does not fit the design."""
    terms = design.width - 1
    centre, spread = numbers(parameters, "centre", terms), numbers(parameters, "spread", terms, least=LEAST_SPREAD)
    radius = math.inf if exact else numbers(parameters, "radius", 1, least=LEAST_SPREAD)[0]
    return Scale(tuple(centre), tuple(spread), radius, exact)


@dataclass(frozen=True, slots=True)
class Rounds:
    """All replies so far; sums run over the partners that answered every one, so what they add up to stays coherent.

    `asked`: complete cases, moments, Gram and first sums.  `scored`: each score with the coefficients in use it was taken at.
    """

    asked: list[Round]
    scored: list[tuple[F64, Round]]

    @property
    def partners(self) -> tuple[str, ...]:
        answered = [set(replies.partners) for replies in [*self.asked, *(each for _, each in self.scored)]]
        return tuple(sorted(set.intersection(*answered)))

    @property
    def count(self) -> int:
        return len(self.asked) + len(self.scored)

    def total(self, number: int) -> Pooled:
        return self.asked[number].total(self.partners)

    def gram(self, standard: Standard) -> Pooled:
        """The Gram matrix of the coordinates in use, flat."""
        total, used = self.total(2), standard.used
        d = round(len(total.values) ** 0.5)
        return Pooled(total.values.reshape(d, d)[np.ix_(used, used)].ravel(), total.stderr)

    def halves(self, standard: Standard) -> tuple[F64, F64, float]:
        """The two halves of the first sums, and the standard error of an entry."""
        total, used = self.total(3), standard.used
        d = len(total.values) // 2
        return total.values[:d][used], total.values[d:][used], total.stderr

    def scores(self, standard: Standard) -> list[tuple[F64, Pooled, Pooled]]:
        """Each score: where it was taken, its entries in use, and the whole of it."""
        totals = [(asked, replies.total(self.partners)) for asked, replies in self.scored]
        return [(asked, Pooled(total.values[standard.used], total.stderr), total) for asked, total in totals]


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A fit, E[x] as the releases tell it (zero for coordinates not in use), and whether its hats are in use."""

    fit: Fit | LinearFit
    mean: F64
    choice: Choice


def whole(part: F64, standard: Standard, width: int) -> F64:
    """Coefficients, or a covariance, of all coordinates from those in use: the others are zero."""
    full = np.zeros((width,) * part.ndim)
    full[np.ix_(*(standard.used,) * part.ndim)] = part
    return full
