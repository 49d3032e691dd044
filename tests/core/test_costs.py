"""Privacy cost: the closed form against integration and a second accountant; sums that never round in our favour."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ahh_federated.core.costs import RESERVE, SLACK, Budget, Event, Spent, delta_of, epsilon_of, mu_of, sigma_for
from ahh_federated.core.noise import MAX_SIGMA, MIN_SIGMA

ROW, SQUARE = 2**20, 2**32
epsilons = st.floats(1e-3, 10) | st.sampled_from([0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0])
deltas = st.floats(1e-12, 1e-2) | st.sampled_from([1e-12, 1e-9, 1e-6, 1e-5, 1e-3])
mus = st.floats(1e-3, 8)


def exact_delta(epsilon: float, mu: float) -> mpmath.mpf:
    """Dong, Roth and Su (2022), Cor. 2.13, with 60 digits."""
    with mpmath.workdps(60):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        return mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2)


@settings(max_examples=100, deadline=None)
@given(epsilon=epsilons, mu=mus)
def test_delta_is_the_closed_form(epsilon: float, mu: float) -> None:
    assert delta_of(epsilon, mu) == pytest.approx(float(exact_delta(epsilon, mu)), rel=1e-8, abs=1e-15)


@pytest.mark.parametrize(("epsilon", "mu"), [(0.0, 0.3), (0.5, 0.2), (1.0, 0.3), (1.0, 1.0), (3.0, 1.0), (6.0, 2.0)])
def test_delta_is_the_hockey_stick_integral(epsilon: float, mu: float) -> None:
    """The integral of (p - e^epsilon q)+ for two normal laws a distance mu apart."""

    def above(x: mpmath.mpf) -> mpmath.mpf:
        return mpmath.npdf(x, mu, 1) - mpmath.exp(epsilon) * mpmath.npdf(x, 0, 1)

    start = epsilon / mu + mu / 2
    integral = mpmath.quad(above, [start, start + 1, start + 4, start + 40])
    assert delta_of(epsilon, mu) == pytest.approx(float(integral), rel=1e-7)


@settings(max_examples=60, deadline=None)
@given(epsilon=epsilons, delta=deltas)
def test_the_mu_of_a_budget_never_costs_more_than_the_budget(epsilon: float, delta: float) -> None:
    mu = mu_of(epsilon, delta)
    assert exact_delta(epsilon, mu) <= mpmath.mpf(delta)
    assert exact_delta(epsilon, mu * (1 + 1e-6)) > mpmath.mpf(delta)


@settings(max_examples=60, deadline=None)
@given(mu=mus, delta=deltas)
def test_an_epsilon_is_rounded_up(mu: float, delta: float) -> None:
    epsilon = epsilon_of(mu, delta)
    assert exact_delta(epsilon, mu) <= mpmath.mpf(delta) * (1 + mpmath.mpf(10) ** -12)
    if epsilon > 1e-3:
        assert exact_delta(epsilon * (1 - 1e-6), mu) > mpmath.mpf(delta)


@pytest.mark.parametrize(("mu", "delta"), [(0.05, 1e-6), (0.2, 1e-4), (0.3, 1e-6), (1.0, 1e-5), (2.0, 1e-6), (4.0, 1e-8)])
def test_a_second_accountant_agrees(mu: float, delta: float) -> None:
    """dp_accounting's privacy loss distribution is pessimistic, so ours is at most as large, and never below the truth."""
    pld = privacy_loss_distribution.from_gaussian_mechanism(1 / mu, value_discretization_interval=1e-4)
    theirs = pld.get_epsilon_for_delta(delta)
    ours = epsilon_of(mu, delta)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert exact_delta(ours, mu) <= mpmath.mpf(delta)


