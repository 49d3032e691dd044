"""Logistic regression by DP-Newton: four messages a node, no learning rate, one fixed setting for all data.

    complete cases and moments → class sums and Gram matrix → two scores

Every sum is released by each node under its own noise, partners are added with weight one, and all the rest is free
post-processing (analyses/newton.py).  Two sets of coefficients come out of the same releases: the *equation*, shrunk
by a prior so that predictions err less, and the *estimates*, not shrunk, whose intervals include sampling error and
privacy noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import expit

from ahh_federated.analyses import glm
from ahh_federated.analyses.choice import Choice
from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.fit import Fit, Used
from ahh_federated.analyses.mixture import mixture
from ahh_federated.analyses.models import Equation, Family
from ahh_federated.analyses.newton import (
    RIDGE,
    WIDE_VARIANCE,
    Evidence,
    Moments,
    Surrogate,
    combine,
    moderate,
    moments_of,
    solve,
)
from ahh_federated.analyses.opening import COMPLETE, KIND, opening
from ahh_federated.analyses.prior import before_scores, expected_variances, parts_of, variances
from ahh_federated.analyses.rounds import Rounds, Solved, first_lines, scale_of, score_shares, second, whole
from ahh_federated.analyses.scaling import Standard, rounded, standardise
from ahh_federated.analyses.skewness import skewness
from ahh_federated.core.bounds import SQUARE_STEPS
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Column, Levels
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query, Stack, joined
from ahh_federated.errors import Breach

_LONGEST_STEP = 0.5  # of a coefficient of standardised x: a full first step can overshoot for good
_SECOND = joined(glm.ClassSums.kind, glm.Gram.kind)
EXACT_ROUNDS = 40  # Newton's method; the last ones change nothing


@dataclass(frozen=True, slots=True)
class Logistic:
    """The analysis `logistic`.

    Args:
        design: the features.
        outcome: a column of two levels; the second is the event.
        rounds: scores after the first solution.
        exact: no clip, grid, weights or prior, and a query for the information matrix each round; for the laboratory and
            tests, with a driver that adds no noise and EXACT_ROUNDS rounds.
    """

    design: Design
    outcome: Levels
    rounds: int = 2
    exact: bool = False

    @property
    def family(self) -> Family:
        return "binary"

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    def predictor(self, parameters: Parameters) -> Equation:
        return Equation.read(self.family, self.design, self.outcome, parameters, exact=self.exact)

    def exactly(self) -> Logistic:
        return replace(self, rounds=EXACT_ROUNDS, exact=True)

    def schedule(self) -> Sequence[Line]:
        shares = score_shares(self.rounds) if not self.exact else [1e-6] * self.rounds
        first = first_lines(self.design, self.outcome, self._second(Scale.plain(self.design)))
        return [*first, *(line for share in shares for line in self._round(share))]

    def _round(self, share: float) -> list[Line]:
        d = self.design.width
        exact = [Line(glm.Information.kind, d * d, share, SQUARE_STEPS)] if self.exact else []
        return [Line(glm.Score.kind, d, share), *exact]

    def query(self, kind: str, parameters: Parameters) -> Query:
        if kind == KIND:
            return opening(self.design, self.outcome)
        if kind not in (_SECOND, glm.Score.kind, *([glm.Information.kind] if self.exact else [])):
            raise Breach(f"a logistic regression asks no query of kind {kind!r}")
        scale = scale_of(parameters, self.design, exact=self.exact)
        if kind == _SECOND:
            return self._second(scale)
        beta = tuple(numbers(parameters, "beta", self.design.width))
        query = glm.Score if kind == glm.Score.kind else glm.Information
        return query(self.design, self.outcome, scale, beta)

    def _second(self, scale: Scale) -> Stack:
        return second(glm.ClassSums(self.design, self.outcome, scale))

    def program(self) -> Program:
        solved: Solved = yield from self.solved()
        return solved.fit

    def solved(self) -> Program:
        """The program to its solution, which tells more than a fit: additive models are made of it."""
        rounds = Rounds([], [])
        rounds.asked.append((yield opening(self.design, self.outcome)))
        choice = Choice.of(rounds.complete, COMPLETE)
        standard = standardise(self.design, rounds.moments, curves=choice.curves, exact=self.exact)
        shared = (self.design, self.outcome, standard.scale)
        rounds.asked.append((yield self._second(standard.scale)))
        if self.exact:
            return (yield from self._newton(rounds, standard, choice))
        beta = _step(rounds, standard, None)
        for _ in range(self.rounds):
            asked = np.array(rounded(beta))
            sent = tuple(whole(asked, standard, self.design.width))
            rounds.scored.append((asked, (yield glm.Score(*shared, sent))))
            beta = _step(rounds, standard, asked)
        phi, first, scores = _evidence(rounds, standard)
        moments, evidence = phi.moments, combine(phi, first, scores, beta)
        estimate = solve(phi, evidence, np.full(len(beta), WIDE_VARIANCE), beta)
        information = phi.hessian(estimate) + RIDGE * phi.n * np.eye(len(beta))
        fit = self._fit(
            rounds, standard, np.array(rounded(beta)), estimate, information, evidence.variance, _spread(moments, beta)
        )
        return Solved(fit, whole(moments.mean, standard, self.design.width), choice)

    def _newton(self, rounds: Rounds, standard: Standard, choice: Choice) -> Program:
        """Without noise: Newton steps of bounded length on score and information, from the null model to convergence."""
        shared = (self.design, self.outcome, standard.scale)
        phi, first, _ = _evidence(rounds, standard)
        moments, beta, information = phi.moments, first.beta, np.eye(self.design.width)
        empty = RIDGE * phi.n * np.eye(self.design.width) if self.design.knots else 0.0  # a hat may stand where nobody is
        for _ in range(self.rounds):
            score = yield glm.Score(*shared, tuple(beta))
            replies = yield glm.Information(*shared, tuple(beta))
            rounds.scored.append((beta, score))
            information = replies.total().values.reshape(self.design.width, -1) + empty
            step = np.linalg.solve(information, score.total().values)
            beta = beta - step / max(1.0, float(np.abs(step).max()) / _LONGEST_STEP)
        return Solved(self._fit(rounds, standard, beta, beta, information, 0.0, _spread(moments, beta)), phi.moments.mean, choice)

    def _fit(
        self,
        rounds: Rounds,
        standard: Standard,
        beta: F64,
        estimate: F64,
        information: F64,
        noise: float,
        spread: tuple[float, float],
    ) -> Fit:
        inverse = np.asarray(np.linalg.inv(information), dtype=np.float64)
        complete = rounds.complete
        without, events, unused = (float(value) for value in complete.values)
        full = partial(whole, standard=standard, width=self.design.width)
        return Fit(
            design=self.design,
            outcome=self.outcome,
            scale=standard.scale,
            beta=tuple(float(value) for value in full(beta)),
            estimate=tuple(float(value) for value in full(estimate)),
            sampling=full(inverse),
            privacy=full(np.asarray(noise * inverse @ inverse)),
            used=Used(without, events, unused, complete.stderr),
            spread=spread,
            partners=rounds.partners,
            rounds=rounds.count,
        )


def _evidence(rounds: Rounds, standard: Standard) -> tuple[Surrogate, Evidence, list[Evidence]]:
    positive, negative, stderr = rounds.halves(standard)
    moments = moments_of(rounds.gram(standard), positive, negative, stderr, standard.gram)
    phi = Surrogate(moments, mixture(moments.mean, moments.covariance, standard.levels, _skewness(rounds, standard, moments)))
    share = min(max(float(positive[0]) / phi.n, 0.01), 0.99)
    beta = np.zeros(len(positive))
    beta[0] = math.log(share / (1 - share))
    first = Evidence(beta, positive, stderr * math.hypot(share, 1 - share))
    return phi, first, [Evidence(asked, total.values, total.stderr) for asked, total in rounds.scores(standard)]


def _skewness(rounds: Rounds, standard: Standard, moments: Moments) -> dict[int, float]:
    """Of the measured columns, by coordinate."""
    lean = rounds.lean(standard)
    given = zip(standard.measured, lean.values / moments.n, strict=True)
    return {
        at: skewness(float(each), lean.stderr / moments.n, float(moments.mean[at]), float(moments.covariance[at, at]))
        for at, each in given
    }


def _step(rounds: Rounds, standard: Standard, beta: F64 | None) -> F64:
    phi, first, scores = _evidence(rounds, standard)
    parts = parts_of(standard)
    if beta is None:
        evidence = combine(phi, first, [], first.beta)
        solved = solve(phi, evidence, variances(parts, before_scores(parts)), first.beta)
        return moderate(phi, solved, float(expit(first.beta[0])))
    evidence = combine(phi, first, scores, beta)
    return solve(phi, evidence, variances(parts, expected_variances(phi, evidence, beta, parts=parts)), beta)


def _spread(moments: Moments, beta: F64) -> tuple[float, float]:
    mean, variance = float(moments.mean @ beta), float(beta @ moments.covariance @ beta)
    found = rounded(np.array([mean, math.sqrt(max(variance, 0.01))]))
    return found[0], found[1]
