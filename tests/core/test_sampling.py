"""The price of sampled plans: never below the exact one, found in ways of our own, and seldom far above it."""

from __future__ import annotations

import builtins
import math
import subprocess
import sys
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.fft
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm

from ahh_federated.core import sampling
from ahh_federated.core.costs import SAMPLED, SLACK, Budget, Event, Spent, delta_of, epsilon_of, plan_sigma
from ahh_federated.core.noise import MAX_SIGMA, MIN_SIGMA
from ahh_federated.core.sampling import MOST_SUMS, RATE_ONE, ROUNDING, TAIL, Draws, plan_noise, plan_price
from ahh_federated.errors import Misuse

ROW = 1 << 20
ORDINARY = [(0.05, 1.0, 200), (0.05, 2.0, 200), (0.05, 4.0, 200), (0.1, 2.0, 100), (0.01, 1.0, 1000), (0.25, 2.0, 60)]


def rate(q: float) -> int:
    return round(q * RATE_ONE)


def plan(q: float, noise: float, count: int, width: int = 100) -> Event:
    return Event(ROW, round(noise * ROW), width, SAMPLED, rate(q), count)


def priced(q: float, noise: float, count: int) -> tuple[float, float]:
    """mu and the slack."""
    mu_squared, slack = plan_price(ROW, round(noise * ROW), rate(q), count)
    return math.sqrt(mu_squared), float(slack)


# One step, exactly


