"""Where a measured outcome and its residuals are cut (docs/dp-newton.md, section 11).

The noise of a sum grows with the cut; a narrow one biases slopes where tails are long, however many patients there are.  So
beyond what normal values need the cut is as wide as leaves a message's noise below the sampling error: with much noise
nothing is lost by it, and with little noise nobody is cut.  Squares grow faster: the variance has a cut of its own.
"""

from __future__ import annotations

import math

import numpy as np

from ahh_federated.analyses.rounds import SUMS, Rounds
from ahh_federated.analyses.scaling import Standard, rounded

_OUTCOME = 4.0  # spreads of the outcome
_UNKNOWN, _KNOWN = 3.0, 4.0  # of residuals: spreads of the outcome, and once their own spread is known, of that
_FREE = 1.0  # of the sampling error
_SURE = 0.05  # how far noise may move the variance of residuals, as a part of it


def outcome_reach(rounds: Rounds, standard: Standard, centre: float, spread: float) -> float:
    """In spreads of the outcome, which has this centre and spread on [-1, 1]."""
    noise = math.sqrt(2) * standard.scale.radius * rounds.noise_of(SUMS)
    return _reach(_OUTCOME, noise, math.sqrt(standard.patients), (1 + abs(centre)) / spread)


def residual_reaches(
    rounds: Rounds, standard: Standard, spread: float, share: float, variance: float, error: float
) -> tuple[float, float]:
    """Likewise of residuals, in the gradient and in their variance, for a message with this share of the budget.

    variance: of the residuals, on the outcome's spread.  error: its standard error, infinite while it is a guess.
    """
    n, noise = standard.patients, math.hypot(standard.scale.radius, 1.0) * rounds.noise_of(share)
    least = min(_UNKNOWN, _KNOWN * math.sqrt(variance + 2 * error))
    reach = _reach(least, noise, math.sqrt(n * variance), 2 / spread)
    free = math.sqrt(_SURE * variance * n / noise) if noise > 0 else reach
    return reach, rounded(np.array(min(max(least, free), reach)))[0]


def _reach(least: float, noise: float, sampling: float, widest: float) -> float:
    """`noise` is that of a cut at one; nobody is beyond `widest`."""
    free = _FREE * sampling / noise if noise > 0 else widest
    return rounded(np.array(min(max(least, free), widest)))[0]
