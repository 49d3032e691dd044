"""Ledger files of the format before plans: read without a change, and gone on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event
from ahh_federated.errors import Reason
from ahh_federated.node import chain
from ahh_federated.node.chain import PLAN
from ahh_federated.node.ledger import Head, Ledger
from ahh_federated.node.ledger_file import FORMAT
from tests.node.planned import ROW
from tests.node.test_plans import FIRST, VECTOR, opened, pay, refused


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def earlier(path: Path) -> Path:
    """As the version before plans wrote it: a budget, three debits, two releases and a burn."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(VECTOR.read_text())
        db.execute("PRAGMA user_version = 1")
        db.execute("PRAGMA journal_mode = WAL")
    return path


def columns(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[1] for row in db.execute("PRAGMA table_info(entries)")]


SPENT = Fraction(63802974222533748468238310738428428289, 1361130441239666285731828739273549414400)
LAST = "622d7c2dec329529afd5823121618290b3f5ce6e8576c332a716fb3029e8ae49"


def test_an_earlier_file_is_read_without_a_change(earlier: Path) -> None:
    content = earlier.read_bytes()
    with Ledger.inspect(earlier) as ledger:
        assert ledger.verify().ok
        assert ledger.verify(Head(7, LAST)).ok
        assert ledger.spent().mu_squared == SPENT
        assert ledger.recall("r1") == b"\1" * 32
        assert all(getattr(entry, name) is None for entry in ledger.entries() for name in PLAN)
        refused(lambda: pay(ledger, 0), Reason.LEDGER)
    assert earlier.read_bytes() == content
    assert not set(PLAN) & set(columns(earlier))


def test_an_earlier_file_goes_on_with_plans(earlier: Path) -> None:
    with Ledger.inspect(earlier) as ledger:
        before = list(ledger.entries())
    with opened(earlier) as ledger, opened(earlier) as beside:
        assert ledger.spent().mu_squared == SPENT
        assert list(ledger.entries()) == before
        for place in range(4):
            ledger.store(pay(ledger, place), b"released")
        assert ledger.verify(Head(7, LAST)).ok
        assert beside.spent().mu_squared == SPENT + FIRST.mu_squared
        assert beside.recall("r0") == b"\0" * 24
    assert set(PLAN) < set(columns(earlier))
    with closing(sqlite3.connect(earlier)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,)
        with pytest.raises(sqlite3.IntegrityError, match="never change"):
            db.execute("UPDATE entries SET place = 0")


def test_a_file_that_only_says_it_is_earlier_is_refused(path: Path) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")
    assert "duplicate column" in refused(lambda: opened(path), Reason.LEDGER)


def test_a_debit_of_an_earlier_file_is_still_known_by_its_request(earlier: Path) -> None:
    """`r2` was debited and not stored: it is not paid again."""
    with opened(earlier) as ledger:
        event = Event(ROW, (1 << 23) + 2, 5)
        ceiling = Budget(2.0, 1e-5)
        receipt = ledger.debit(request="r2", study="growth", ask="sizes:2", query="count/1", event=event, ceiling=ceiling)
        assert receipt.seq == 6
        ledger.store(receipt, b"released")
        assert ledger.spent().mu_squared == SPENT


def test_the_hash_of_a_message_of_a_plan_covers_the_plan(path: Path) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)
        last = list(ledger.entries())[-1]
    assert [getattr(last, name) for name in PLAN] == [FIRST.rate, 4, 0, 1]
    for name in PLAN:
        for other in (None, 0, 2, 10**6):
            changed = replace(last, **{name: other})
            assert (chain.digest(changed) == last.hash) == (changed == last)
