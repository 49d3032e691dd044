"""The gate on plans: coins that are each patient's own, fresh for every sum; and local programs that fail on no patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.costs import SAMPLED, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.filters import parse_filter
from ahh_federated.core.queries import Parameters
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import Chosen, integer_sum
from ahh_federated.errors import Breach
from tests.core.sampled import (
    COHORT,
    PATIENTS,
    QUARTER,
    ROW,
    Books,
    Samples,
    Who,
    event,
    faults,
    planted,
    released,
    samples,
    tossed,
    unlikely,
)


@pytest.mark.parametrize("rate", [QUARTER, RATE_ONE // 10, RATE_ONE - RATE_ONE // 8])
def test_every_patient_is_in_by_a_fresh_coin_of_its_own(rate: int) -> None:
    coins = samples(rate)
    assert set(np.unique(coins)) == {0.0, 1.0}
    assert not faults(coins, rate)


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
