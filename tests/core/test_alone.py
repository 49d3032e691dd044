"""What a study costs by itself: never below the exact epsilon, within a hundredth of it, and never above the ledger's."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from ahh_federated.core import sampling
from ahh_federated.core.alone import epsilon_alone
from ahh_federated.core.costs import SAMPLED, Event, Spent
from ahh_federated.core.sampling import RATE_ONE, ROUNDING, Draws
from tests.core.test_sampling import ORDINARY, ROW, composed, plan

DELTA = 1e-5
DEAR = [*ORDINARY, (0.1, 2.0, 10), (0.02, 1.0, 50)]
every_plan = pytest.mark.parametrize(("q", "noise", "count"), DEAR)


def plain(mu: float) -> Event:
    return Event(ROW, round(ROW / mu), 1)


def exactly(q: float, noise: float, count: int, mu: float, up: float = 0.5) -> float:
    """What a plan beside a mu-Gaussian-DP mechanism costs: a product's curve is a mean of the other's over the losses.

    `up`: of the step by which every loss was rounded down, what is added again; 0 for a bound from below.
    """

    def delta(epsilon: float) -> float:
        found = []
        for losses, chances in composed(q, noise, count):
            left = epsilon - losses - up * count * (losses[1] - losses[0])
            found.append(float(chances @ (ndtr(mu / 2 - left / mu) - np.exp(left + log_ndtr(-mu / 2 - left / mu)))))
        return max(found)

    return float(brentq(lambda epsilon: delta(epsilon) - DELTA, 0.0, 20.0))


@every_plan
def test_a_plan_alone_costs_its_exact_epsilon(q: float, noise: float, count: int) -> None:
    only = [plan(q, noise, count, width=1)]
    alone, tiny = epsilon_alone(only, DELTA), 1e-3  # the least that can be beside it
    assert alone == pytest.approx(exactly(q, noise, count, tiny), rel=0.003)
    assert alone < Spent.of(only).epsilon(DELTA)


@pytest.mark.parametrize("mu", [0.05, 0.3, 1.2])
@every_plan
def test_beside_other_releases_it_is_exact_as_well(q: float, noise: float, count: int, mu: float) -> None:
    alone = epsilon_alone([plain(mu), plan(q, noise, count, width=1)], DELTA)
    assert exactly(q, noise, count, mu, up=0.0) <= alone
    assert alone == pytest.approx(exactly(q, noise, count, mu), rel=0.003)


def test_two_plans_cost_at_least_what_the_dearer_does_and_less_than_in_the_ledger() -> None:
    one, other = plan(0.05, 2.0, 200), plan(0.1, 2.0, 10)
    both = epsilon_alone([one, other], DELTA)
    assert epsilon_alone([one], DELTA) < both < Spent.of([one, other]).epsilon(DELTA)


def test_a_plan_cut_in_two_costs_the_same() -> None:
    halves = [plan(0.05, 2.0, 100), plan(0.05, 2.0, 100)]
    assert epsilon_alone(halves, DELTA) == pytest.approx(epsilon_alone([plan(0.05, 2.0, 200)], DELTA), rel=1e-3)


def test_the_order_does_not_matter() -> None:
    events = [plain(0.3), plan(0.05, 2.0, 200), plain(0.2), plan(0.1, 2.0, 10)]
    assert len({epsilon_alone(each, DELTA) for each in permutations(events)}) == 1


@pytest.mark.parametrize(
    "events",
    [
        [plain(0.3), plain(1.0)],
        [],
        [Event(ROW, ROW, 3, SAMPLED, RATE_ONE, 7)],
        [Event(ROW, ROW // 5, 3, SAMPLED, RATE_ONE // 2, 2)],
    ],
    ids=["plain", "nothing", "everybody", "hardly any noise"],
)
def test_without_samples_it_is_the_ledgers(events: list[Event]) -> None:
    assert epsilon_alone(events, DELTA) == Spent.of(events).epsilon(DELTA)


def test_later_messages_of_a_plan_cost_nothing() -> None:
    first = plan(0.1, 2.0, 10)
    later = [Event(ROW, first.sigma, first.width, SAMPLED, first.rate, 10, place) for place in range(10)]
    assert epsilon_alone(later, DELTA) == epsilon_alone([first], DELTA)


def test_composing_two_laws_in_double_precision_errs_by_less_than_is_charged() -> None:
    draws = [Draws(2.0, 0.05, 200), Draws(3.0, 1.0, 1)]
    interval = sampling._interval(draws)
    one, other = (
        sampling._accountant()
        .from_gaussian_mechanism(each.noise, sampling_prob=each.rate, value_discretization_interval=interval)
        .self_compose(each.count)
        for each in draws
    )
    whole = one.compose(other)
    for name in ("_pmf_remove", "_pmf_add"):
        a, b, c = (getattr(each, name).to_dense_pmf() for each in (one, other, whole))
        exact = np.convolve(a._probs.astype(np.longdouble), b._probs.astype(np.longdouble))
        exact = exact[c._lower_loss - a._lower_loss - b._lower_loss :][: len(c._probs)]
        errors = np.cumsum((c._probs - exact)[::-1])  # of the mass beyond each loss
        assert np.abs(errors[:-1]).max() <= float(ROUNDING) / 4
        assert 0 < errors[-1] <= 1e-15  # the lower tail, cut and put back at its end


def test_a_coarse_grid_is_charged() -> None:
    fine, coarse = plan(0.1, 2.0, 10, width=1), plan(0.1, 2.0, 10, width=10**12)
    assert epsilon_alone([coarse], DELTA) > 1.001 * epsilon_alone([fine], DELTA)
    assert epsilon_alone([plan(0.1, 2.0, 10, width=10**20)], DELTA) == math.inf
