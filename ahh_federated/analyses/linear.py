"""Linear regression by DP-Newton: a measured outcome, five messages a node, one fixed setting for all data.

    complete cases and moments → cross sums and Gram matrix → three rounds of residuals

The negative log-likelihood is quadratic, so the released Gram matrix is its curvature up to noise, and one solve would do.
It would err by the Gram matrix's noise times the coefficients; residuals at the solution leave that noise times the little
that is left to go, and tell the variance that intervals need (docs/dp-newton.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ahh_federated.analyses import glm
from ahh_federated.analyses.choice import Choice
from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.analyses.gaussian import CrossSums, Residuals
from ahh_federated.analyses.linear_fit import Counted, LinearFit, Target
from ahh_federated.analyses.models import Equation, Family
from ahh_federated.analyses.newton import RIDGE, WIDE_VARIANCE, combine, solve
from ahh_federated.analyses.numbers import Number, number
from ahh_federated.analyses.opening import COMPLETE, KIND, opening
from ahh_federated.analyses.quadratic import Quadratic, evidence_of
from ahh_federated.analyses.reach import outcome_reach, residual_reaches
from ahh_federated.analyses.rounds import Rounds, Solved, first_lines, scale_of, score_shares, second, whole
from ahh_federated.analyses.scaling import FEWEST, Standard, outcome_scale, rounded, standardise
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Column, Numeric
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query, Stack, joined
from ahh_federated.errors import Breach

_EXPLAINED = 0.5  # the part of the outcome's variance that the prior gives to what does not bend
_BENT = 0.125  # the part it gives to hats
_PASSES = 3
_SECOND = joined(CrossSums.kind, glm.Gram.kind)
_LEAST_VARIANCE = 0.01  # of the residuals, as a part of the outcome's
_NO_VARIANCE = 1e-20  # where there is no noise, and the features say all


@dataclass(frozen=True, slots=True)
class Linear:
    """The analysis `linear`.

    Args:
        design: the features.
        outcome: a measured column.
        rounds: messages of residuals, at least one.
        exact: no clip, grid, weights or prior; for the laboratory and tests, with a driver that adds no noise.
    """

    design: Design
    outcome: Numeric
    rounds: int = 3
    exact: bool = False

    @property
    def family(self) -> Family:
        return "continuous"

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    def predictor(self, parameters: Parameters) -> Equation:
        return Equation.read(self.family, self.design, self.outcome, parameters, exact=self.exact)

    def exactly(self) -> Linear:
        return replace(self, exact=True)

    def schedule(self) -> Sequence[Line]:
        shares = score_shares(self.rounds)
        first = first_lines(self.design, self.outcome, self._second(Scale.plain(self.design), 0.0, 1.0, 1.0))
        return [*first, *(Line(Residuals.kind, self.design.width + 1, share) for share in shares)]

    def query(self, kind: str, parameters: Parameters) -> Query:
        if kind == KIND:
            return opening(self.design, self.outcome)
        if kind not in (_SECOND, Residuals.kind):
            raise Breach(f"a linear regression asks no query of kind {kind!r}")
        scale = scale_of(parameters, self.design, exact=self.exact)
        (centre,) = numbers(parameters, "outcome_centre", 1)
        (spread,) = numbers(parameters, "outcome_spread", 1, least=LEAST_SPREAD)
        (reach,) = numbers(parameters, "reach", 1, least=LEAST_SPREAD)
        if kind == _SECOND:
            return self._second(scale, centre, spread, reach)
        beta = tuple(numbers(parameters, "beta", self.design.width))
        (square_reach,) = numbers(parameters, "square_reach", 1, least=LEAST_SPREAD)
        return Residuals(self.design, self.outcome, scale, centre, spread, beta, reach, square_reach)

    def _second(self, scale: Scale, centre: float, spread: float, reach: float) -> Stack:
        return second(CrossSums(self.design, self.outcome, scale, centre, spread, reach))

    def program(self) -> Program:
        solved: Solved = yield from self.solved()
        return solved.fit

    def solved(self) -> Program:
        """The program to its solution, which tells more than a fit: additive models are made of it."""
        rounds = Rounds([], [])
        rounds.asked.append((yield opening(self.design, self.outcome)))
        choice = Choice.of(rounds.complete, COMPLETE)
        standard = standardise(self.design, rounds.moments, curves=choice.curves, exact=self.exact)
        centre, spread = outcome_scale(rounds.moments, exact=self.exact)
        shared = (self.design, self.outcome, standard.scale)
        reach = 1.0 if self.exact else outcome_reach(rounds, standard, centre, spread)
        rounds.asked.append((yield self._second(standard.scale, centre, spread, reach)))
        variance, error = 1 - _EXPLAINED, math.inf
        beta = self._step(rounds, standard, variance, np.zeros(len(standard.used)))
        for share in score_shares(self.rounds):
            asked = beta if self.exact else np.array(rounded(beta))
            reaches = (1.0, 1.0) if self.exact else residual_reaches(rounds, standard, spread, share, variance, error)
            sent = tuple(whole(asked, standard, self.design.width))
            rounds.scored.append((asked, (yield Residuals(*shared, centre, spread, sent, *reaches))))
            variance, error = _residual_variance(rounds, standard)
            beta = self._step(rounds, standard, variance, asked)
        return self._solution(rounds, standard, beta, Target(self.outcome, centre, spread), choice)

    def _step(self, rounds: Rounds, standard: Standard, variance: float, start: F64) -> F64:
        phi, first, scores = evidence_of(rounds, standard, variance)
        variances = np.full(len(start), math.inf) if self.exact else _prior(standard)
        combined, beta = combine(phi, first, scores, start), start
        for _ in range(_PASSES):  # the Gram matrix's noise weighs by how far the solution lies from the evidence
            noise = combined.variance + phi.carried(beta - combined.at)
            beta = solve(phi, replace(combined, variance=noise), variances, start)
        return beta

    def _solution(self, rounds: Rounds, standard: Standard, beta: F64, target: Target, choice: Choice) -> Solved:
        variance, error = _residual_variance(rounds, standard)
        phi, first, scores = evidence_of(rounds, standard, variance)
        combined = combine(phi, first, scores, beta)
        if self.exact:
            estimate, variance = beta, variance * phi.n / max(phi.n - len(beta), 1.0)
        else:
            estimate = solve(phi, combined, np.full(len(beta), WIDE_VARIANCE), beta)
            moved = estimate - scores[-1].beta  # the residuals were measured where the last were asked
            variance = max(variance - float(moved @ phi.gram @ moved), _LEAST_VARIANCE)
        ridge = 0.0 if self.exact and not self.design.knots else RIDGE
        inverse = np.asarray(np.linalg.inv(phi.n * (phi.gram + ridge * np.eye(len(beta)))), dtype=np.float64)
        spread = phi.variance**2 * float(np.trace(inverse @ inverse))
        carried = phi.carried_to_noiseless(estimate - combined.at, combined.variance, spread)
        noise = (combined.variance + carried) * phi.variance**2
        full = partial(whole, standard=standard, width=self.design.width)
        used, unused = (float(value) for value in rounds.complete.values)
        fit = LinearFit(
            design=self.design,
            outcome=self.outcome,
            scale=standard.scale,
            beta=target.coefficients(full(beta)) if self.exact else rounded(np.array(target.coefficients(full(beta)))),
            estimate=target.coefficients(full(estimate)),
            sampling=target.spread**2 * variance * full(inverse),
            privacy=target.spread**2 * noise * full(np.asarray(inverse @ inverse)),
            used=Counted(used, unused, rounds.complete.stderr),
            residual_sd=_residual_sd(target, phi, variance, error),
            spread=_spread(target, phi, beta),
            partners=rounds.partners,
            rounds=rounds.count,
        )
        return Solved(fit, full(phi.mean), choice)


def _prior(standard: Standard) -> F64:
    """The prior variance of each coefficient: straight slopes share what they explain of the outcome's, and so do hats."""
    variances = np.ones(len(standard.used))
    for at, explained in ((standard.straight, _EXPLAINED), (standard.hats, _BENT)):
        variances[at] = explained / max(len(at), 1)
    return variances