def test_composition_agrees_with_the_second_accountant() -> None:
    sigmas = [3 * ROW, 5 * ROW, 2 * ROW, 9 * ROW]
    spent = Spent.of(Event(ROW, sigma, 10) for sigma in sigmas)
    parts = [
        privacy_loss_distribution.from_gaussian_mechanism(sigma / ROW, value_discretization_interval=1e-4) for sigma in sigmas
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.compose(part)
    assert spent.epsilon(1e-6) == pytest.approx(whole.get_epsilon_for_delta(1e-6), rel=0.01)


@settings(max_examples=60, deadline=None)
@given(epsilon=epsilons, delta=deltas, more=st.floats(1.01, 3))
def test_costs_are_monotone(epsilon: float, delta: float, more: float) -> None:
    mu = mu_of(epsilon, delta)
    assert mu_of(epsilon * more, delta) > mu
    assert mu_of(epsilon, min(delta * more, 0.09)) > mu
    assert epsilon_of(mu * more, delta) > epsilon_of(mu, delta)
    assert epsilon_of(mu, min(delta * more, 0.09)) <= epsilon_of(mu, delta)
    assert delta_of(epsilon * more, mu) < delta_of(epsilon, mu)


def test_nothing_costs_nothing_and_no_delta_costs_everything() -> None:
    assert Spent().epsilon(1e-6) == 0.0
    assert delta_of(1.0, 0.0) == 0.0
    assert epsilon_of(0.0, 1e-6) == 0.0
    assert epsilon_of(0.5, 0.0) == math.inf
    assert epsilon_of(0.5, -1e-9) == math.inf
    assert epsilon_of(1e-7, 1e-6) == 0.0


events = st.builds(Event, st.sampled_from([ROW, SQUARE]), st.integers(MIN_SIGMA, MAX_SIGMA), st.integers(1, 10**5))


@settings(max_examples=60, deadline=None)
@given(paid=st.lists(events, min_size=1, max_size=12), data=st.data())
def test_what_was_spent_does_not_depend_on_the_order(paid: list[Event], data: st.DataObject) -> None:
    other = data.draw(st.permutations(paid))
    assert Spent.of(other) == Spent.of(paid)
    assert Spent.of(paid).mu_squared == sum(Fraction(event.sensitivity, event.sigma) ** 2 for event in paid)


@settings(max_examples=60, deadline=None)
@given(paid=st.lists(events, min_size=1, max_size=6))
def test_every_event_adds_cost_and_slack(paid: list[Event]) -> None:
    spent = [Spent.of(paid[:k]) for k in range(len(paid) + 1)]
    for before, after in itertools.pairwise(spent):
        assert after.mu_squared > before.mu_squared
        assert after.slack > before.slack
    assert spent[-1].slack == sum(Fraction(1, 20) * event.width / Fraction(event.sigma) ** 2 for event in paid)


def test_the_slack_of_the_grid_is_charged_to_delta() -> None:
    wide, narrow = Event(ROW, 2 * ROW, 10**6), Event(ROW, 2 * ROW, 1)
    assert Spent.of([wide]).epsilon(1e-6) > Spent.of([narrow]).epsilon(1e-6)
    spent = Spent.of([wide])
    epsilon = spent.epsilon(1e-6)
    charged = (1 + math.exp(epsilon)) * float(spent.slack)
    assert 0 < charged < 1e-6
    assert exact_delta(epsilon, 0.5) + charged <= 1e-6 * (1 + 1e-12)


def test_a_slack_larger_than_delta_is_never_free() -> None:
    spent = Spent.of([Event(ROW, ROW, 10**9)])
    assert spent.slack > Fraction(1, 10**8)
    assert spent.epsilon(1e-8) == math.inf
    assert not Spent.of([Event(1, MIN_SIGMA, 100)]).within(Budget(1.0, 1e-6))


@settings(max_examples=60, deadline=None)
@given(epsilon=epsilons, delta=deltas)
def test_what_is_within_a_budget_has_the_budgets_epsilon(epsilon: float, delta: float) -> None:
    """mu and slack at their very limits are still (epsilon, delta): the two parts of delta add up to less than it."""
    budget = Budget(epsilon, delta)
    slack = (1 + mpmath.exp(mpmath.mpf(epsilon))) * mpmath.mpf(budget.slack.numerator) / budget.slack.denominator
    total = exact_delta(epsilon, budget.mu) + slack
    assert total <= mpmath.mpf(delta) * (1 + mpmath.mpf(10) ** -15)
    assert slack >= RESERVE * delta * 0.999


shares_of = st.lists(st.floats(0.001, 1) | st.sampled_from([0.02, 0.08, 0.12, 0.25, 1.0]), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(epsilon=epsilons, delta=deltas, weights=shares_of, sensitivity=st.sampled_from([ROW, SQUARE]))
@example(epsilon=1.0, delta=1e-6, weights=[1.0, 1.0], sensitivity=ROW)
def test_a_schedule_priced_by_its_shares_stays_within_its_budget(
    epsilon: float, delta: float, weights: list[float], sensitivity: int
) -> None:
    """Every share is priced as a study prices it: mu times the root of the share, sigma rounded up."""
    budget = Budget(epsilon, delta)
    total = math.fsum(weights)
    shares = [weight / total for weight in weights]
    sigmas = [sigma_for(sensitivity, budget.mu * share**0.5) for share in shares]
    assume(max(sigmas) <= MAX_SIGMA)
    spent = Spent.of(Event(sensitivity, sigma, 1) for sigma in sigmas)
    assert spent.mu_squared <= budget.mu_squared
    if spent.within(budget):
        assert spent.epsilon(delta) <= epsilon * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(sensitivity=st.sampled_from([1, ROW, SQUARE]) | st.integers(1, SQUARE), mu=st.floats(1e-4, 100))
def test_the_noise_scale_is_the_smallest_that_pays(sensitivity: int, mu: float) -> None:
    sigma = sigma_for(sensitivity, mu)
    assert sigma >= MIN_SIGMA
    assert Fraction(sensitivity, sigma) <= Fraction(mu)
    assert sigma == MIN_SIGMA or Fraction(sensitivity, sigma - 1) > Fraction(mu)


@settings(max_examples=60, deadline=None)
@given(paid=st.lists(events, max_size=6), extra=events, epsilon=epsilons, delta=deltas)
def test_a_budget_once_exceeded_stays_exceeded(paid: list[Event], extra: Event, epsilon: float, delta: float) -> None:
    budget = Budget(epsilon, delta)
    if not Spent.of(paid).within(budget):
        assert not Spent.of([*paid, extra]).within(budget)


@pytest.mark.parametrize("epsilon", [0.001, 0.5, 3.0, 10.0])
def test_whatever_a_budget_allows_has_an_epsilon_within_it(epsilon: float) -> None:
    budget = Budget(epsilon, 1e-6)
    spent = Spent(budget.mu_squared, budget.slack)
    assert spent.within(budget)
    assert epsilon_of(budget.mu, 1e-6) < spent.epsilon(1e-6) <= epsilon * (1 + 1e-9)
    assert not Spent(budget.mu_squared + Fraction(1, 10**40), budget.slack).within(budget)
    assert not Spent(budget.mu_squared, budget.slack + Fraction(1, 10**40)).within(budget)


@pytest.mark.parametrize("bad", [(0, 2**20, 1), (1, 2**20, 0), (1, MIN_SIGMA - 1, 1), (1, MAX_SIGMA + 1, 1), (-1, 2**20, 1)])
def test_an_event_out_of_range_is_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="an event needs"):
        Event(*bad)


def test_an_unknown_mechanism_has_no_price() -> None:
    with pytest.raises(ValueError, match="unknown mechanism"):
        Event(1, 2**20, 1, "laplace/1")


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [
        (0.0, 1e-6),
        (-1.0, 1e-6),
        (20.1, 1e-6),
        (0.0009, 1e-6),
        (1.0, 1e-16),
        (math.nan, 1e-6),
        (1.0, 0.0),
        (1.0, 0.1),
        (1.0, math.nan),
        (math.inf, 1e-6),
    ],
)
def test_a_budget_out_of_range_is_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="a budget needs"):
        Budget(epsilon, delta)


def test_the_slack_is_the_proven_one() -> None:
    """docs/proofs/noise.md, section 3: total variation at most 0.05 / sigma**2 per coordinate."""
    assert Fraction(1, 20) == SLACK
