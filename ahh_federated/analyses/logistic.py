"""Logistic regression by DP-Newton: six messages a node, no learning rate, one fixed setting for all data.

    complete cases → moments → Gram → class sums → two scores

Every sum is released by each node under its own noise, partners are added with weight one, and all the rest is free
post-processing (analyses/newton.py).  Two sets of coefficients come out of the same releases: the *equation*, shrunk
by a prior so that predictions err less, and the *estimates*, not shrunk, whose intervals include sampling error and
privacy noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses import glm
from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.analyses.fit import Fit, Used
from ahh_federated.analyses.newton import RIDGE, Evidence, Surrogate, combine, solve, surrogate
from ahh_federated.analyses.scaling import Standard, rounded, standardise
from ahh_federated.core.bounds import SQUARE_STEPS
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Levels
from ahh_federated.core.programs import Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Pooled, Round
from ahh_federated.errors import Breach

_COMPLETE, _MOMENTS, _GRAM, _CLASSES = 0.02, 0.08, 0.12, 0.25
_GROWTH = 1.5  # each score gets this much more than the one before
_INTERCEPT_VARIANCE = 9.0
_WIDE_VARIANCE = 25.0
_LONGEST_STEP = 0.5  # of a coefficient of standardised x: a full first step can overshoot for good
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

    def schedule(self) -> Sequence[Line]:
        d = self.design.width
        rest = 1 - _COMPLETE - _MOMENTS - _GRAM - _CLASSES
        growth = [_GROWTH**k for k in range(self.rounds)]
        shares = [rest * g / sum(growth) for g in growth] if not self.exact else [1e-6] * self.rounds
        moments = glm.FeatureMoments(self.design, self.outcome)
        return [
            Line(glm.Complete.kind, 3, _COMPLETE),
            Line(moments.kind, moments.width, _MOMENTS),
            Line(glm.Gram.kind, d * d, _GRAM, SQUARE_STEPS),
            Line(glm.ClassSums.kind, 2 * d, _CLASSES),
            *(line for share in shares for line in self._round(share)),
        ]

    def _round(self, share: float) -> list[Line]:
        d = self.design.width
        exact = [Line(glm.Information.kind, d * d, share, SQUARE_STEPS)] if self.exact else []
        return [Line(glm.Score.kind, d, share), *exact]

    def query(self, kind: str, parameters: Parameters) -> Query:
        if kind == glm.Complete.kind:
            return glm.Complete(self.design, self.outcome)
        if kind == glm.FeatureMoments.kind:
            return glm.FeatureMoments(self.design, self.outcome)
        scale = self._scale(parameters)
        if kind == glm.Gram.kind:
            return glm.Gram(self.design, self.outcome, scale)
        if kind == glm.ClassSums.kind:
            return glm.ClassSums(self.design, self.outcome, scale)
        beta = tuple(numbers(parameters, "beta", self.design.width))
        if kind == glm.Score.kind:
            return glm.Score(self.design, self.outcome, scale, beta)
        if kind == glm.Information.kind and self.exact:
            return glm.Information(self.design, self.outcome, scale, beta)
        raise Breach(f"a logistic regression asks no query of kind {kind!r}")

    def _scale(self, parameters: Parameters) -> Scale:
        terms = self.design.width - 1
        centre, spread = numbers(parameters, "centre", terms), numbers(parameters, "spread", terms, least=LEAST_SPREAD)
        radius = math.inf if self.exact else numbers(parameters, "radius", 1, least=LEAST_SPREAD)[0]
        return Scale(tuple(centre), tuple(spread), radius, self.exact)

    def program(self) -> Program:
        rounds = _Rounds(self.design, [], [])
        rounds.asked.append((yield glm.Complete(self.design, self.outcome)))
        rounds.asked.append((yield glm.FeatureMoments(self.design, self.outcome)))
        standard = standardise(self.design, rounds.total(1), exact=self.exact)
        shared = (self.design, self.outcome, standard.scale)
        rounds.asked.append((yield glm.Gram(*shared)))
        rounds.asked.append((yield glm.ClassSums(*shared)))
        if self.exact:
            return (yield from self._newton(rounds, standard))
        beta = self._step(rounds, standard, None)
        for _ in range(self.rounds):
            asked = np.array(rounded(beta))
            rounds.scored.append((asked, (yield glm.Score(*shared, tuple(asked)))))
            beta = self._step(rounds, standard, asked)
        return self._fit(rounds, standard, beta)

    def _newton(self, rounds: _Rounds, standard: Standard) -> Program:
        """Without noise: Newton steps of bounded length on score and information, from the null model to convergence."""
        shared = (self.design, self.outcome, standard.scale)
        beta = rounds.evidence(standard)[1].beta
        information = np.eye(self.design.width)
        for _ in range(self.rounds):
            score = yield glm.Score(*shared, tuple(beta))
            replies = yield glm.Information(*shared, tuple(beta))
            rounds.scored.append((beta, score))
            information = replies.total().values.reshape(self.design.width, -1)
            step = np.linalg.solve(information, score.total().values)
            beta = beta - step / max(1.0, float(np.abs(step).max()) / _LONGEST_STEP)
        return self._fit(rounds, standard, beta, information)

    def _step(self, rounds: _Rounds, standard: Standard, beta: F64 | None) -> F64:
        phi, first, scores = rounds.evidence(standard)
        start = first.beta if beta is None else beta
        return solve(phi, combine(phi, first, scores, start), self._prior(), start)

    def _prior(self) -> F64:
        """Var(linear predictor) about one: each of d - 1 standardised slopes has variance 1 / (d - 1)."""
        d = self.design.width
        return np.array([_INTERCEPT_VARIANCE, *[1 / max(d - 1, 1)] * (d - 1)])

    def _fit(self, rounds: _Rounds, standard: Standard, beta: F64, information: F64 | None = None) -> Fit:
        phi, first, scores = rounds.evidence(standard)
        evidence = combine(phi, first, scores, beta)
        estimate = beta
        if information is None:
            estimate = solve(phi, evidence, np.full(len(beta), _WIDE_VARIANCE), beta)
            information = phi.hessian(estimate) + RIDGE * phi.n * np.eye(len(beta))
        inverse = np.asarray(np.linalg.inv(information), dtype=np.float64)
        complete = rounds.total(0)
        without, events, unused = (float(value) for value in complete.values)
        return Fit(
            design=self.design,
            outcome=self.outcome,
            scale=standard.scale,
            beta=rounded(beta) if not self.exact else tuple(beta),
            estimate=tuple(float(value) for value in estimate),
            sampling=inverse,
            privacy=np.asarray(evidence.variance * inverse @ inverse),
            used=Used(without, events, unused, complete.stderr),
            predictor=_predictor(phi, beta),
            partners=rounds.partners,
            rounds=len(rounds.asked) + len(rounds.scored),
        )


def _predictor(phi: Surrogate, beta: F64) -> tuple[float, float]:
    mean, variance = float(phi.mean @ beta), float(beta @ phi.covariance @ beta)
    found = rounded(np.array([mean, math.sqrt(max(variance, 0.01))]))
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class _Rounds:
    """All replies so far; sums run over the partners that answered every one, so what they add up to stays coherent."""

    design: Design
    asked: list[Round]
    scored: list[tuple[F64, Round]]

    @property
    def partners(self) -> tuple[str, ...]:
        answered = [set(replies.partners) for replies in [*self.asked, *(each for _, each in self.scored)]]
        return tuple(sorted(set.intersection(*answered)))

    def total(self, number: int) -> Pooled:
        return self.asked[number].total(self.partners)

    def evidence(self, standard: Standard) -> tuple[Surrogate, Evidence, list[Evidence]]:
        d, gram, classes = self.design.width, self.total(2), self.total(3)
        positive, negative = classes.values[:d], classes.values[d:]
        phi = surrogate(gram, positive, negative, classes.stderr, standard.gram)
        share = min(max(float(positive[0]) / phi.n, 0.01), 0.99)
        beta = np.zeros(d)
        beta[0] = math.log(share / (1 - share))
        first = Evidence(beta, positive, classes.stderr * math.hypot(share, 1 - share))
        scores = []
        for asked, replies in self.scored:
            total = replies.total(self.partners)
            scores.append(Evidence(asked, total.values, total.stderr))
        return phi, first, scores
