"""The coordinator's side of DP-Newton: free post-processing of released sums.

For x ~ N(m, S), Phi(beta) = n E[log(1 + exp(x'beta))] depends on x'beta alone, which is N(m'beta, beta'S beta): a fixed
quadrature of 97 nodes gives it, with the exact gradient and a positive semi-definite Hessian of the discretised sum
(Stein's lemma); for a mixture of normals it is a sum of such terms.  One noisy Gram matrix therefore stands in for the
data's curvature, and each noised score corrects it where the data are otherwise.  Ganesh et al., "Faster differentially
private convex optimization via second-order methods", NeurIPS 2023, motivates second-order steps; the surrogate, the
weighting of rounds and the intervals are derived in docs/dp-newton.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from ahh_federated.analyses.mixture import Mixture
from ahh_federated.analyses.scaling import FEWEST, NODES, NORMAL
from ahh_federated.analyses.terms import LIMIT
from ahh_federated.core.cohorts import F64
from ahh_federated.core.releases import Pooled

_GRAM_SD = 0.3  # how far a Gram entry may be from its prior, in units of the two prior roots
WIDE_VARIANCE = 25.0  # of every coefficient, where nothing is to be shrunk
RIDGE = 1e-9  # per patient: keeps a singular curvature invertible and moves nothing else
_LINEAR = 0.3  # how far the surrogate's curvature may be from the data's
_STRONGEST = 8.0  # variance of the linear predictor at the first solution: risks from 1 in 300 to 299 in 300, at two sd


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of x over n patients: E[x] = mean and E[x x'] = gram; covariance = gram - mean mean'."""

    n: float
    mean: F64
    covariance: F64
    gram: F64


@dataclass(frozen=True, slots=True, eq=False)
class Surrogate:
    """Phi for n patients whose x has these moments and is spread like this mixture."""

    moments: Moments
    mixture: Mixture

    @property
    def n(self) -> float:
        return self.moments.n

    @property
    def gram(self) -> F64:
        return self.moments.gram

    def _quadrature(self, beta: F64) -> tuple[F64, F64, F64, float]:
        """x'beta and its sigmoid at the nodes of each pattern, shape (patterns, nodes), the direction u, and the sd within."""
        within = self.mixture.within
        sd = math.sqrt(max(float(beta @ within @ beta), 1e-12))
        eta = (self.mixture.means @ beta)[:, None] + sd * NODES
        return eta, expit(eta), within @ beta / sd, sd

    def _each(self, values: F64) -> F64:
        """E over the nodes of each pattern, times the pattern's share."""
        return np.asarray(self.mixture.shares * (values @ NORMAL))

    def curvature(self, beta: F64) -> float:
        """kappa = E[p (1 - p)]."""
        _, p, _, _ = self._quadrature(beta)
        return max(float(self._each(p * (1 - p)).sum()), 0.01)

    def proximal(self, kappa: float) -> float:
        """How far the curvature may exceed kappa: half-way to the geometric mean of kappa and 1/4, its most."""
        return 0.5 * (math.sqrt(kappa) / 2 - kappa)

    def drift(self, kappa: float, distance: F64) -> float:
        """The squared error of a gradient that the surrogate carries over a distance."""
        return _LINEAR**2 * float(np.sum((self.n * kappa * self.gram @ distance) ** 2))

    def value(self, beta: F64) -> float:
        return self.n * float(self._each(np.logaddexp(0, self._quadrature(beta)[0])).sum())

    def gradient(self, beta: F64) -> F64:
        _, p, u, _ = self._quadrature(beta)
        return np.asarray(self.n * (self._each(p) @ self.mixture.means + float(self._each(p * NODES).sum()) * u))

    def hessian(self, beta: F64) -> F64:
        _, p, u, sd = self._quadrature(beta)
        slope, means = p * (1 - p), self.mixture.means
        across = np.outer(self._each(slope * NODES) @ means, u)
        return np.asarray(
            self.n
            * (
                (means.T * self._each(slope)) @ means
                + (across + across.T)
                + float(self._each(slope * NODES**2).sum()) * np.outer(u, u)
                + float(self._each(p * NODES).sum()) / sd * (self.mixture.within - np.outer(u, u))
            )
        )


class Objective(Protocol):
    """A convex stand-in for the weighted negative log-likelihood, less its linear term."""

    @property
    def n(self) -> float: ...

    @property
    def gram(self) -> F64: ...

    def curvature(self, beta: F64) -> float: ...

    def proximal(self, kappa: float) -> float: ...

    def drift(self, kappa: float, distance: F64) -> float: ...

    def value(self, beta: F64) -> float: ...

    def gradient(self, beta: F64) -> F64: ...

    def hessian(self, beta: F64) -> F64: ...


