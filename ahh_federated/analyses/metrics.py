"""What a table of outcome by binned risk says about a model: discrimination, calibration, net benefit.

Standard errors by the delta method: privacy noise is independent with one known variance in every cell, sampling
error is Poisson in every cell.  Bins carry what the released model implies about the risk inside them, which is
public and free of noise, so that weighting bins by it biases nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr

from ahh_federated.analyses.groups import EVERYBODY, Groups, figures_by_part
from ahh_federated.analyses.numbers import Number, number
from ahh_federated.core.cohorts import F64
from ahh_federated.core.releases import Pooled, Round

Metric = Callable[[F64], float]
FEWEST = 10.0  # events, and non-events, below which nothing is said of a partner
_SINGULAR = 1e14  # condition of a matrix that says nothing
_GROUP = 0.08  # least expected share of patients in a point of the calibration plot


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Public bins of the linear predictor: edges in logit, the mean logit and the share of patients expected in each."""

    edges: F64
    thresholds: tuple[float, ...]
    centre: F64
    share: F64

    @classmethod
    def of(cls, edges: tuple[float, ...], thresholds: tuple[float, ...], mean: float, sd: float) -> Bins:
        cuts = (np.array([-math.inf, *edges, math.inf]) - mean) / sd
        density = np.exp(-(np.clip(cuts, -40, 40) ** 2) / 2) / math.sqrt(2 * math.pi)
        share = np.maximum(np.diff(ndtr(cuts)), 1e-12)
        middle = np.clip(cuts, cuts[1] - 1, cuts[-2] + 1)
        inside = np.clip(-np.diff(density) / share, middle[:-1], middle[1:])
        return cls(np.array(edges), thresholds, mean + sd * inside, share)

    @property
    def risk(self) -> F64:
        return np.asarray(expit(self.centre))

    def above(self, threshold: float) -> F64:
        """1.0 for the bins at or above a declared threshold."""
        first = int(np.argmin(np.abs(self.edges - logit(threshold)))) + 1
        return (np.arange(len(self.centre)) >= first).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Score:
    """One table's figures.  The intervals include sampling error and privacy noise."""

    figures: dict[str, Number]
    decision: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        figures = {name: value.to_json() for name, value in self.figures.items()}
        return {**figures, "decision": self.decision}


def score(bins: Bins, total: Pooled) -> Score | None:
    """The figures of one table, or None when events or non-events are too few to say anything."""
    cells = total.values
    half = len(cells) // 2
    if _too_few(total):
        return None
    n = float(cells.sum())

    def figure(function: Metric, least: float = -math.inf, most: float = math.inf) -> Number:
        slope = gradient(function, cells)
        privacy = total.stderr * float(np.linalg.norm(slope))
        sampling = math.sqrt(float(slope**2 @ np.maximum(cells, 0.0)))
        return number(function(cells), privacy, sampling=sampling, least=least, most=most)

    weights = _calibration_weights(bins, n, total.stderr)
    se = total.stderr * math.sqrt(half)
    figures = {
        "n": number(n, math.sqrt(2) * se, least=0.0),
        "events": number(float(cells[half:].sum()), se, least=0.0),
        "auroc": figure(auroc, 0.0, 1.0),
        "brier": figure(lambda c: brier(bins, c), 0.0, 1.0),
        "observed_expected": figure(lambda c: observed_expected(bins, c), 0.0),
        "calibration_intercept": figure(lambda c: _in_the_large(bins, weights, c)),
        "calibration_slope": figure(lambda c: float(_recalibrate(bins, weights, c)[1])),
    }
    decision = []
    for t in bins.thresholds:
        above = bins.above(t)
        decision.append(
            {
                "threshold": t,
                "net_benefit": figure(partial(net_benefit, above, t)).to_json(),
                "treat_all": figure(partial(net_benefit, np.ones(half), t)).to_json(),
                "sensitivity": figure(partial(_sensitivity, above), 0.0, 1.0).to_json(),
                "ppv": figure(partial(_ppv, above), 0.0, 1.0).to_json(),
            }
        )
    return Score(figures, decision)


def _too_few(total: Pooled) -> bool:
    """Whether events or non-events are too few to say anything."""
    half = len(total.values) // 2
    noise = 3 * total.stderr * math.sqrt(half)
    return bool(min(total.values[:half].sum(), total.values[half:].sum()) < max(FEWEST, noise))


def auroc(cells: F64) -> float:
    """Probability that a patient with the event has the higher risk; ties within a bin count one half."""
    without, events = np.split(cells, 2)
    below = np.cumsum(without) - without / 2
    return float(events @ below / (events.sum() * without.sum()))


def binning_error(cells: F64) -> float:
    """The most that ties within bins can move the AUROC, either way."""
    without, events = np.split(np.maximum(cells, 0.0), 2)
    return float(events @ without / (2 * max(events.sum() * without.sum(), 1.0)))


def brier(bins: Bins, cells: F64) -> float:
    without, events = np.split(cells, 2)
    return float((events @ (1 - bins.risk) ** 2 + without @ bins.risk**2) / cells.sum())


def observed_expected(bins: Bins, cells: F64) -> float:
    without, events = np.split(cells, 2)
    return float(events.sum() / ((without + events) @ bins.risk))


def net_benefit(above: F64, threshold: float, cells: F64) -> float:
    """TP/n - FP/n * t/(1-t) (Vickers & Elkin, Med Decis Making 2006)."""
    without, events = np.split(cells, 2)
    return float((above @ events - above @ without * threshold / (1 - threshold)) / cells.sum())


def _sensitivity(above: F64, cells: F64) -> float:
    _, events = np.split(cells, 2)
    return float(above @ events / events.sum())


