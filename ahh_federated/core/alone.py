"""What events cost a patient if nothing else is ever asked: an exact epsilon, where the ledger's must hold beside anything.

The ledger (core/costs.py) gives a plan of sampled sums one mu that is right at every delta, so that it adds up with whatever
else is asked, by whom and in view of what.  Events that are all fixed before the first of them need no such price: their privacy
loss distributions compose as they are (docs/proofs/sampling.md, section 7).  Google's `dp_accounting` does it, rounding up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from ahh_federated.core.costs import Event, Spent, covered
from ahh_federated.core.sampling import LEAST_NOISE, RATE_ONE, ROUNDING, Draws, composed


def epsilon_alone(events: Iterable[Event], delta: float) -> float:
    """The epsilon of all these events at this delta, rounded up: never more than `Spent.epsilon`, and equal without samples.

    Raises:
        Misuse: when there are sampled sums and the accountant is not installed.
    """
    paying = [event for event in events if not event.place]
    spent, sampled = Spent.of(paying), [event for event in paying if _is_sampled(event)]
    if not sampled:
        return spent.epsilon(delta)
    draws = sorted(Draws(event.sigma / event.sensitivity, event.rate / RATE_ONE, event.count) for event in sampled)
    mu_squared = Spent.of(event for event in paying if not _is_sampled(event)).mu_squared
    if mu_squared:  # Gaussian releases compose to one, which is a draw in which everybody is
        draws.append(Draws((1 - 1e-12) / math.sqrt(mu_squared), 1.0, 1))
    slack = sum((event.grid_slack for event in paying), Fraction(0)) + ROUNDING * sum(1 + each.count for each in draws)
    losses = _composed(tuple(draws))
    return min(spent.epsilon(delta), covered(lambda left: float(losses.get_epsilon_for_delta(left)), slack, delta))


def _is_sampled(event: Event) -> bool:
    return event.rate < RATE_ONE and event.sigma >= LEAST_NOISE * event.sensitivity


_composed = lru_cache(maxsize=64)(composed)
