"""What the analyses by DP-Newton share: their first messages, all replies so far, the coordinates of x that are in use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses import glm
from ahh_federated.analyses.choice import Choice
from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.gaussian import CrossSums
from ahh_federated.analyses.linear_fit import LinearFit
from ahh_federated.analyses.opening import COMPLETE, MOMENTS, opening_line
from ahh_federated.analyses.scaling import Standard
from ahh_federated.analyses.skewness import TAIL
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Column
from ahh_federated.core.programs import Line, numbers
from ahh_federated.core.queries import Parameters, Stack
from ahh_federated.core.releases import Pooled, Round, everywhere
from ahh_federated.core.sums import sensitivity, step

GRAM, SUMS, GROWTH = 0.12, 0.25, 1.5  # shares; each score gets GROWTH times the one before
MULTIPLIERS = (5912, 1)  # of sums and Gram matrix, whose grids differ: 2**12 sqrt(SUMS / GRAM)


def score_shares(rounds: int) -> list[float]:
    """What the scores get of the rest of the budget."""
    growth = [GROWTH**k for k in range(rounds)]
    return [(1 - COMPLETE - MOMENTS - GRAM - SUMS) * g / sum(growth) for g in growth]


def first_lines(design: Design, outcome: Column, second: Stack) -> list[Line]:
    """The first two lines of a schedule."""
    return [opening_line(design, outcome), Line.of(second, GRAM + SUMS)]


@dataclass(frozen=True, slots=True)
class Second(Stack):
    """The second message: the first sums, then the Gram matrix, whose factors take the place of x.

    Raises:
        ValueError: unless both are of the same x.
    """

    parts: tuple[glm.ClassSums | CrossSums, glm.Gram]

    def __post_init__(self) -> None:
        Stack.__post_init__(self)
        sums, gram = self.parts
        if (sums.design, sums.outcome, sums.scale) != (gram.design, gram.outcome, gram.scale):
            raise ValueError("the first sums and the Gram matrix are not of the same x")

    def vectors(self, cohort: Cohort) -> Iterator[F64]:
        sums, gram = self.parts
        x, weight, y = gram.x(cohort)
        yield sums.rows_from(x, weight, y)
        yield gram.factors_from(x, weight)


def second(sums: glm.ClassSums | CrossSums) -> Second:
    """The second message with these sums."""
    return Second((sums, glm.Gram(sums.design, sums.outcome, sums.scale)), MULTIPLIERS)


def scale_of(parameters: Parameters, design: Design, *, exact: bool) -> Scale:
    """The scale that a request carries.  Raises Breach when it does not fit the design."""
    terms = design.width - 1
    centre, spread = numbers(parameters, "centre", terms), numbers(parameters, "spread", terms, least=LEAST_SPREAD)
    radius = math.inf if exact else numbers(parameters, "radius", 1, least=LEAST_SPREAD)[0]
    return Scale(tuple(centre), tuple(spread), radius, exact)


@dataclass(frozen=True, slots=True)
class Rounds:
    """All replies so far; sums run over the partners that answered every one, so what they add up to stays coherent.

    `asked`: the opening, then first sums and Gram matrix.  `scored`: each score with the coefficients in use it was taken at.
    """

    asked: list[Round]
    scored: list[tuple[F64, Round]]

    @property
    def partners(self) -> tuple[str, ...]:
        return everywhere([*self.asked, *(each for _, each in self.scored)])

    @property
    def count(self) -> int:
        return len(self.asked) + len(self.scored)

    @property
    def complete(self) -> Pooled:
        return self.asked[0].part(0).total(self.partners)

    def noise_of(self, share: float) -> float:
        """The standard error that a sum of bound one has which gets this share; the first message tells it."""
        first = self.asked[0].query
        assert isinstance(first, Stack)
        there = sensitivity(first) * step(first.parts[0]) / first.multipliers[0]
        return self.complete.stderr / there * math.sqrt((COMPLETE + MOMENTS) / share)

    @property
    def moments(self) -> Pooled:
        return self.asked[0].part(1).total(self.partners)

    def gram(self, standard: Standard) -> Pooled:
        """The Gram matrix of the coordinates in use, flat."""
        total, used = self.asked[1].part(1).total(self.partners), standard.used
        d = round(len(total.values) ** 0.5)
        return Pooled(total.values.reshape(d, d)[np.ix_(used, used)].ravel(), total.stderr)

    def halves(self, standard: Standard) -> tuple[F64, F64, float]:
        """The two halves of the first sums, and the standard error of an entry."""
        total, used, d = self.asked[1].part(0).total(self.partners), standard.used, standard.width
        return total.values[:d][used], total.values[d : 2 * d][used], total.stderr

    def lean(self, standard: Standard) -> Pooled:
        """Of the class sums: sum w z|z| of each measured column, z = x cut at 4."""
        total, unit = self.asked[1].part(0).total(self.partners), TAIL / glm.LEAN
        return Pooled(unit * total.values[2 * standard.width :], unit * total.stderr)

    def scores(self, standard: Standard) -> list[tuple[F64, Pooled]]:
        """Each score: where it was taken, and its entries in use."""
        totals = [(asked, replies.total(self.partners)) for asked, replies in self.scored]
        return [(asked, Pooled(total.values[standard.used], total.stderr)) for asked, total in totals]


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