def _residual_variance(rounds: Rounds, standard: Standard) -> tuple[float, float]:
    """Of e about the coefficients last asked, and its standard error."""
    replies = rounds.scored[-1][1]
    assert isinstance(replies.query, Residuals)
    total = replies.total(rounds.partners)
    plus, minus, _ = rounds.halves(standard)
    factor = replies.query.square_reach**2 / replies.query.reach / max(float(plus[0] + minus[0]), FEWEST)
    error, expected = total.stderr * factor, 1 - _EXPLAINED
    trust = expected**2 / (expected**2 + error**2)
    found = expected + trust * (float(total.values[-1]) * factor - expected)
    return max(found, _LEAST_VARIANCE if error > 0 else _NO_VARIANCE), error


def _residual_sd(target: Target, phi: Quadratic, variance: float, error: float) -> Number:
    """In the outcome's unit, with the sampling error that normal residuals would have."""
    sd = target.sd(variance)
    return number(sd, sd * error / (2 * variance), sampling=sd / math.sqrt(2 * phi.n), least=0.0)


def _spread(target: Target, phi: Quadratic, beta: F64) -> tuple[float, float]:
    mean = float(phi.mean @ beta)
    variance = max(float(beta @ phi.gram @ beta) - mean**2, 0.01)
    found = rounded(np.array([target.outcome.unscaled(target.centre + target.spread * mean), target.sd(variance)]))
    return found[0], found[1]
