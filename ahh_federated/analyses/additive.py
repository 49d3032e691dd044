"""Additive models by DP-Newton: a curve for each measured predictor, five messages a node, nothing to tune.

    g(E[y]) = intercept + sum over columns of a curve, or of a step for each level (+ declared interactions)

The curves are straight between public knots (analyses/hats.py).  What is asked, and every bound, is that of a logistic
regression (an outcome of two levels) or of a linear one (a measured outcome) on a wider x; how the answers are used too.
Hastie and Tibshirani, "Generalized additive models" (1990); curves whose number of knots is public and whose shrinkage
is a fixed prior need no smoothing parameter chosen on the data.

Curves or straight lines is decided by analyses/choice.py.  The messages are the same either way: hats that are switched off
have a spread so large that they are zero for everybody, and the radius, hence the noise, is that without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ahh_federated.analyses.curves import AdditiveFit
from ahh_federated.analyses.design import Design
from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.linear import Linear
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.models import Equation, Family
from ahh_federated.analyses.rounds import Solved
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.programs import Line, Program
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.errors import Misuse

ROUNDS = 3  # scores, or messages of residuals


def with_curves(design: Design, cut_points: Mapping[str, tuple[float, ...]] | None = None) -> Design:
    """The design with knots for every measured feature: the given cut-points in its unit, or equal ones.

    Raises:
        Misuse: when cut-points do not rise inside the range, or are given for what is no measured feature.
    """
    given = dict(cut_points or {})
    measured = [column for column in design.features if isinstance(column, Numeric)]
    for name in given.keys() - {column.name for column in measured}:
        raise Misuse(f"knots are given for {name!r}, which is no measured feature: name one, or drop them")
    return replace(design, knots=tuple(Knots(c, given[c.name]) if c.name in given else Knots.equal(c) for c in measured))


@dataclass(frozen=True, slots=True)
class Additive:
    """The analysis `additive`.

    Args:
        design: the features, with knots (see `with_curves`).
        outcome: a column of two levels, of which the second is the event, or a measured column.
        exact: no clip, grid, weights or prior; for the laboratory and tests.
    """

    design: Design
    outcome: Column
    exact: bool = False

    @property
    def base(self) -> Logistic | Linear:
        """The regression on the same design."""
        if isinstance(self.outcome, Levels):
            return Logistic(self.design, self.outcome, EXACT_ROUNDS if self.exact else ROUNDS, self.exact)
        return Linear(self.design, self.outcome, ROUNDS, self.exact)

    @property
    def family(self) -> Family:
        return self.base.family

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    def predictor(self, parameters: Parameters) -> Equation:
        return self.base.predictor(parameters)

    def exactly(self) -> Additive:
        return replace(self, exact=True)

    def schedule(self) -> Sequence[Line]:
        return self.base.schedule()

    def query(self, kind: str, parameters: Parameters) -> Query:
        return self.base.query(kind, parameters)

    def program(self) -> Program:
        solved: Solved = yield from self.base.solved()
        return AdditiveFit(solved.fit, solved.mean, solved.choice)
