"""The coordinator's side of least squares: the same post-processing as newton.py, on a curvature that is quadratic.

    Phi(beta) = n beta' M beta / (2 v),      v the variance of the residuals

M, the released Gram matrix a patient, errs by its own noise and by nothing else, so the error of a gradient that Phi
carries over a distance is known: each of its coordinates has variance s**2 ||distance||**2 / 2, with s the standard error of a
diagonal entry of the Gram matrix (off the diagonal symmetrising halves the variance).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses.gaussian import CrossSums
from ahh_federated.analyses.newton import Evidence, moments_of
from ahh_federated.analyses.rounds import Rounds
from ahh_federated.analyses.scaling import Standard
from ahh_federated.core.cohorts import F64


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """Phi for n patients with E[x] = mean and E[x x'] = gram; `noise`: the standard error of n gram's diagonal entries."""

    n: float
    mean: F64
    gram: F64
    variance: float
    noise: float

    def curvature(self, beta: F64) -> float:
        return 1 / self.variance

    def proximal(self, kappa: float) -> float:
        return 0.0

    def drift(self, kappa: float, distance: F64) -> float:
        return len(distance) * self.carried(distance)

    def carried(self, distance: F64) -> float:
        """The variance that the Gram matrix's noise gives one coordinate of a gradient over a distance."""
        return self._leak * float(distance @ distance)

    def carried_to_noiseless(self, distance: F64, variance: float, spread: float) -> float:
        """The same over the distance to the solution without noise, when the unshrunk one lies this far from the evidence.

        That one is farther by the noise it has itself, on average by `spread`, tr(H**-2), times a coordinate's variance: that of
        the evidence, `variance`, and the one looked for.
        """
        return self._leak * max(float(distance @ distance) - spread * variance, 0.0) / (1 + self._leak * spread)

    @property
    def _leak(self) -> float:
        return self.noise**2 / (2 * self.variance**2)

    def value(self, beta: F64) -> float:
        return float(beta @ self.gradient(beta)) / 2

    def gradient(self, beta: F64) -> F64:
        return np.asarray(self.n / self.variance * (self.gram @ beta))

    def hessian(self, beta: F64) -> F64:
        return np.asarray(self.n / self.variance * self.gram)


def evidence_of(rounds: Rounds, standard: Standard, variance: float) -> tuple[Quadratic, Evidence, list[Evidence]]:
    """Phi, the cross sums and each round of residuals, all on the scale of the log-likelihood."""
    gram, cross = rounds.gram(standard), rounds.asked[1].part(0).query
    assert isinstance(cross, CrossSums)
    plus, minus, stderr = rounds.halves(standard)
    moments = moments_of(gram, plus, minus, stderr, standard.gram)
    phi = Quadratic(moments.n, moments.mean, moments.gram, variance, gram.stderr)
    scale = cross.reach / variance
    first = Evidence(np.zeros(len(plus)), scale * (plus - minus), scale * 2**0.5 * stderr)
    scores = [Evidence(b, total.values / variance, total.stderr / variance) for b, total in rounds.scores(standard)]
    return phi, first, scores
