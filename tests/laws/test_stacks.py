"""Several sums in one message: bounded, exact, noised as if each had been asked alone, and taken apart again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.analyses import glm, opening, rounds
from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.gaussian import CrossSums
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.core.bounds import ROW_STEPS, SQUARE_STEPS
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import parse_filter
from ahh_federated.core.gate import Order, price, release
from ahh_federated.core.programs import Line
from ahh_federated.core.queries import Local, Query, Rows, Squares, Stack, Summed
from ahh_federated.core.releases import Exact, Round, Status, part_told
from ahh_federated.core.sums import integer_sum, integer_sum_slowly, sensitivity, step
from tests.analyses.drivers import OpenBooks, plain_sum
from tests.laws.cohorts import cohorts, plausible_cohort, without
from tests.laws.registry import AGE, BMI, CASE, COLUMNS, COMPLETE_CASES, CURVED, INDICATORS, SEX, ZONE, scale

BUDGET = Budget(1.0, 1e-6)
SCALE = scale(COMPLETE_CASES, np.random.default_rng(1))


def second(rng: np.random.Generator) -> Stack:
    return rounds.second(glm.ClassSums(CURVED, CASE, scale(CURVED, rng)))


def crossed(rng: np.random.Generator) -> Stack:
    return rounds.second(CrossSums(INDICATORS, BMI, scale(INDICATORS, rng), 0.2, 0.4, 4.0))


STACKS = {
    "opening": lambda rng: opening.opening(COMPLETE_CASES, CASE),
    "opening of a measured outcome": lambda rng: opening.opening(INDICATORS, BMI),
    "class sums and Gram matrix": second,
    "cross sums and Gram matrix": crossed,
    "three": lambda rng: Stack((CellCounts((SEX,)), CellCounts((ZONE,)), glm.Gram(COMPLETE_CASES, CASE, SCALE)), (5000, 1, 1)),
}
every_stack = pytest.mark.parametrize("name", STACKS)


def made(name: str, seed: int) -> Stack:
    return STACKS[name](np.random.default_rng(seed))


def ints(total: np.ndarray) -> list[int]:
    return [int(value) for value in total]


@every_stack
@settings(max_examples=12, deadline=None)
@given(cohort=cohorts(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_one_patient_moves_a_stack_by_at_most_its_sensitivity(name: str, cohort: Cohort, seed: int, data: st.DataObject) -> None:
    query = made(name, seed)
    whole = ints(integer_sum(query, cohort))
    for patient in data.draw(st.lists(st.integers(0, len(cohort) - 1), max_size=4)) if len(cohort) else []:
        fewer = ints(integer_sum(query, without(cohort, patient)))
        assert sum((a - b) ** 2 for a, b in zip(whole, fewer, strict=True)) <= sensitivity(query) ** 2


@every_stack
@settings(max_examples=8, deadline=None)
@given(cohort=cohorts(), seed=st.integers(0, 2**32 - 1), chunk=st.integers(1, 30))
def test_a_stack_is_its_parts_sums_each_multiplied(name: str, cohort: Cohort, seed: int, chunk: int) -> None:
    query, where = made(name, seed), parse_filter("age >= 6", {column.name: column for column in COLUMNS})
    parts = zip(query.parts, query.multipliers, strict=True)
    expected = [m * value for part, m in parts for value in ints(integer_sum(part, cohort, where))]
    assert ints(integer_sum(query, cohort, where, chunk=chunk)) == expected == integer_sum_slowly(query, cohort, where)


@every_stack
def test_some_patient_comes_near_the_bound_of_a_stack(name: str) -> None:
    cohort, reached = plausible_cohort(300, 4), 0.0
    for seed in range(3):
        query = made(name, seed)
        for patient in cohort.parts(1):
            length = math.sqrt(sum(value**2 for value in ints(integer_sum(query, patient))))
            reached = max(reached, length / sensitivity(query))
    assert 0.5 <= reached <= 1.0


def test_the_sensitivity_is_the_root_of_the_squares_rounded_up() -> None:
    query = Stack((CellCounts((SEX,)), glm.Gram(COMPLETE_CASES, CASE, SCALE)), (7000, 1))
    squares = (7000 * ROW_STEPS) ** 2 + SQUARE_STEPS**2
    assert (sensitivity(query) - 1) ** 2 < squares <= sensitivity(query) ** 2


def test_a_stack_is_of_no_other_shape() -> None:
    query = made("opening", 0)
    assert not isinstance(query, Rows | Squares | Local)
    assert query.kind == "glm.complete/1+glm.moments/1"


@pytest.mark.parametrize("multipliers", [(), (1,), (1, 0), (1, -1), (1, 2.0), (1, True), (1, 2, 3)], ids=str)
def test_multipliers_that_do_not_fit_are_refused(multipliers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiplier"):
        Stack((CellCounts((SEX,)), CellCounts((ZONE,))), multipliers)


def test_a_multiplier_that_a_large_sum_could_not_hold_is_refused() -> None:
    square, row = glm.Gram(COMPLETE_CASES, CASE, SCALE), CellCounts((SEX,))
    assert sensitivity(Stack((square, row), (1, 7600)))
    for multipliers in ((2, 1), (1, 7700)):
        with pytest.raises(ValueError, match="passes 2"):
            sensitivity(Stack((square, row), multipliers))


def test_parts_that_carry_different_numbers_under_one_name_are_refused() -> None:
    other = scale(COMPLETE_CASES, np.random.default_rng(2))
    with pytest.raises(ValueError, match="different numbers"):
        Stack((glm.Gram(COMPLETE_CASES, CASE, SCALE), glm.ClassSums(COMPLETE_CASES, CASE, other)), (1, 1))


def test_a_second_message_of_two_designs_is_refused() -> None:
    sums, gram = glm.ClassSums(COMPLETE_CASES, CASE, SCALE), glm.Gram(COMPLETE_CASES, SEX, SCALE)
    with pytest.raises(ValueError, match="same x"):
        rounds.Second((sums, gram), rounds.MULTIPLIERS)


def released(query: Query, cohort: Cohort, event: Event, seed: int) -> Round:
    order = Order("request", "study", "ask:0", event, BUDGET)
    answer = release(query, cohort, where=None, order=order, books=OpenBooks(), entropy=Entropy.seeded(seed))
    return Round(query, {"a": answer, "b": answer, "c": Status.OFFLINE})


@every_stack
def test_a_stack_taken_apart_is_each_part_with_noise_of_its_share(name: str) -> None:
    """What it costs is what the parts would cost alone at the noise that they have."""
    query, cohort = made(name, 5), plausible_cohort(500, 6)
    event = price(query, 0.5)
    whole = released(query, cohort, event, 1)
    costs = 0.0
    for number, part in enumerate(query.parts):
        round_ = whole.part(number)
        assert round_.query is part and round_.partners == ("a", "b")
        alone = integer_sum(part, cohort) * step(part)
        told = round_.of("a")
        assert told.values.shape == (part.width,)
        assert np.abs(told.values - alone).max() < 6 * told.stderr
        bound = step(part) * sensitivity(part)
        costs += (bound / told.stderr) ** 2
    assert costs == pytest.approx(float(event.mu_squared), rel=2e-6)  # the whole is rounded up to a step


def test_the_noise_of_a_part_has_the_size_that_it_tells() -> None:
    query = made("class sums and Gram matrix", 7)
    nobody = plausible_cohort(0, 0)
    for number in range(2):
        drawn = [released(query, nobody, price(query, 0.5), seed).part(number).of("a") for seed in range(40)]
        spread = np.std([each.values for each in drawn]) / drawn[0].stderr
        assert spread == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("number", "shares"), [(0, (0.02, 0.08)), (1, (0.25, 0.12))])
def test_the_parts_of_a_regression_have_the_shares_that_are_announced(number: int, shares: tuple[float, float]) -> None:
    """As if they had been asked one after the other, to a ten-thousandth."""
    line = Logistic(CURVED, CASE).schedule()[number]
    query = (opening.opening(CURVED, CASE), second(np.random.default_rng(3)))[number]
    assert line.covers(query)
    assert line.share == pytest.approx(sum(shares))
    for part, multiplier, share in zip(query.parts, query.multipliers, shares, strict=True):
        assert line.share * (multiplier * sensitivity(part) / line.sensitivity) ** 2 == pytest.approx(share, rel=1e-4)


def test_an_exact_answer_is_taken_apart_as_it_is() -> None:
    query, cohort = made("opening", 0), plausible_cohort(60, 2)
    for number, expected in enumerate(query.parts):
        part, told = part_told(query, Exact(plain_sum(query, cohort)), number)
        assert part is expected
        assert np.array_equal(told.values, plain_sum(expected, cohort))


def test_what_is_no_stack_is_its_own_only_part() -> None:
    query, answer = CellCounts((SEX,)), Exact(np.array([1.0, 2.0]))
    assert part_told(query, answer, 0) == (query, answer)


def test_a_stack_has_no_total_until_it_is_taken_apart() -> None:
    query, cohort = made("opening", 0), plausible_cohort(30, 2)
    with pytest.raises(AssertionError, match="units of their own"):
        released(query, cohort, price(query, 0.5), 1).total()


def test_a_plan_of_stacks_takes_one_sample_for_all_parts() -> None:
    """Sums about two samples would need a proof of their own."""
    query = Stack((CellCounts((SEX,)), CellCounts((SEX,)), glm.FeatureMoments(COMPLETE_CASES, CASE)), (1, 1, 1))
    coins = np.random.default_rng(8)
    total = integer_sum(query, plausible_cohort(400, 9), chunk=50, chosen=lambda size: coins.random(size) < 0.5)
    width = CellCounts((SEX,)).width
    assert 0 < total[:width].sum() < 400 * ROW_STEPS
    assert np.array_equal(total[:width], total[width : 2 * width])


def test_a_line_covers_its_own_stack_alone() -> None:
    parts: tuple[Summed, ...] = (CellCounts((SEX,)), glm.Gram(COMPLETE_CASES, CASE, SCALE))
    line = Line.of(Stack(parts, (500, 1)), 0.4)
    assert line.covers(Stack(parts, (500, 1)))
    for other in (Stack(parts, (501, 1)), Stack(parts[::-1], (1, 500)), parts[0]):
        assert not line.covers(other)


def test_a_column_that_a_part_cannot_be_computed_with_fails_before_the_debit() -> None:
    """Every part is rehearsed, not the first alone."""
    query = Stack((CellCounts((SEX,)), glm.Gram(COMPLETE_CASES, CASE, SCALE)), (1, 1))
    cohort = Cohort.of({"sex": np.zeros(3)})
    with pytest.raises(Exception, match="cannot be computed"):
        released(query, cohort, price(query, 0.5), 1)
    assert AGE.name not in cohort.columns
