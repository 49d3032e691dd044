"""The prior of a risk model: how strong its slopes are taken to be, learned from the evidence (docs/dp-newton.md, section 6).

Straight lines and hats have a variance each, since how far curves bend says nothing of how steep they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ahh_federated.analyses.newton import RIDGE, WIDE_VARIANCE, Combined, Surrogate, solve
from ahh_federated.analyses.scaling import Standard
from ahh_federated.core.cohorts import F64

_INTERCEPT = 9.0  # its prior variance
_ALONE, _LINES, _HATS = 1.0, 0.5, 0.25  # what straight parts, those beside hats, and hats give x'beta at least


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Slopes that share one prior variance.

    `at`: where they stand in x.  `least`: the variance that the prior gives their part of x'beta before any score was released,
    and at least afterwards.
    """

    at: NDArray[np.int64]
    least: float

    def variance(self, b: F64, covariance: F64, error: F64) -> float:
        """Of the part's x'beta where x has this covariance, from an estimate b with these errors' covariance; at least `least`.

        On average b'S b is the true value + tr(S V), with b, S and V those of the part.
        """
        block, own = np.ix_(self.at, self.at), b[self.at]
        return max(self.least, float(own @ covariance[block] @ own - np.sum(covariance[block] * error[block])))


def parts_of(standard: Standard) -> tuple[Part, ...]:
    """What does not bend, and hats; of those that are in use."""
    parts = Part(standard.straight, _LINES if len(standard.hats) else _ALONE), Part(standard.hats, _HATS)
    return tuple(part for part in parts if len(part.at))


def before_scores(parts: Sequence[Part]) -> list[float]:
    return [part.least for part in parts]


def expected_variances(phi: Surrogate, evidence: Combined, start: F64, *, parts: Sequence[Part]) -> list[float]:
    """What the evidence shows each part of the linear predictor to have, from a solution that is not shrunk."""
    b = solve(phi, evidence, np.full(len(start), WIDE_VARIANCE), start)
    inverse = np.linalg.inv(phi.hessian(b) + RIDGE * phi.n * np.eye(len(b)))
    error = np.asarray(inverse + evidence.variance * inverse @ inverse)
    return [part.variance(b, phi.moments.covariance, error) for part in parts]


def variances(parts: Sequence[Part], together: Sequence[float]) -> F64:
    """The prior variance of each coefficient, such that the slopes of a part together give x'beta the variance asked for."""
    found = np.empty(1 + sum(len(part.at) for part in parts))
    found[0] = _INTERCEPT
    for part, variance in zip(parts, together, strict=True):
        found[part.at] = variance / len(part.at)
    return found
