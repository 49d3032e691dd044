"""From released moments to the scale of a design and a prior for its Gram matrix, without touching data again.

The moments are shrunk towards those of a bounded clinical variable as far as their noise asks, so the scale stays
sensible at any budget.  The radius R and the prior Gram follow from columns that are independent given the moments,
one part in five of each measured column being uniform over its range: a fixed quadrature, nothing random.  It gives
products of terms and hats their scale too: neither asks anybody anything.  Within a column the hats and the linear term
are integrated jointly, since they lean on each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.analyses.hats import Knots
from ahh_federated.analyses.mixture import Level
from ahh_federated.analyses.terms import LIMIT, Term
from ahh_federated.core.cohorts import F64
from ahh_federated.core.releases import Pooled

FEWEST = 20.0  # patients assumed at least, when noise says fewer
_PRIOR_VARIANCE = 0.1  # of a value on [-1, 1]
_PRIOR_SHARE = 0.15  # of a level
_PRIOR_SD = 0.3  # how far a mean or a share may be from its prior
UNIFORM = 0.2
_TAIL = 4.0  # spreads: the prior has nobody beyond
NODES = np.linspace(-6, 6, 97)
NORMAL = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
_FLAT = np.linspace(-1, 1, 201)
_MIXTURE = np.concatenate([(1 - UNIFORM) * NORMAL, np.full(len(_FLAT), UNIFORM / len(_FLAT))])
OFF = 1e6  # the spread of a hat that is switched off: |h - c| / OFF is below one step of x's grid, so x is zero


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """A scale, the prior Gram matrix E[x x'] of the coordinates in use, and the released number of patients.

    `used`: which coordinates of x are in use, rising; hats that are switched off are not.  `levels`: of each column, those that
    have a coordinate of their own.  `measured`: where measured columns stand.  `straight`, `hats`: where slopes that do not bend
    (levels, straight lines and products) and hats stand among those in use.
    """

    scale: Scale
    gram: F64
    patients: float
    used: NDArray[np.int64]
    levels: tuple[tuple[Level, ...], ...]
    measured: tuple[int, ...]
    straight: NDArray[np.int64]
    hats: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Coordinates of x, those out of use included."""
        return len(self.scale.centre) + 1


def rounded(values: F64) -> tuple[float, ...]:
    """Ten significant digits: what crosses the wire is then the same on every machine."""
    return tuple(float(f"{value:.10g}") for value in np.asarray(values, dtype=np.float64).ravel())


def standardise(design: Design, total: Pooled, *, curves: bool = True, exact: bool = False) -> Standard:
    """The scale of a design from the pooled `glm.moments` release; without `curves` the hats are switched off."""
    n = max(float(total.values[0]), FEWEST)
    se = total.stderr / n
    scaled = _Scaled([], [], [], [])
    at = 1
    for term in design.main:
        if term.measured:
            m, s = _measured(total.values[at] / n, total.values[at + 1] / n, se, exact)
            scaled.add(m, s, *_quadrature(m, s))
            at += 2
        else:
            m, s = _indicator(total.values[at] / n, se, exact)
            scaled.add(m, s, 0.0, m * (1 - m) / s**2)
            at += 1
    for term in design.terms:
        if term.by is not None:
            one, other = design.factors(term)
            scaled.add(0.0, 1.0, scaled.first[one] * scaled.first[other], scaled.second[one] * scaled.second[other])
    joint = [_joint(design, scaled, knots) for knots in design.knots]
    for block in joint:
        for j, (centre, spread) in enumerate(block.hats, start=1):
            scaled.add(centre, spread if curves else OFF, *(block.moments[[0, j + 1], j + 1] if curves else (0.0, 0.0)))
    radius = math.inf if exact else rounded(np.array([math.sqrt(1 + sum(scaled.second))]))[0]
    scale = Scale(rounded(np.array(scaled.centre)), rounded(np.array(scaled.spread)), radius, exact)
    gram = _prior_gram(design, scale, scaled.first, scaled.second)
    for block in joint:
        gram[np.ix_(block.at, block.at)] = block.moments
    bends = np.array([False, *(term.knot is not None for term in design.terms)])
    used = np.flatnonzero(curves | ~bends)
    straight, hats = np.flatnonzero(~bends[used])[1:], np.flatnonzero(bends[used])
    return Standard(scale, gram[np.ix_(used, used)], n, used, _levels(design, scale), design.measured, straight, hats)


def _levels(design: Design, scale: Scale) -> tuple[tuple[Level, ...], ...]:
    """Where the levels of each column stand in x: main terms come first, whatever is switched off."""
    found: dict[str, list[Level]] = {}
    for j, term in enumerate(design.main):
        if not term.measured:
            found.setdefault(term.column.name, []).append(Level(j + 1, scale.centre[j], scale.spread[j]))
    return tuple(map(tuple, found.values()))


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Term by term: centre and spread, E[x] and E[x**2]."""

    centre: list[float]
    spread: list[float]
    first: list[float]
    second: list[float]

    def add(self, centre: float, spread: float, first: float, second: float) -> None:
        self.centre.append(float(centre))
        self.spread.append(float(spread))
        self.first.append(float(first))
        self.second.append(float(second))


@dataclass(frozen=True, slots=True, eq=False)
class _Joint:
    """A column with knots: where (1, x, its hats) stand in the vector, E of all their products, and each hat's scale."""

    at: list[int]
    moments: F64
    hats: list[tuple[float, float]]


def _joint(design: Design, scaled: _Scaled, knots: Knots) -> _Joint:
    j = design.main.index(Term(knots.column))
    m, s = scaled.centre[j], scaled.spread[j]
    u = np.concatenate([np.clip(m + s * NODES, -1, 1), _FLAT])
    functions, hats = [np.ones_like(u), np.clip((u - m) / s, -_TAIL, _TAIL)], []
    for h in knots.hats(u):
        centre = float(_MIXTURE @ h)
        spread = max(math.sqrt(float(_MIXTURE @ (h - centre) ** 2)), max(centre, 1 - centre) / LIMIT)
        hats.append((centre, spread))
        functions.append((h - centre) / spread)
    x = np.array(functions)
    at = [0, j + 1, *(1 + k for k, term in enumerate(design.terms) if term.column == knots.column and term.knot is not None)]
    return _Joint(at, np.asarray((x * _MIXTURE) @ x.T), hats)


def _measured(mean: float, square: float, se: float, exact: bool) -> tuple[float, float]:
    """Centre and spread of a measured value on [-1, 1]."""
    mean = min(max(float(mean), -1.0), 1.0)
    variance = float(square) - mean**2
    if exact:
        return mean, math.sqrt(max(variance, 1e-12))
    trust = _PRIOR_VARIANCE**2 / (_PRIOR_VARIANCE**2 + 4 * se**2)
    variance = min(max(trust * variance + (1 - trust) * _PRIOR_VARIANCE, 0.005), 1.0)
    return mean * _PRIOR_SD**2 / (_PRIOR_SD**2 + se**2), max(math.sqrt(variance), 0.06)


def _indicator(share: float, se: float, exact: bool) -> tuple[float, float]:
    """Centre and spread of a 0/1 indicator."""
    share = min(max(float(share), 0.005), 0.995)
    if not exact:
        share = _PRIOR_SHARE + (share - _PRIOR_SHARE) * _PRIOR_SD**2 / (_PRIOR_SD**2 + se**2)
    return share, max(math.sqrt(share * (1 - share)), 0.25)


def outcome_scale(total: Pooled, *, exact: bool = False) -> tuple[float, float]:
    """Centre and spread of a measured outcome on [-1, 1], from the last two numbers of the same release."""
    n = max(float(total.values[0]), FEWEST)
    found = rounded(np.array(_measured(total.values[-2] / n, total.values[-1] / n, total.stderr / n, exact)))
    return found[0], found[1]


def _quadrature(m: float, s: float) -> tuple[float, float]:
    """E[x] and E[x**2] of a measured term under the mixture of a clipped normal and a uniform."""
    normal = np.clip((np.clip(m + s * NODES, -1, 1) - m) / s, -_TAIL, _TAIL)
    flat = np.clip((_FLAT - m) / s, -_TAIL, _TAIL)
    first = (1 - UNIFORM) * float(NORMAL @ normal) + UNIFORM * float(flat.mean())
    second = (1 - UNIFORM) * float(NORMAL @ normal**2) + UNIFORM * float((flat**2).mean())
    return first, second


def _prior_gram(design: Design, scale: Scale, first: list[float], second: list[float]) -> F64:
    mean = np.array([1.0, *first])
    gram = np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] = [1.0, *second]
    kin = ((i, term) for i, term in enumerate(design.terms) if term.by is not None or term.level is not None)
    for (i, one), (j, other) in permutations(kin, 2):
        if one.column != other.column:
            continue
        if one.by is not None and other.by is not None and one.by[0] == other.by[0]:
            (a, b), (c, d) = design.factors(one), design.factors(other)
            gram[i + 1, j + 1] = gram[a + 1, c + 1] * gram[b + 1, d + 1]
        elif one.by is None and other.by is None:
            # two levels of one column, of which a patient has at most one
            gram[i + 1, j + 1] = -scale.centre[i] * scale.centre[j] / (scale.spread[i] * scale.spread[j])
    return gram