def exactly_one(q: float, noise: float, epsilon: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Both hockey-stick divergences of (1 - q) N(0, s^2) + q N(1, s^2) and N(0, s^2), with 40 digits."""
    with mpmath.workdps(40):
        s, p, e = mpmath.mpf(noise), mpmath.mpf(rate(q)) / RATE_ONE, mpmath.exp(epsilon)

        def crossing(ratio: mpmath.mpf) -> mpmath.mpf:
            return s**2 * mpmath.log(ratio) + mpmath.mpf(1) / 2

        high = crossing((e - 1 + p) / p)
        removed = (1 - p) * mpmath.ncdf(-high / s) + p * mpmath.ncdf((1 - high) / s) - e * mpmath.ncdf(-high / s)
        if 1 / e <= 1 - p:
            return removed, mpmath.mpf(0)
        low = crossing((1 / e - 1 + p) / p)
        return removed, mpmath.ncdf(low / s) - e * ((1 - p) * mpmath.ncdf(low / s) + p * mpmath.ncdf((low - 1) / s))


@pytest.mark.parametrize(("q", "noise", "epsilon"), [(0.1, 1.0, 0.05), (0.1, 1.0, 0.5), (0.5, 0.7, 1.0), (0.01, 2.0, 0.01)])
def test_one_step_is_the_integral_of_what_one_law_has_beyond_the_other(q: float, noise: float, epsilon: float) -> None:
    p, x = rate(q) / RATE_ONE, np.linspace(-14 * noise, 14 * noise + 1, 400_001)
    without = norm.pdf(x, 0, noise)
    having = (1 - p) * without + p * norm.pdf(x, 1, noise)
    for exact, (first, second) in zip(exactly_one(q, noise, epsilon), ((having, without), (without, having)), strict=True):
        integral = np.trapezoid(np.maximum(first - math.exp(epsilon) * second, 0.0), x)
        assert float(exact) == pytest.approx(integral, rel=1e-5, abs=1e-12)


@settings(max_examples=12, deadline=None)
@given(q=st.floats(1e-4, 0.9), noise=st.floats(0.35, 50), place=st.floats(0, 1))
def test_one_step_is_never_priced_below_its_divergences(q: float, noise: float, place: float) -> None:
    mu, slack = priced(q, noise, 1)
    for epsilon in np.concatenate([[0.0, 1e-6], (np.linspace(0, 1, 30) + place / 30) * (mu**2 / 2 + 8 * mu)]):
        with mpmath.workdps(40):
            e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
            bound = mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2) + mpmath.mpf(slack)
        assert max(exactly_one(q, noise, epsilon)) <= bound


# Many steps, by a composition of our own that rounds every loss down


@lru_cache
def composed(q: float, noise: float, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The losses, on a grid and rounded down, and their chances: with a patient against without, and the reverse."""
    p, spread = rate(q) / RATE_ONE, rate(q) / RATE_ONE * math.sqrt(math.expm1(noise**-2))
    step = math.sqrt(count) * spread / 200 / max(1.0, count / 100)
    longest = math.log1p(p * math.expm1((0.5 + 9 * noise) / noise**2))
    edges = np.arange(math.floor(math.log1p(-p) / step), math.ceil(longest / step) + 2) * step
    x = noise**2 * np.log(np.maximum((np.exp(edges) - 1 + p) / p, 1e-300)) + 0.5  # where the loss passes an edge
    having = np.diff((1 - p) * ndtr(x / noise) + p * ndtr((x - 1) / noise))
    lacking = np.diff(ndtr(x / noise))
    found = []
    for losses, chances in ((edges[:-1], having), (-edges[:0:-1], lacking[::-1])):
        size = 1 << math.ceil(math.log2(60 * math.sqrt(count) * spread / step + 4 * len(chances)))
        whole = scipy.fft.irfft(scipy.fft.rfft(chances, size) ** count, size)
        start = round(losses[0] / step) * count
        first = round(count * float(chances @ losses) / step) - start - size // 2  # the window lies around the mean
        places = first + np.arange(size)
        found.append(((places + start) * step, whole[places % size]))
    return found


def least_deltas(q: float, noise: float, count: int, epsilons: np.ndarray) -> np.ndarray:
    """What the larger divergence is at least."""
    found = [
        [float(chances[losses > e] @ -np.expm1(e - losses[losses > e])) for e in epsilons]
        for losses, chances in composed(q, noise, count)
    ]
    return np.max(found, axis=0)


@pytest.mark.parametrize(("q", "noise", "count"), [*ORDINARY, (0.1, 2.0, 5), (0.02, 1.0, 50), (0.5, 3.0, 20)])
def test_many_steps_are_never_priced_below_the_least_they_cost(q: float, noise: float, count: int) -> None:
    mu, slack = priced(q, noise, count)
    epsilons = np.linspace(0.0, epsilon_of(mu, 1e-10), 40)
    least = least_deltas(q, noise, count, epsilons)
    assert np.all(least <= np.array([delta_of(float(e), mu) for e in epsilons]) + slack)


@pytest.mark.parametrize(("q", "noise", "count"), ORDINARY)
def test_what_is_charged_is_near_the_exact_epsilon(q: float, noise: float, count: int) -> None:
    delta = 1e-5
    charged = Spent.of([plan(q, noise, count, width=1)]).epsilon(delta)
    least = brentq(lambda e: float(least_deltas(q, noise, count, np.array([e]))[0]) - delta, 0.0, charged)
    assert least <= charged <= 1.3 * least


@pytest.mark.parametrize(("q", "noise", "count"), ORDINARY)
def test_what_is_charged_is_near_renyis_bound_and_often_below(q: float, noise: float, count: int) -> None:
    accountant = rdp.RdpAccountant()
    accountant.compose(PoissonSampledDpEvent(rate(q) / RATE_ONE, GaussianDpEvent(noise)), count)
    assert Spent.of([plan(q, noise, count, width=1)]).epsilon(1e-5) <= 1.1 * accountant.get_epsilon(1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Optimal order:UserWarning")
@pytest.mark.parametrize(("q", "noise", "count"), ORDINARY)
def test_opacus_agrees(q: float, noise: float, count: int) -> None:
    accountants = pytest.importorskip("opacus.accountants")
    accountant = accountants.PRVAccountant()
    accountant.history = [(noise, rate(q) / RATE_ONE, count)]
    theirs = accountant.get_epsilon(1e-5)
    charged = Spent.of([plan(q, noise, count, width=1)]).epsilon(1e-5)
    assert 0.98 * theirs <= charged <= 1.3 * theirs


@pytest.mark.parametrize(("q", "noise", "count"), [(0.05, 1.0, 200), (0.01, 1.0, 1000)])
def test_composing_in_double_precision_errs_by_less_than_is_charged(q: float, noise: float, count: int) -> None:
    accountant = sampling._accountant()
    one = accountant.from_gaussian_mechanism(
        noise, sampling_prob=q, value_discretization_interval=sampling._interval([Draws(noise, q, count)])
    )
    for name in ("_pmf_remove", "_pmf_add"):
        single, whole = (getattr(each, name).to_dense_pmf() for each in (one, one.self_compose(count)))
        size = 1 << math.ceil(math.log2(4 * len(whole._probs) + 2 * len(single._probs)))
        padded = np.zeros(size, dtype=np.longdouble)
        padded[: len(single._probs)] = single._probs
        power = scipy.fft.ifft(scipy.fft.fft(padded) ** count).real
        exact = power[(np.arange(len(whole._probs)) + whole._lower_loss - count * single._lower_loss) % size]
        errors = np.abs(np.cumsum((whole._probs - exact)[::-1]))  # of the mass beyond each loss
        assert errors.max() <= count * float(ROUNDING) / 4


@pytest.mark.parametrize(("q", "noise", "count"), [(0.5, 1e3, 100), (0.01, 1e2, 100), (0.5, 1e6, 1)])
def test_much_noise_costs_what_the_central_limit_says(q: float, noise: float, count: int) -> None:
    """Dong, Roth & Su (2022), Cor. 5.4: mu = q sqrt(count (exp(1 / noise^2) - 1))."""
    assert 1 <= priced(q, noise, count)[0] / (rate(q) / RATE_ONE * math.sqrt(count * math.expm1(noise**-2))) <= 1.005


# The noise that a budget pays for


@pytest.mark.parametrize(("q", "count", "mu"), [(0.05, 200, 0.3), (0.999, 3, 1.0)])
def test_the_noise_is_the_smallest_on_its_grid_that_pays(q: float, count: int, mu: float) -> None:
    sigma = plan_sigma(ROW, mu, rate(q), count)
    assert Event(ROW, sigma, 1, SAMPLED, rate(q), count).mu_squared <= Fraction(mu) ** 2
    finer = math.floor(sigma * (1 - 2 / sampling._GRID))
    assert Event(ROW, finer, 1, SAMPLED, rate(q), count).mu_squared > Fraction(mu) ** 2


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, MOST_SUMS), mu=st.floats(1e-3, 5), sensitivity=st.sampled_from([1, ROW, 1 << 32]))
def test_without_sampling_a_plan_is_so_many_plain_releases(count: int, mu: float, sensitivity: int) -> None:
    sigma = plan_noise(sensitivity, mu, RATE_ONE, count)
    price, slack = plan_price(sensitivity, sigma, RATE_ONE, count)
    assert price == count * Fraction(sensitivity, sigma) ** 2 <= Fraction(mu) ** 2
    assert slack == 0
    assert sigma == 1 or count * Fraction(sensitivity, sigma - 1) ** 2 > Fraction(mu) ** 2


