"""The only door: paid before anything is looked at, stored before anything leaves, once for each request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.moments import MomentSums
from ahh_federated.core import gate
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import parse_filter
from ahh_federated.core.gate import Order, price, release
from ahh_federated.core.noise import discrete_gaussian
from ahh_federated.core.queries import Parameters
from ahh_federated.core.releases import Release
from ahh_federated.core.sums import integer_sum
from ahh_federated.errors import Breach, Reason, Refusal

AGE = Numeric("age", 0.0, 18.0, "years")
SEX = Levels("sex", ("boy", "girl"))
QUERY = CellCounts((SEX,))
ORDER = Order("request 1", "study", "sizes:0", price(QUERY, 0.7), Budget(1.0, 1e-6))
COHORT = Cohort.of({"age": np.linspace(0, 18, 50), "sex": np.arange(50.0) % 2})


@dataclass
class FakeBooks:
    """A ledger in a dictionary that notes what it was told, in order."""

    poor: bool = False
    log: list[str] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    debits: list[dict[str, Any]] = field(default_factory=list)
    fail_store: bool = False

    def recall(self, request: str) -> bytes | None:
        self.log.append("recall")
        return self.kept.get(request)

    def debit(self, *, event: Event, **about: Any) -> str:
        self.log.append("debit")
        if self.poor:
            raise Refusal(Reason.BUDGET, "the budget is used up")
        self.events.append(event)
        self.debits.append(about)
        return str(about["request"])

    def store(self, receipt: str, released: bytes) -> None:
        self.log.append("store")
        if self.fail_store:
            raise OSError("the disk is full")
        self.kept[receipt] = released


class Watched(Mapping[str, F64]):
    """Columns that note when their values are looked at; their names are public."""

    def __init__(self, books: FakeBooks, columns: Mapping[str, F64]) -> None:
        self._books, self._columns = books, columns

    def __getitem__(self, name: str) -> F64:
        self._books.log.append("rows")
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Untouchable(Watched):
    """Columns whose values must not be looked at."""

    def __getitem__(self, name: str) -> F64:
        raise AssertionError("a patient was looked at")


def released(
    books: FakeBooks, cohort: Cohort = COHORT, order: Order = ORDER, query: Any = QUERY, seed: int | None = None
) -> Release:
    entropy = Entropy.system() if seed is None else Entropy.seeded(seed)
    return release(query, cohort, where=None, order=order, books=books, entropy=entropy)


def test_the_order_is_recall_debit_rows_store() -> None:
    books = FakeBooks()
    released(books, Cohort(Watched(books, COHORT.columns), len(COHORT)))
    first = list(dict.fromkeys(books.log))
    assert first == ["recall", "debit", "rows", "store"]
    assert books.log.count("debit") == books.log.count("store") == 1


def test_a_refused_debit_looks_at_nobody_and_stores_nothing() -> None:
    books = FakeBooks(poor=True)
    with pytest.raises(Refusal) as caught:
        released(books, Cohort(Untouchable(books, COHORT.columns), 50))
    assert caught.value.reason is Reason.BUDGET
    assert books.log == ["recall", "debit"]
    assert not books.kept


@dataclass(frozen=True)
class Failing:
    """A query whose public numbers cannot be computed with, whoever the patients are."""

    kind: ClassVar[str] = "failing/1"
    width: int = 2
    bound: float = 1.0

    def parameters(self) -> Parameters:
        return {}

    def patients(self, total: F64) -> float | None:
        return None

    def rows(self, cohort: Cohort) -> F64:
        raise OverflowError("31 of 47 patients")


@pytest.mark.parametrize("size", [0, 1, 50])
def test_a_query_that_cannot_be_computed_is_a_breach_before_any_debit(size: int) -> None:
    """Alike for every cohort, the empty one included: that it fails tells nothing."""
    books = FakeBooks()
    with pytest.raises(Breach) as caught:
        released(books, Cohort(Untouchable(books, COHORT.columns), size), replace(ORDER, event=price(Failing(), 0.7)), Failing())
    assert "987654321" not in str(caught.value)
    assert "debit" not in books.log


def test_the_cohort_of_the_test_above_would_raise() -> None:
    with pytest.raises(AssertionError, match="looked at"):
        released(FakeBooks(), Cohort(Untouchable(FakeBooks(), COHORT.columns), 50))


def test_a_repeated_request_gets_the_same_bytes_for_one_debit_without_the_cohort() -> None:
    books = FakeBooks()
    first = released(books)
    for _ in range(3):
        again = released(books, Cohort(Untouchable(books, COHORT.columns), 50))
        assert again.cells.tobytes() == first.cells.tobytes()
        assert (again.step, again.sigma) == (first.step, first.sigma)
    assert len(books.events) == 1


def test_another_request_gets_fresh_noise_for_another_debit() -> None:
    books = FakeBooks()
    first, other = released(books), released(books, order=replace(ORDER, request="request 2"))
    assert not np.array_equal(first.cells, other.cells)
    assert len(books.events) == 2


def test_noise_is_fresh_where_nothing_was_stored() -> None:
    assert not np.array_equal(released(FakeBooks()).cells, released(FakeBooks()).cells)


def test_what_was_not_stored_does_not_leave_and_is_paid_for() -> None:
    books = FakeBooks(fail_store=True)
    with pytest.raises(OSError, match="disk"):
        released(books)
    assert len(books.events) == 1
    assert not books.kept
    books.fail_store = False
    released(books)
    assert len(books.events) == 2


def test_the_debit_says_who_asked_what_at_which_price() -> None:
    books = FakeBooks()
    released(books)
    assert books.debits == [
        {"request": "request 1", "study": "study", "ask": "sizes:0", "query": "count/1", "ceiling": ORDER.ceiling}
    ]
    assert books.events == [ORDER.event]


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 0.7, 5.0, 1e5])
def test_the_price_never_exceeds_what_was_ordered(mu: float) -> None:
    event = price(QUERY, mu)
    assert event.mu_squared <= mu**2 * (1 + 1e-15)
    assert event.width == QUERY.width


def test_a_release_is_the_sum_and_the_noise_that_was_paid_for() -> None:
    books = FakeBooks()
    exact = integer_sum(QUERY, COHORT)
    order = replace(ORDER, event=price(QUERY, 0.05))
    errors = np.array([released(books, order=replace(order, request=str(k)), seed=k).cells - exact for k in range(200)])
    sigma = price(QUERY, 0.05).sigma
    assert 0.8 < errors.std() / sigma < 1.2
    assert len(np.unique(errors)) == errors.size


def test_the_value_is_in_patients() -> None:
    books = FakeBooks()
    found = released(books, order=replace(ORDER, event=price(QUERY, 8.0)))
    assert np.abs(found.values - [25, 25, 0]).max() < 6 * found.stderr < 1.0
    assert found.stderr == pytest.approx(1 / 8.0, rel=1e-5)


def test_a_filter_is_applied_and_costs_the_same() -> None:
    books = FakeBooks()
    where = parse_filter("age >= 9", {"age": AGE})
    order = replace(ORDER, event=price(QUERY, 8.0))
    found = release(QUERY, COHORT, where=where, order=order, books=books, entropy=Entropy.system())
    assert found.values.sum() == pytest.approx(25, abs=2)
    assert books.events == [price(QUERY, 8.0)]


def test_stored_bytes_of_another_size_are_a_breach() -> None:
    books = FakeBooks(kept={"request 1": b"\0" * 8})
    with pytest.raises(Breach, match="24 bytes"):
        released(books)


def test_any_patient_gives_an_answer() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -0.0, 1e16])
    cohort = Cohort.of({"age": odd, "sex": odd})
    for number, query in enumerate((QUERY, MomentSums((AGE,)))):
        order = replace(ORDER, request=str(number), event=price(query, 0.7))
        assert released(FakeBooks(), cohort, order, query).cells.shape == (query.width,)


def test_what_is_not_noised_has_no_encoder_and_no_repr() -> None:
    summed = gate._Summed(np.array([987654321, 47]))
    encoders = {"to_bytes", "to_json", "encode", "dumps", "__bytes__", "tobytes", "__iter__", "__array__"}
    assert not encoders & set(dir(summed))
    assert "987654321" not in repr(summed)
    assert "987654321" not in str(summed)
    with pytest.raises(TypeError):
        bytes(summed)


def test_what_leaves_is_the_sum_and_the_noise_of_its_own_stream() -> None:
    released = release(QUERY, COHORT, where=None, order=ORDER, books=FakeBooks(), entropy=Entropy.seeded(5))
    event = ORDER.event
    noise = discrete_gaussian(event.sigma, event.width, Entropy.seeded(5).derive(ORDER.request.encode()))
    assert np.array_equal(released.cells, integer_sum(QUERY, COHORT) + noise)
    assert np.abs(noise).min() > 0


def test_a_filter_that_cannot_be_computed_is_refused_before_anything_is_paid() -> None:
    books = FakeBooks()
    where = parse_filter("age > 3", {"age": AGE})
    with pytest.raises(Breach, match="cannot be computed"):
        release(QUERY, Cohort.of({"sex": COHORT["sex"]}), where=where, order=ORDER, books=books, entropy=Entropy.seeded(5))
    assert books.log == ["recall"]
