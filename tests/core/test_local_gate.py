"""Programs that run inside one node: every sum sampled, noised and paid for, and only the result leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from ahh_federated.analyses.moments import MomentSums
from ahh_federated.core import gate
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.local import LARGEST, on_public_grid
from ahh_federated.core.queries import Local, Rows, Squares
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import LOCAL_STEP, sensitivity, step
from ahh_federated.errors import Breach, Misuse, Reason, Refusal
from tests.core.sampled import COHORT, PATIENTS, QUARTER, ROW, RUNS, Books, Samples, Total, Who, event, faults, released, tossed


def local_samples(runs: int = RUNS // 10) -> np.ndarray:
    written = [released(Samples(), event(steps=10), f"r{k}").values.astype(np.int64) for k in range(runs)]
    return np.array([(each >> digit) & 1 for each in written for digit in range(10)])


def test_a_local_program_is_neither_rows_nor_squares() -> None:
    assert isinstance(Samples(), Local)
    assert not isinstance(Samples(), Rows | Squares)
    assert (sensitivity(Samples()), step(Samples())) == (ROW, LOCAL_STEP)


def test_each_sum_of_a_local_program_has_coins_of_its_own() -> None:
    coins = local_samples()
    assert coins.shape == (RUNS, PATIENTS)
    assert not faults(coins, QUARTER)


def test_coins_used_again_within_a_program_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Entropy.derive
    monkeypatch.setattr(gate, "_coins", lambda paid, entropy: tossed(plain(Entropy.seeded(7), b"coins"), 0.25))
    assert "releases" in faults(local_samples(), QUARTER)


def test_each_sum_of_a_local_program_is_noised_afresh() -> None:
    """The mean of 16 sums has a quarter of the noise of one; were the noise the same, it would have all of it."""
    sigma = ROW
    errors = np.array([released(Total(), event(RATE_ONE, 16, sigma), f"r{k}").values - 1 for k in range(50)])
    assert np.std(errors) == pytest.approx(0.25, rel=0.1)
    one = np.array([released(paid=event(RATE_ONE, 1, sigma), request=f"r{k}").values - 1 for k in range(50)])
    assert np.std(one) == pytest.approx(1.0, rel=0.1)


def test_a_result_leaves_on_the_public_grid_and_once() -> None:
    books = Books()
    first = released(Total(), event(steps=16), books=books)
    again = released(Total(), event(steps=16), books=books, seed=2)
    assert np.array_equal(first.cells, again.cells)
    assert np.array_equal(first.values, first.cells * LOCAL_STEP)
    assert len(books.events) == 1


def test_what_is_not_finite_or_too_large_leaves_as_zero() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1e300, 1.5 * LARGEST, -1.5 * LARGEST])
    assert not on_public_grid(odd).any()
    edge = np.array([LARGEST, -LARGEST, 0.0, LOCAL_STEP, 0.4 * LOCAL_STEP, -0.6 * LOCAL_STEP])
    assert on_public_grid(edge).tolist() == [1 << 40, -(1 << 40), 0, 1, 0, -1]


class Broken(Exception):
    pass


@dataclass(frozen=True)
class Fragile(Total):
    """Fails at one function, from one step on: each by a number of its state, as a state that ran away would."""

    where: str = "query"
    after: int = 3
    steps: int = 6
    kind: ClassVar[str] = "local.fragile/1"

    def start(self) -> F64:
        return np.zeros(self.width + 1)

    def _fails(self, place: str, state: F64) -> bool:
        return place == self.where and state[-1] >= self.after

    def query(self, state: F64) -> Rows:
        if self._fails("query", state):
            raise Broken
        if self._fails("rows", state):
            return Unrowable()
        return MomentSums((Numeric("age", 0.0, 18.0, "years"),)) if self._fails("shape", state) else Who()

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        if self._fails("advance", state):
            raise ZeroDivisionError
        grown = np.append(state[:-1] + total, state[-1] + 1)
        return grown * (np.inf if self._fails("infinite", state) else 1)

    def result(self, state: F64) -> F64:
        if self._fails("result", state):
            raise Broken
        return state if self._fails("width", state) else state[:-1]


class Unrowable(Who):
    def rows(self, cohort: Cohort) -> F64:
        raise Broken


PLACES = ["query", "rows", "shape", "advance", "infinite", "result", "width"]


@pytest.mark.parametrize("place", PLACES)
def test_a_program_that_fails_after_the_debit_leaves_zeros_and_is_answered(place: str) -> None:
    """Not an error: the request could come again, for fresh draws that nobody paid for."""
    books = Books()
    found = released(Fragile(where=place), event(RATE_ONE, 6), books=books)
    assert not found.cells.any()
    assert list(books.kept) == ["r"] and len(books.events) == 1
    assert not np.array_equal(released(Fragile(where="nowhere"), event(RATE_ONE, 6)).cells, found.cells)


@pytest.mark.parametrize("place", PLACES)
def test_a_program_that_fails_at_its_start_is_a_breach_before_the_debit(place: str) -> None:
    books = Books()
    after = 1 if place in ("result", "width") else 0
    with pytest.raises(Breach, match="cannot be computed"):
        released(Fragile(where=place, after=after), event(RATE_ONE, 6), books=books)
    assert not books.events


def test_what_a_node_lacks_is_a_refusal_that_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(self: Who, cohort: Cohort) -> F64:
        raise Misuse("torch is not installed: pip install it")

    monkeypatch.setattr(Who, "rows", lacking)
    books = Books()
    with pytest.raises(Refusal, match="pip install it") as caught:
        released(Total(), event(steps=16), books=books)
    assert caught.value.reason is Reason.QUERY
    assert not books.events


def test_a_machine_that_fails_at_a_sum_fails_as_for_any_query(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, books, sums = gate.integer_sum, Books(), [0]

    def tired(query: Any, cohort: Cohort, *arguments: Any, **named: Any) -> Any:
        sums[0] += len(cohort) == len(COHORT)  # a rehearsal is about two
        if sums[0] == 4:
            raise MemoryError
        return plain(query, cohort, *arguments, **named)

    monkeypatch.setattr(gate, "integer_sum", tired)
    with pytest.raises(MemoryError):
        released(Total(), event(steps=16), books=books)
    assert not books.kept and len(books.events) == 1


@pytest.mark.parametrize("cohort", [Cohort.of({"who": np.array([]), "age": np.array([])}), COHORT], ids=["nobody", "some"])
def test_a_program_sees_noised_sums_only(cohort: Cohort) -> None:
    seen: list[F64] = []
    told: list[float] = []

    class Curious(Total):
        def advance(self, state: F64, total: F64, stderr: float) -> F64:
            seen.append(total)
            told.append(stderr)
            return super().advance(state, total, stderr)

    order = Order("r", "study", "ask:0", event(RATE_ONE, 16, ROW), Budget(1.0, 1e-6))
    release(Curious(), cohort, where=None, order=order, books=Books(), entropy=Entropy.system())
    rehearsed, *sums = seen
    assert not rehearsed.any()
    assert len(sums) == 16
    assert told == [0.0] + [order.event.sigma * step(Who())] * 16
    assert all(np.abs(total - len(cohort) / PATIENTS).min() > 0 for total in sums)