@pytest.mark.parametrize(("sensitivity", "mu"), [(1, 2.0), (1, 0.2), (ROW, 50.0), (ROW, 1e-7)])
def test_the_search_ends_wherever_it_begins(sensitivity: int, mu: float) -> None:
    sigma = plan_noise(sensitivity, mu, 1, 2)
    assert plan_price(sensitivity, sigma, 1, 2)[0] <= Fraction(mu) ** 2


def test_without_sampling_no_accountant_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_accountant", lambda: pytest.fail("asked"))
    assert plan_sigma(ROW, 0.5, RATE_ONE, 7) == plan_noise(ROW, 0.5, RATE_ONE, 7)


def test_sampling_never_costs_more_and_more_of_anything_does() -> None:
    for q, noise, count in ((0.01, 1.0, 40), (0.3, 3.0, 4)):
        mu = priced(q, noise, count)[0]
        assert mu <= priced(1.0, noise, count)[0]
        assert priced(q, 1.3 * noise, count)[0] < mu
        assert priced(1.3 * q, noise, count)[0] > mu
        assert priced(q, noise, 2 * count)[0] > mu


def test_a_price_is_a_short_fraction_that_does_not_depend_on_the_last_bit() -> None:
    q, noise, count = ORDINARY[1]
    found = plan_price(ROW, round(noise * ROW), rate(q), count)
    plan_price.cache_clear()
    assert plan_price(ROW, round(noise * ROW), rate(q), count) == found
    assert max(math.isqrt(found[0].numerator).bit_length(), math.isqrt(found[0].denominator).bit_length()) <= 40
    assert found[1] == TAIL + count * ROUNDING


