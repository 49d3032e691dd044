"""The gate on plans: coins that are each patient's own, fresh for every sum; and local programs that fail on no patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import binom

from ahh_federated.analyses.moments import MomentSums
from ahh_federated.core import gate
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.costs import PLAIN, SAMPLED, Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import parse_filter
from ahh_federated.core.gate import Order, release
from ahh_federated.core.local import LARGEST, on_public_grid
from ahh_federated.core.programs import Line, check_schedule
from ahh_federated.core.queries import Local, Parameters, Rows, Squares
from ahh_federated.core.releases import Release
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import LOCAL_STEP, Chosen, integer_sum, sensitivity, step
from ahh_federated.errors import Breach, Misuse, Reason, Refusal

ROW = 1 << 20
PATIENTS, RUNS = 40, 400
QUARTER = RATE_ONE // 4
QUIET = 1 << 12  # noise far below one patient, so that a sum shows who is in it
COHORT = Cohort.of({"who": np.arange(PATIENTS, dtype=np.float64), "age": np.arange(PATIENTS) % 18.0})
LEVEL = 1e-8  # of one verdict; all draws are seeded besides


@dataclass(frozen=True)
class Who:
    """Everybody in a cell of their own: the sum of a sample says who is in it."""

    kind: ClassVar[str] = "who/1"
    width: int = PATIENTS
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def rows(self, cohort: Cohort) -> F64:
        return (cohort["who"][:, None] == np.arange(self.width)).astype(np.float64)


@dataclass
class Books:
    kept: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def recall(self, request: str) -> bytes | None:
        return self.kept.get(request)

    def debit(self, *, request: str, event: Event, **about: Any) -> str:
        self.events.append(event)
        return request

    def store(self, receipt: str, released: bytes) -> None:
        self.kept[receipt] = released


def event(rate: int = QUARTER, steps: int = 1, sigma: int = QUIET, width: int = PATIENTS, place: int = 0) -> Event:
    return Event(ROW, sigma, width, SAMPLED, rate, 1000, place, steps)


def released(
    query: Any = Who(), paid: Event | None = None, request: str = "r", seed: int = 1, books: Books | None = None
) -> Release:
    order = Order(request, "study", "ask:0", paid or event(), Budget(1.0, 1e-6))
    return release(query, COHORT, where=None, order=order, books=books or Books(), entropy=Entropy.seeded(seed))


# Who is in


def samples(rate: int = QUARTER, runs: int = RUNS) -> np.ndarray:
    """Who was in the sample of each of `runs` releases of one node."""
    return np.array([np.rint(released(paid=event(rate), request=f"r{k}").values) for k in range(runs)])


def unlikely(hits: int, trials: int, chance: float) -> bool:
    return bool(min(binom.cdf(hits, trials, chance), binom.sf(hits - 1, trials, chance)) < LEVEL)


def faults(coins: np.ndarray, rate: int) -> set[str]:
    """What is wrong with coins, shape (releases, patients): exact binomial bounds on counts of independent coins."""
    q, (runs, patients) = rate / RATE_ONE, coins.shape
    same = q * q + (1 - q) * (1 - q)
    found = {
        "rate": (coins.sum(), coins.size, q),
        "releases": ((coins[0::2] == coins[1::2]).sum(), coins.size // 2, same),
        "patients": ((coins[:, 0::2] == coins[:, 1::2]).sum(), coins.size // 2, same),
        "sizes": ((coins.sum(axis=1) == round(patients * q)).sum(), runs, binom.pmf(round(patients * q), patients, q)),
    }
    return {name for name, (hits, trials, chance) in found.items() if unlikely(int(hits), trials, float(chance))}


@pytest.mark.parametrize("rate", [QUARTER, RATE_ONE // 10, RATE_ONE - RATE_ONE // 8])
def test_every_patient_is_in_by_a_fresh_coin_of_its_own(rate: int) -> None:
    coins = samples(rate)
    assert set(np.unique(coins)) == {0.0, 1.0}
    assert not faults(coins, rate)


def planted(monkeypatch: pytest.MonkeyPatch, coins: Callable[[Event, Entropy], Chosen | None]) -> set[str]:
    monkeypatch.setattr(gate, "_coins", coins)
    return faults(samples(), QUARTER)


def tossed(stream: Entropy, rate: float) -> Chosen:
    return lambda patients: stream.words(patients) < np.uint64(rate * 2.0**64)


def test_a_wrong_rate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rate" in planted(monkeypatch, lambda paid, entropy: tossed(entropy.derive(b"coins"), 0.3))


def test_forgetting_to_sample_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rate" in planted(monkeypatch, lambda paid, entropy: None)


def test_coins_used_again_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "releases" in planted(monkeypatch, lambda paid, entropy: tossed(Entropy.seeded(9), 0.25))


def test_one_coin_for_everybody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(paid: Event, entropy: Entropy) -> Chosen:
        stream = entropy.derive(b"coins")
        return lambda patients: np.repeat(stream.words(1) < np.uint64(2**62), patients)

    assert "patients" in planted(monkeypatch, one)


def test_a_sample_of_fixed_size_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def ten(paid: Event, entropy: Entropy) -> Chosen:
        stream = entropy.derive(b"coins")
        return lambda patients: np.argsort(np.argsort(stream.words(patients))) < PATIENTS // 4

    assert planted(monkeypatch, ten) == {"sizes"}


@pytest.mark.parametrize("chunk", [1, 7, 64, None])
@pytest.mark.parametrize("text", [None, "age < 9"])
def test_a_sample_does_not_depend_on_chunks_and_a_filter_takes_from_it(chunk: int | None, text: str | None) -> None:
    where = parse_filter(text, {"age": Numeric("age", 0.0, 18.0, "years")}) if text else None
    coins = Entropy.seeded(3).words(PATIENTS) < np.uint64(2**63)
    stream = Entropy.seeded(3)
    sampled = integer_sum(Who(), COHORT, where, chunk, lambda patients: stream.words(patients) < np.uint64(2**63))
    assert np.array_equal(sampled, integer_sum(Who(), COHORT.keep(coins), where))
    assert np.array_equal(sampled > 0, coins & (COHORT["age"] < 9 if text else True))


def test_all_patients_are_in_at_rate_one() -> None:
    assert np.array_equal(np.rint(released(paid=event(RATE_ONE)).values), np.ones(PATIENTS))


def test_coins_and_noise_are_apart() -> None:
    """The noise is what it would be without sampling: no coin was taken from its stream."""
    noise = released(paid=event(RATE_ONE)).values - 1
    left = released(paid=event(QUARTER)).values - noise
    assert set(np.round(left, 9)) == {0.0, 1.0}


def test_squares_are_sampled_too() -> None:
    @dataclass(frozen=True)
    class Square:
        kind: ClassVar[str] = "square/1"
        width: int = 1
        bound: float = 1.0

        def parameters(self) -> Parameters:
            return {}

        def patients(self, total: F64) -> float | None:
            return None

        def factors(self, cohort: Cohort) -> F64:
            return np.ones((len(cohort), 1))

    paid = Event(1 << 32, 1 << 20, 1, SAMPLED, QUARTER, 9)
    counts = [released(Square(), paid, f"r{k}").values[0] for k in range(200)]
    assert not unlikely(round(sum(counts)), 200 * PATIENTS, 0.25)


def test_an_event_that_is_not_the_querys_own_is_a_breach_before_anything_is_paid() -> None:
    books = Books()
    for paid in (event(width=39), event(steps=2), Event(1 << 32, ROW, PATIENTS), Event(ROW // 2, ROW, PATIENTS)):
        with pytest.raises(Breach, match="not its own"):
            released(paid=paid, books=books)
    with pytest.raises(Breach, match="not its own"):
        released(Samples(), event(steps=9), books=books)
    assert not books.events


# Local programs


@dataclass(frozen=True)
class Samples:
    """Writes down who was in each of its samples: the k-th in the k-th binary digit."""

    steps: int = 10
    kind: ClassVar[str] = "local.samples/1"
    width: int = PATIENTS
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> None:
        return None

    def start(self) -> F64:
        return np.zeros(self.width + 1)

    def query(self, state: F64) -> Rows:
        return Who()

    def advance(self, state: F64, total: F64) -> F64:
        return np.append(state[:-1] + np.rint(total) * 2.0 ** state[-1], state[-1] + 1)

    def result(self, state: F64) -> F64:
        return state[:-1]


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


@dataclass(frozen=True)
class Total:
    """The mean of its noised sums."""

    steps: int = 16
    kind: ClassVar[str] = "local.total/1"
    width: int = PATIENTS
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> None:
        return None

    def start(self) -> F64:
        return np.zeros(self.width)

    def query(self, state: F64) -> Rows:
        return Who()

    def advance(self, state: F64, total: F64) -> F64:
        return state + total / self.steps

    def result(self, state: F64) -> F64:
        return state


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

    def advance(self, state: F64, total: F64) -> F64:
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

    def tired(*arguments: Any, **named: Any) -> Any:
        sums[0] += 1
        if sums[0] == 4:
            raise MemoryError
        return plain(*arguments, **named)

    monkeypatch.setattr(gate, "integer_sum", tired)
    with pytest.raises(MemoryError):
        released(Total(), event(steps=16), books=books)
    assert not books.kept and len(books.events) == 1


@pytest.mark.parametrize("cohort", [Cohort.of({"who": np.array([]), "age": np.array([])}), COHORT], ids=["nobody", "some"])
def test_a_program_sees_noised_sums_only(cohort: Cohort) -> None:
    seen: list[F64] = []

    class Curious(Total):
        def advance(self, state: F64, total: F64) -> F64:
            seen.append(total)
            return super().advance(state, total)

    order = Order("r", "study", "ask:0", event(RATE_ONE, 16, ROW), Budget(1.0, 1e-6))
    release(Curious(), cohort, where=None, order=order, books=Books(), entropy=Entropy.system())
    rehearsed, *sums = seen
    assert not rehearsed.any()
    assert len(sums) == 16
    assert all(np.abs(total - len(cohort) / PATIENTS).min() > 0 for total in sums)


# Schedules with plans


def lines(*places: int, shares: Sequence[float] = (), count: int = 3, rate: int = QUARTER) -> list[Line]:
    shares = shares or [0.0 if place else 0.4 for place in places]
    return [Line("who/1", 40, share, ROW, rate, count, place) for place, share in zip(places, shares, strict=True)]


def test_a_schedule_may_have_plans_among_other_lines() -> None:
    plain = Line("count/1", 3, 0.1)
    check_schedule([plain, *lines(0, 1, 2), plain])
    check_schedule([*lines(0, 1), *lines(0, 1, 2), plain])
    check_schedule([*lines(0), *lines(0, count=5), *lines(1), *lines(1, count=5)])


@pytest.mark.parametrize(
    "bad",
    [
        lines(1),
        lines(0, 2),
        lines(0, 1, 1),
        [*lines(0), *lines(1, count=4)],
        [*lines(0), *lines(1, rate=7)],
        lines(0, 1, shares=(0.4, 0.1)),
        lines(0, 0, shares=(0.4, 0.3)),
        lines(0, 1, shares=(0.0, 0.0)),
        lines(0, 0, 0),
    ],
    ids=["no first", "one left out", "one twice", "another count", "another rate", "a share", "unlike", "free", "too much"],
)
def test_a_plan_that_is_out_of_order_is_no_schedule(bad: list[Line]) -> None:
    with pytest.raises(Breach):
        check_schedule(bad)


def test_a_line_covers_a_program_of_its_steps() -> None:
    line = Line("local.total/1", PATIENTS, 0.5, ROW, QUARTER, 32, 0, 16)
    assert line.covers(Total())
    assert not line.covers(Total(steps=15))
    assert not replace(line, steps=1).covers(Total())
    assert not Line("who/1", PATIENTS, 0.5, ROW, QUARTER, 32, 0, 2).covers(Who())
    assert Event(ROW, ROW, 1).mechanism == PLAIN