def moments_of(gram: Pooled, positive: F64, negative: F64, stderr: float, prior: F64) -> Moments:
    """From the noised Gram matrix and class sums, each entry shrunk to its prior as far as its noise asks.

    At a tiny budget this is gradient descent with a prior metric, at a large one Newton's method.
    """
    width = len(prior)
    n = max(float(positive[0] + negative[0]), FEWEST)
    raw = gram.values.reshape(width, width)
    root = np.maximum(np.sqrt(np.diag(prior)), 0.5)
    signal = (_GRAM_SD * np.outer(root, root)) ** 2
    noise = np.where(np.eye(width, dtype=bool), 1.0, 0.5) * (gram.stderr / n) ** 2
    trust = signal / (signal + noise)
    shrunk = prior + ((raw + raw.T) / (2 * n) - prior) * trust
    mean = prior[0] + ((positive + negative) / n - prior[0]) * _GRAM_SD**2 / (_GRAM_SD**2 + 2 * (stderr / n) ** 2)
    mean[0] = 1.0
    if gram.stderr > 0:  # no weighted patient exceeds these, whatever the noise or a faulty partner says
        mean, shrunk = np.clip(mean, -LIMIT, LIMIT), np.clip(shrunk, -(LIMIT**2), LIMIT**2)
    covariance = np.zeros((width, width))
    values, vectors = np.linalg.eigh(shrunk[1:, 1:] - np.outer(mean[1:], mean[1:]))
    floor = 0.35 * gram.stderr / n * math.sqrt(width) * float(np.median(trust))
    if gram.stderr > 0:
        floor = max(floor, 0.02 * float(np.median(values)), 1e-4)
    covariance[1:, 1:] = (vectors * np.maximum(values, floor)) @ vectors.T
    return Moments(n, mean, covariance, np.outer(mean, mean) + covariance)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One noised gradient: where it was taken, its value, and its noise's standard error.

    The class sums are the first: the gradient of the negative log-likelihood is grad Phi - S1, wherever it is taken.
    """

    beta: F64
    gradient: F64
    stderr: float


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """The weighted evidence as a linear term, with the noise variance of one coordinate and a proximal weight.

    `at`: the weighted mean of where the evidence was taken.
    """

    offset: F64
    variance: float
    proximal: float
    at: F64


def combine(phi: Objective, first: Evidence, scores: list[Evidence], beta: F64) -> Combined:
    """Weigh all evidence by its noise and by its distance from beta (the surrogate errs with distance)."""
    if not scores:
        return Combined(-first.gradient, first.stderr**2, 0.0, first.beta)
    kappa = phi.curvature(beta)
    proximal = phi.proximal(kappa)
    weights = _weights(phi, kappa, [first, *scores], beta)
    pull = proximal * phi.n * phi.gram
    offset = weights[0] * (-first.gradient - pull @ beta)
    for weight, score in zip(weights[1:], scores, strict=True):
        offset = offset + weight * (score.gradient - phi.gradient(score.beta) - pull @ score.beta)
    noise = np.array([each.stderr for each in [first, *scores]])
    at = weights @ np.array([each.beta for each in [first, *scores]])
    return Combined(offset, float(weights**2 @ noise**2), proximal, at)


def _weights(phi: Objective, kappa: float, evidence: list[Evidence], beta: F64) -> F64:
    if evidence[-1].stderr == 0:  # an exact run trusts the newest gradient alone
        return np.asarray(np.eye(len(evidence))[-1])
    drift = np.array([phi.drift(kappa, beta - each.beta) for each in evidence])
    drift[-1] = 0.0
    noise = np.array([each.stderr for each in evidence])
    precision = 1 / (len(beta) * noise**2 + drift)
    return np.asarray(precision / precision.sum())


def moderate(phi: Surrogate, beta: F64, share: float) -> F64:
    """The first solution, its linear predictor's variance cut to 8 and its intercept set so that `share` of patients are events.

    No score has been seen yet.  Where x is not what it is taken for the surrogate can be wrong by far, and from beyond the
    truth, where its curvature is small, two scores do not lead back.
    """
    variance = float(beta @ phi.moments.covariance @ beta)
    if variance <= _STRONGEST:
        return beta
    slopes = beta[1:] * math.sqrt(_STRONGEST / variance)
    reach = 50 + float(np.abs(phi.mixture.means[:, 1:] @ slopes).max())
    return np.array([brentq(lambda at: phi.gradient(np.array([at, *slopes]))[0] / phi.n - share, -reach, reach), *slopes])


def solve(phi: Objective, evidence: Combined, prior_variance: F64, start: F64) -> F64:
    """argmin of Phi + proximal term + offset'beta + the prior; strictly convex, damped Newton.

    The prior is normal with the given variances, in a metric that also carries the evidence's noise.
    """
    metric = phi.n * phi.curvature(start) * phi.gram
    root = 1 / np.sqrt(prior_variance)
    noise = np.eye(len(start)) + evidence.variance * np.linalg.inv(metric)
    quadratic = evidence.proximal * phi.n * phi.gram + noise * np.outer(root, root)

    def objective(beta: F64) -> float:
        return phi.value(beta) + float(beta @ quadratic @ beta) / 2 + float(evidence.offset @ beta)

    beta, value = np.asarray(start), objective(start)
    ridge = RIDGE * phi.n * np.eye(len(start))
    for _ in range(100):
        slope = phi.gradient(beta) + quadratic @ beta + evidence.offset
        step = np.linalg.solve(phi.hessian(beta) + quadratic + ridge, slope)
        size = 1.0
        while objective(beta - size * step) > value and size > 1e-6:
            size /= 2
        beta = beta - size * step
        before, value = value, objective(beta)
        if float(np.abs(step).max()) < 1e-13 * (1 + float(np.abs(beta).max())) or before == value:
            break
    return np.asarray(beta)
