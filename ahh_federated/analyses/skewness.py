"""How lopsided a measured column is, from one released number; and a few points that stand for such a column.

The number is E[x|x|], x cut at 4, which is 0 for what is symmetric about 0.  The family is that of gamma distributions, turned
round for a negative skewness, and the normal between them (Pearson's type III): most laboratory values, costs and durations
look like it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import gammaincinv, ndtri, roots_genlaguerre

from ahh_federated.core.cohorts import F64

TAIL = 4.0  # standard deviations: x counts as this in x|x|, which stays below TAIL |x|
_MOST = 4.0
_GRID = np.linspace(-_MOST, _MOST, 81)
_NORMAL, _TURNED, _EXPONENTIAL = 40, 20, 60  # where the grid is 0, -2 and 2
_LEVELS = (np.arange(200) + 0.5) / 200
_SD = 0.375  # how far E[x|x|] may be from a normal's, as a part of how far -2 and 2 are apart
_BLIND = 0.5  # that distance as a part of the variance, below which x|x| tells little: the column is mostly on one side of 0
_POINTS = 3
_ROUGHLY = 0.9  # the part of a column's variance that its points have; the rest is normal


@cache
def _quantiles() -> F64:
    """Of the standardised family, shape (skewnesses, levels)."""
    rows = []
    for skewness in np.abs(_GRID):
        shape = 4 / skewness**2 if skewness > 0 else np.inf
        rows.append(ndtri(_LEVELS) if skewness == 0 else (gammaincinv(shape, _LEVELS) - shape) / np.sqrt(shape))
    upward = np.array(rows)
    return np.where(_GRID[:, None] < 0, -upward[:, ::-1], upward)


def skewness(lean: float, stderr: float, mean: float, variance: float) -> float:
    """The skewness of a column with this mean and variance whose E[x|x|] is `lean`, shrunk to 0 as far as its noise asks."""
    x = np.clip(mean + np.sqrt(max(variance, 0.0)) * _quantiles(), -TAIL, TAIL)
    expected = np.maximum.accumulate((x * np.abs(x)).mean(axis=1))
    apart, normal = float(expected[_EXPONENTIAL] - expected[_TURNED]), float(expected[_NORMAL])
    if apart <= _BLIND * variance:
        return 0.0
    trust = (_SD * apart) ** 2 / ((_SD * apart) ** 2 + stderr**2)
    return float(np.interp(normal + trust * (lean - normal), expected, _GRID))


def points(skew: float) -> tuple[F64, F64]:
    """Three values of mean 0 that roughly are a column of variance 1 with this skewness, and their probabilities.

    Gauss' rule for the member of the family which has that skewness once a tenth of the variance, normal, is added to it.
    """
    held = float(np.clip(skew / _ROUGHLY**1.5, -_MOST, _MOST))
    shape = 4 / held**2
    nodes, weights = roots_genlaguerre(_POINTS, shape - 1)
    return np.sqrt(_ROUGHLY) * np.sign(held) * (nodes - shape) / np.sqrt(shape), weights / weights.sum()