def test_noise_that_nothing_can_pay_for_has_the_unsampled_price() -> None:
    assert plan_price(ROW, ROW // 4, rate(0.01), 3) == (Fraction(3 * 16), 0)


def test_without_the_accountant_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def lacking(name: str, *rest: Any, **others: Any) -> Any:
        if name.startswith("dp_accounting"):
            raise ImportError(name)
        return plain(name, *rest, **others)

    plan_price.cache_clear()
    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(Misuse, match=r"pip install 'ahh-federated\[neural\]'"):
        _ = plan(0.1, 2.0, 10).mu_squared


def test_nothing_else_needs_the_accountant() -> None:
    code = "import ahh_federated.node.ledger, ahh_federated.study, sys; assert 'dp_accounting' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Events of plans


def test_the_first_message_pays_for_all() -> None:
    first = plan(0.05, 2.0, 200)
    whole = Spent.of(Event(ROW, 2 * ROW, 100, SAMPLED, rate(0.05), 200, place) for place in range(200))
    assert whole == Spent.of([first])
    assert whole.mu_squared == plan_price(ROW, 2 * ROW, rate(0.05), 200)[0]
    assert whole.slack == SLACK * 142 / (2 * ROW) ** 2 + TAIL + 200 * ROUNDING  # 142 is the root of 200 x 100, rounded up


def test_a_plan_fits_the_budget_it_was_made_for() -> None:
    budget = Budget(1.0, 1e-6)
    event = Event(ROW, plan_sigma(ROW, budget.mu, rate(0.05), 200), 1000, SAMPLED, rate(0.05), 200)
    assert Spent.of([event]).within(budget)
    assert 0.97 < Spent.of([event]).epsilon(1e-6) <= 1.0
    assert not Spent.of([event, event]).within(budget)


@pytest.mark.parametrize(
    "bad",
    [
        {"rate": 0},
        {"rate": RATE_ONE + 1},
        {"count": 0},
        {"count": MOST_SUMS + 1},
        {"place": 10},
        {"place": -1},
        {"steps": 0},
        {"steps": 11},
        {"place": 2, "steps": 4},
        {"sigma": MIN_SIGMA - 1},
        {"sigma": MAX_SIGMA + 1},
        {"width": 0},
    ],
    ids=str,
)
def test_an_event_of_a_plan_out_of_range_is_refused(bad: dict[str, int]) -> None:
    fits: dict[str, Any] = {"sensitivity": ROW, "sigma": ROW, "width": 1, "mechanism": SAMPLED, "rate": 9, "count": 10}
    Event(**fits)
    with pytest.raises(ValueError, match=r"needs|lie within"):
        Event(**{**fits, **bad})


@pytest.mark.parametrize("more", [{"rate": 9}, {"count": 2}, {"place": 1, "count": 2}, {"steps": 2, "count": 2}])
def test_a_plain_event_belongs_to_no_plan(more: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="belongs to a plan"):
        Event(ROW, ROW, 1, **more)


# docs/proofs/sampling.md, section 4


@pytest.mark.parametrize("sigma", [8, 32])
def test_the_grid_of_a_plan_grows_as_the_root(sigma: int) -> None:
    """The chi-squared distance of the rounded from the discrete Gaussian is at most 2.03 / (576 sigma^4)."""
    k = np.arange(-13 * sigma, 13 * sigma + 1, dtype=np.longdouble)
    with mpmath.workdps(40):
        far = [mpmath.mpf(float(abs(each))) / sigma for each in k]
        half = mpmath.mpf(1) / (2 * sigma)
        rounded = [mpmath.ncdf(half - each) - mpmath.ncdf(-half - each) for each in far]
        density = [mpmath.npdf(each) / sigma for each in far]
        distance = mpmath.fsum((r - d) ** 2 / d for r, d in zip(rounded, density, strict=True))
        assert distance <= mpmath.mpf("2.03") / 576 / sigma**4
        assert mpmath.sqrt(distance / 2) <= mpmath.mpf(SLACK.numerator) / SLACK.denominator / sigma**2


def test_the_integral_behind_that_bound() -> None:
    sigma = 1024
    z = np.linspace(-14, 14, 400_001)
    inside = np.exp(-(z**2) / 2 + np.abs(z) / sigma) / math.sqrt(2 * math.pi)
    curve = inside * (np.abs(z**2 - 1) + (np.abs(z) + 1) / sigma) ** 2
    assert np.trapezoid(curve, z) + np.abs(np.diff(curve)).sum() / sigma <= 2.02