def _ppv(above: F64, cells: F64) -> float:
    without, events = np.split(cells, 2)
    flagged = above @ (without + events)
    return float(above @ events / flagged) if flagged > 1 else math.nan


def _calibration_weights(bins: Bins, n: float, s: float) -> F64:
    """Bins that hold mostly noise count for little.  Built from what is expected, not from the noisy cells."""
    variance = n * bins.share * bins.risk * (1 - bins.risk)
    return np.asarray(variance / (variance + s**2 * (1 + bins.risk**2) + 1e-9))


def _recalibrate(bins: Bins, weights: F64, cells: F64) -> F64:
    """Intercept and slope of a logistic regression of the outcome on the predicted logit."""
    without, events = np.split(cells, 2)
    design = np.stack([np.ones_like(bins.centre), bins.centre])
    beta = np.array([0.0, 1.0])
    for _ in range(50):
        p = expit(beta @ design)
        score = design @ (weights * (events - (without + events) * p))
        information = (design * (weights * np.maximum(without + events, 0.0) * p * (1 - p) + 1e-9)) @ design.T
        if not np.linalg.cond(information) < _SINGULAR:
            break
        step = np.clip(np.linalg.solve(information, score), -1, 1)
        beta = beta + step
        if float(np.abs(step).max()) < 1e-12:
            return np.asarray(beta)
    return np.full(2, math.nan)


def recalibrated(bins: Bins, total: Pooled) -> tuple[F64, F64] | None:
    """Intercept and slope of the outcome on the predicted logit, and how they move with each cell, shape (2, cells).

    None when events or non-events are too few, or nothing fits.
    """
    cells = total.values
    if _too_few(total):
        return None
    weights = _calibration_weights(bins, float(cells.sum()), total.stderr)
    value = _recalibrate(bins, weights, cells)
    slope = gradient(partial(_recalibrate, bins, weights), cells)
    return (value, slope) if np.isfinite(value).all() and np.isfinite(slope).all() else None


def _in_the_large(bins: Bins, weights: F64, cells: F64) -> float:
    """Calibration intercept with the slope held at one."""
    without, events = np.split(cells, 2)
    a = 0.0
    for _ in range(50):
        p = expit(a + bins.centre)
        score = float(weights @ (events - (without + events) * p))
        information = float(weights @ (np.maximum(without + events, 0.0) * p * (1 - p))) + 1e-9
        step = min(max(score / information, -1.0), 1.0)
        a += step
        if abs(step) < 1e-12:
            return a
    return math.nan


def gradient(function: Callable[[F64], Any], sums: F64) -> F64:
    """Central differences, half a patient either way, shape (..., sums)."""
    return np.stack([function(sums + step) - function(sums - step) for step in np.eye(len(sums)) / 2], axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """The answer of `scores` for a two-level outcome: overall, by partner and by subgroup, and the curves."""

    outcome: str
    bins: Bins
    replies: Round
    groups: Groups = EVERYBODY

    @property
    def total(self) -> Pooled:
        """Everybody at all partners."""
        return self.groups.split(self.replies.total())[0]

    def _figures(self, part: Pooled) -> dict[str, Any] | None:
        found = score(self.bins, part)
        return None if found is None else found.to_json()

    def to_json(self) -> dict[str, Any]:
        cells, s = self.total.values, self.total.stderr
        half = len(cells) // 2
        found = figures_by_part(self.replies, self.groups, self._figures)
        decision = found["overall"].get("decision", [])
        return {
            "family": "binary",
            "outcome": self.outcome,
            "n": number(float(cells.sum()), s * math.sqrt(2 * half), least=0.0).to_json(),
            "events": number(float(cells[half:].sum()), s * math.sqrt(half), least=0.0).to_json(),
            "binning_error_auroc": binning_error(cells),
            **found,
            "roc": self._roc() if decision else [],
            "calibration": self._calibration() if decision else [],
            "decision": [
                {"threshold": d["threshold"], "model": d["net_benefit"], "all": d["treat_all"], "none": 0.0} for d in decision
            ],
        }

    def _roc(self) -> list[dict[str, float]]:
        without, events = np.split(self.total.values, 2)
        fpr = np.concatenate([[0.0], np.cumsum(without[::-1]) / without.sum()])
        tpr = np.concatenate([[0.0], np.cumsum(events[::-1]) / events.sum()])
        clipped = (np.clip(np.maximum.accumulate(rate), 0.0, 1.0) for rate in (fpr, tpr))
        return [{"fpr": float(f), "tpr": float(t)} for f, t in zip(*clipped, strict=True)]

    def _calibration(self) -> list[dict[str, Any]]:
        """Observed against predicted risk in groups of neighbouring bins of enough expected patients."""
        without, events = np.split(self.total.values, 2)
        points, group = [], np.zeros(len(self.bins.share))
        for b in range(len(group)):
            group[b] = 1.0
            last = b == len(group) - 1
            if self.bins.share @ group >= _GROUP or last:
                point = self._point(group, without, events)
                points += [point] if point else []
                group = np.zeros(len(group))
        return points

    def _point(self, group: F64, without: F64, events: F64) -> dict[str, Any] | None:
        n, k = float(group @ (without + events)), float(group @ events)
        s = self.total.stderr * math.sqrt(group.sum())
        if n <= max(FEWEST, 2 * s):
            return None
        p = k / n
        sampling = math.sqrt(max(p * (1 - p), 0.0) / n)
        observed = number(p, s * math.hypot(1 - p, p) / n, sampling=sampling, least=0.0, most=1.0)
        predicted = float((group * self.bins.share) @ self.bins.risk / (group @ self.bins.share))
        return {"predicted": predicted, "observed": observed.to_json()}
