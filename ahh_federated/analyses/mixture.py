"""What x looks like: a mixture of normals, one for each pattern of levels that patients have, and of lopsided values.

A normal x is a good stand-in where many small things add up, and a poor one for a level: its coordinate of x has two values,
and of a rare one with a strong effect a normal makes odds that no patient has.  A lopsided column has a long tail that a normal
lacks.  Given the levels of all columns, and roughly where lopsided columns are, what is left is taken as normal, with means
that are linear in them and one covariance: the mixture has the mean and the covariance that were released
(docs/dp-newton.md, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses.skewness import points
from ahh_federated.core.cohorts import F64

_MOST_PATTERNS = 512
_LEAST_SHARE = 1e-5  # of a pattern that is worth having
_LOST = 0.01  # of patients whose pattern is not: then the column is left out
_LEAST_LEVEL = 1e-3  # a level of fewer, or of nearly all, is left to the normal part
_MANY = 10  # levels: such a column comes last, or it takes the room of those that need it
_LOPSIDED = 0.5  # the least skewness that is worth patterns


@dataclass(frozen=True, slots=True)
class Level:
    """The coordinate of x that says whether a patient has a level: (indicator - centre) / spread."""

    at: int
    centre: float
    spread: float


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """x ~ N(means[g], within) with probability shares[g]; shapes (patterns,), (patterns, width), (width, width)."""

    shares: F64
    means: F64
    within: F64

    @staticmethod
    def normal(mean: F64, covariance: F64) -> Mixture:
        """One normal, no pattern."""
        return Mixture(np.ones(1), mean[None, :], covariance)


@dataclass(frozen=True, slots=True, eq=False)
class _Patterns:
    """Coordinates of x, the values they take together, shape (patterns, coordinates), and how often, shape (patterns,)."""

    at: list[int]
    values: F64
    shares: F64


def mixture(
    mean: F64, covariance: F64, columns: Sequence[Sequence[Level]], skewness: Mapping[int, float] | None = None
) -> Mixture:
    """The mixture with this mean and covariance, of which the levels of these columns make the patterns.

    `skewness`: of coordinates that are measured.
    """
    found = _Patterns([], np.zeros((1, 0)), np.ones(1))
    for levels in _in_order(mean, columns):
        found = _crossed(found, levels, mean, covariance)
    for at, skew in sorted((skewness or {}).items(), key=lambda each: -abs(each[1])):
        if abs(skew) >= _LOPSIDED:
            found = _pointed(found, at, skew, mean, covariance)
    means = mean + (found.values - mean[found.at]) @ _slopes(covariance, list(range(len(mean))), found.at).T
    means += mean - found.shares @ means
    between = means - mean
    values, vectors = np.linalg.eigh(covariance - (between.T * found.shares) @ between)
    return Mixture(found.shares, means, np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T))


def _in_order(mean: F64, columns: Sequence[Sequence[Level]]) -> list[list[Level]]:
    """The columns with the levels that some patients have, the one with the rarest first, those of many levels last."""

    def share(level: Level) -> float:
        return level.centre + level.spread * float(mean[level.at])

    def order(levels: list[Level]) -> tuple[bool, float]:
        shares = [share(level) for level in levels]
        return len(levels) > _MANY, min(*shares, 1 - sum(shares))

    kept = [[level for level in levels if _LEAST_LEVEL < share(level) < 1 - _LEAST_LEVEL] for levels in columns]
    return sorted((levels for levels in kept if levels), key=order)


def _crossed(found: _Patterns, levels: Sequence[Level], mean: F64, covariance: F64) -> _Patterns:
    """Each pattern with each level of one more column, or with none of them.

    The probability of a level is linear in the pattern: the conditional linear family (Qaqish, "A family of multivariate
    binary distributions ...", Biometrika 2003), which has the given means and covariances where it stays within 0 and 1.
    """
    at = [level.at for level in levels]
    centre, spread = np.array([level.centre for level in levels]), np.array([level.spread for level in levels])
    expected = mean[at] + (found.values - mean[found.at]) @ _slopes(covariance, at, found.at).T
    shares = np.clip(centre + spread * expected, 0.0, 1.0)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
    shares = np.hstack([1.0 - shares.sum(axis=1, keepdims=True), shares])
    values = (np.vstack([np.zeros(len(at)), np.eye(len(at))]) - centre) / spread
    return _extended(found, at, np.tile(values, (len(found.shares), 1, 1)), shares)


def _pointed(found: _Patterns, at: int, skew: float, mean: F64, covariance: F64) -> _Patterns:
    """Each pattern at each of a few points of a lopsided column, about where the pattern expects it."""
    slopes = _slopes(covariance, [at], found.at)[0]
    expected = mean[at] + (found.values - mean[found.at]) @ slopes
    left = max(float(covariance[at, at] - slopes @ covariance[found.at, at]), 0.0)
    steps, shares = points(skew)
    values = expected[:, None] + np.sqrt(left) * steps
    return _extended(found, [at], values[:, :, None], np.tile(shares, (len(found.shares), 1)))


def _extended(found: _Patterns, at: list[int], values: F64, shares: F64) -> _Patterns:
    """Each pattern times what it may have at further coordinates, without what hardly anybody has; as it was if there is no room.

    `values`: shape (patterns, choices, coordinates), `shares`: of each choice, given the pattern.
    """
    together = found.shares[:, None] * shares
    pattern, choice = np.nonzero(together >= _LEAST_SHARE)
    kept = together[pattern, choice]
    if len(kept) > _MOST_PATTERNS or kept.sum() < 1 - _LOST:
        return found
    return _Patterns([*found.at, *at], np.hstack([found.values[pattern], values[pattern, choice]]), kept / kept.sum())


def _slopes(covariance: F64, of: list[int], on: list[int]) -> F64:
    """Of the regression of some coordinates on others, shape (of, on)."""
    return np.asarray(covariance[np.ix_(of, on)] @ np.linalg.pinv(covariance[np.ix_(on, on)], hermitian=True))
