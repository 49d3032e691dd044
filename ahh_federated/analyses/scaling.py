"""From released moments to the scale of a design and a prior for its Gram matrix, without touching data again.

The moments are shrunk towards those of a bounded clinical variable as far as their noise asks, so the scale stays
sensible at any budget.  The radius R and the prior Gram follow from features that are independent given the moments,
one part in five of each measured column being uniform over its range: a fixed quadrature, nothing random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ahh_federated.analyses.design import LIMIT, Design, Scale, Term
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Numeric
from ahh_federated.core.releases import Pooled

FEWEST = 20.0  # patients assumed at least, when noise says fewer
_PRIOR_VARIANCE = 0.1  # of a value on [-1, 1]
_PRIOR_SHARE = 0.15  # of a level
_PRIOR_SD = 0.3  # how far a mean or a share may be from its prior
_UNIFORM = 0.2
_NODES = np.linspace(-6, 6, 97)
_NORMAL = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
_FLAT = np.linspace(-1, 1, 201)


@dataclass(frozen=True, slots=True)
class Standard:
    """A scale, the prior Gram matrix E[x x'] of shape (width, width), and the released number of patients."""

    scale: Scale
    gram: F64
    patients: float


def rounded(values: F64) -> tuple[float, ...]:
    """Ten significant digits: what crosses the wire is then the same on every machine."""
    return tuple(float(f"{value:.10g}") for value in np.asarray(values, dtype=np.float64).ravel())


def standardise(design: Design, total: Pooled, *, exact: bool = False) -> Standard:
    """The scale of a design from the pooled `glm.moments` release."""
    n = max(float(total.values[0]), FEWEST)
    se = total.stderr / n
    centre, spread, first, second = [], [], [], []
    at = 1
    for term in design.terms:
        if isinstance(term.column, Numeric) and term.level is None:
            m, s = _measured(total.values[at] / n, total.values[at + 1] / n, se, exact)
            moments = _quadrature(m, s)
            at += 2
        else:
            m, s = _indicator(total.values[at] / n, se, exact)
            moments = (0.0, m * (1 - m) / s**2)
            at += 1
        centre.append(m)
        spread.append(s)
        first.append(moments[0])
        second.append(moments[1])
    radius = math.inf if exact else rounded(np.array([math.sqrt(1 + sum(second))]))[0]
    scale = Scale(rounded(np.array(centre)), rounded(np.array(spread)), radius, exact)
    return Standard(scale, _prior_gram(design, scale, first, second), n)


def _measured(mean: float, square: float, se: float, exact: bool) -> tuple[float, float]:
    """Centre and spread of a measured value on [-1, 1]."""
    mean = min(max(float(mean), -1.0), 1.0)
    variance = float(square) - mean**2
    if exact:
        return mean, math.sqrt(max(variance, 1e-12))
    trust = _PRIOR_VARIANCE**2 / (_PRIOR_VARIANCE**2 + 4 * se**2)
    variance = max(trust * variance + (1 - trust) * _PRIOR_VARIANCE, 0.005)
    return mean * _PRIOR_SD**2 / (_PRIOR_SD**2 + se**2), max(math.sqrt(variance), 0.06)


def _indicator(share: float, se: float, exact: bool) -> tuple[float, float]:
    """Centre and spread of a 0/1 indicator."""
    share = min(max(float(share), 0.005), 0.995)
    if not exact:
        share = _PRIOR_SHARE + (share - _PRIOR_SHARE) * _PRIOR_SD**2 / (_PRIOR_SD**2 + se**2)
    return share, max(math.sqrt(share * (1 - share)), 0.25)


def _quadrature(m: float, s: float) -> tuple[float, float]:
    """E[x] and E[x**2] of a measured term under the mixture of a clipped normal and a uniform."""
    normal = np.clip((np.clip(m + s * _NODES, -1, 1) - m) / s, -LIMIT, LIMIT)
    flat = np.clip((_FLAT - m) / s, -LIMIT, LIMIT)
    first = (1 - _UNIFORM) * float(_NORMAL @ normal) + _UNIFORM * float(flat.mean())
    second = (1 - _UNIFORM) * float(_NORMAL @ normal**2) + _UNIFORM * float((flat**2).mean())
    return first, second


def _prior_gram(design: Design, scale: Scale, first: list[float], second: list[float]) -> F64:
    mean = np.array([1.0, *first])
    gram = np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] = [1.0, *second]
    for i, one in enumerate(design.terms, start=1):
        for j, other in enumerate(design.terms, start=1):
            if i != j and _exclusive(one, other):
                gram[i, j] = -scale.centre[i - 1] * scale.centre[j - 1] / (scale.spread[i - 1] * scale.spread[j - 1])
    return gram


def _exclusive(one: Term, other: Term) -> bool:
    """Two levels of one column, of which a patient has at most one."""
    return one.column == other.column and one.level is not None and other.level is not None
