"""The ledger: exact filters, one release per request, a file that is never a fresh budget."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node import ledger_file as ledger_module
from ahh_federated.node.chain import COLUMNS
from ahh_federated.node.ledger import Kind, Ledger, Receipt

BUDGET = Budget(2.0, 1e-6)
WIDE = Budget(5.0, 1e-2)
EVENT = Event(sensitivity=1 << 20, sigma=1 << 23, width=3)  # mu^2 = 1/64


def fits(event: Event, budget: Budget) -> int:
    """How many such events a budget admits, counted one by one."""
    spent, count = Spent() + event, 0
    while spent.within(budget):
        spent, count = spent + event, count + 1
    return count


def pay(ledger: Ledger, request: str, study: str = "growth", event: Event = EVENT, ceiling: Budget = WIDE) -> Receipt:
    return ledger.debit(request=request, study=study, ask=request, query="count/1", event=event, ceiling=ceiling)


def refused(reason: Reason, act: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        act()
    assert caught.value.reason is reason
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "children.ledger"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path, dataset="children", budget=BUDGET) as opened:
        yield opened


# filters


def test_the_data_set_budget_is_reached_exactly_and_never_passed(ledger: Ledger) -> None:
    count = fits(EVENT, BUDGET)
    assert count >= 3
    for k in range(count):
        pay(ledger, f"r{k}")
    before = ledger.head()
    message = refused(Reason.BUDGET, lambda: pay(ledger, "one too many"))
    assert ledger.head() == before
    assert ledger.spent() == Spent.of([EVENT] * count)
    assert "'children'" in message and "would make it" in message and "epsilon" in message


def test_two_studies_share_the_budget_of_the_data_set(ledger: Ledger) -> None:
    count = fits(EVENT, BUDGET)
    for k in range(count):
        pay(ledger, f"r{k}", study=("growth", "diet")[k % 2])
    for study in ("growth", "diet", "a third"):
        assert "data set" in refused(Reason.BUDGET, partial(pay, ledger, "more", study))
    assert ledger.spent("growth").mu_squared + ledger.spent("diet").mu_squared == ledger.spent().mu_squared
    assert ledger.spent("a third") == Spent()


def test_the_ceiling_of_a_study_binds_under_the_budget(path: Path) -> None:
    ceiling = Budget(1.0, 1e-6)
    with Ledger.open(path, dataset="children", budget=WIDE) as ledger:
        for k in range(fits(EVENT, ceiling)):
            pay(ledger, f"r{k}", ceiling=ceiling)
        message = refused(Reason.BUDGET, lambda: pay(ledger, "more", ceiling=ceiling))
        assert "study 'growth'" in message
        pay(ledger, "other", study="diet", ceiling=ceiling)


def test_a_smaller_release_may_still_fit(ledger: Ledger) -> None:
    for k in range(fits(EVENT, BUDGET)):
        pay(ledger, f"r{k}")
    refused(Reason.BUDGET, lambda: pay(ledger, "large"))
    pay(ledger, "small", event=Event(1 << 20, 1 << 30, 1))


def test_the_slack_of_the_grid_is_a_budget_too(ledger: Ledger) -> None:
    coarse = Event(sensitivity=1, sigma=1 << 10, width=10_000)
    assert coarse.mu_squared < BUDGET.mu_squared / 1000 and coarse.slack > BUDGET.slack
    refused(Reason.BUDGET, lambda: pay(ledger, "coarse", event=coarse))


def test_totals_are_exact_whatever_the_mix(ledger: Ledger) -> None:
    events = [Event(1 << 20, (1 << 25) + 7 * k, 1 + k) for k in range(40)]
    for k, event in enumerate(events):
        pay(ledger, f"r{k}", event=event)
    assert ledger.spent() == Spent.of(events)


def test_time_refills_nothing(ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = fits(EVENT, BUDGET)
    for k in range(count):
        pay(ledger, f"r{k}")
    for years in (-10, 10):
        elsewhen = Mock(now=Mock(return_value=datetime.now(UTC) + timedelta(days=365 * years)))
        monkeypatch.setattr(ledger_module, "datetime", elsewhen)
        refused(Reason.BUDGET, lambda: pay(ledger, "later"))
        with Ledger.open(path, dataset="children", budget=BUDGET) as reopened:
            refused(Reason.BUDGET, partial(pay, reopened, "later"))


# one release per request


def test_a_repeat_recalls_the_same_bytes_also_after_reopening(ledger: Ledger, path: Path) -> None:
    assert ledger.recall("r") is None
    receipt = pay(ledger, "r")
    assert ledger.recall("r") is None
    ledger.store(receipt, b"\x00noised\xff")
    assert ledger.recall("r") == b"\x00noised\xff"
    ledger.close()
    with Ledger.open(path, dataset="children", budget=BUDGET) as reopened:
        assert reopened.recall("r") == b"\x00noised\xff"
        assert reopened.spent() == Spent.of([EVENT])


def test_a_released_request_takes_no_second_draw(ledger: Ledger, path: Path) -> None:
    with Ledger.open(path, dataset="children", budget=BUDGET) as other:
        mine, theirs = pay(ledger, "r"), pay(other, "r")
        ledger.store(mine, b"first")
        assert "recall" in refused(Reason.LEDGER, lambda: other.store(theirs, b"second"))
        refused(Reason.LEDGER, lambda: ledger.store(mine, b"first"))
        refused(Reason.LEDGER, lambda: pay(other, "r"))
        assert other.recall("r") == b"first"
        assert ledger.spent() == Spent.of([EVENT])


def test_a_debit_whose_bytes_a_crash_took_is_not_paid_again(ledger: Ledger) -> None:
    lost = pay(ledger, "r")
    assert pay(ledger, "r") == lost
    assert ledger.spent() == Spent.of([EVENT])
    ledger.store(lost, b"bytes")
    refused(Reason.LEDGER, lambda: ledger.store(lost, b"other"))
    assert ledger.verify().ok


def test_a_receipt_of_elsewhere_stores_nothing(ledger: Ledger) -> None:
    with Ledger.in_memory(dataset="children", budget=BUDGET) as other:
        foreign = pay(other, "r")
    receipt = pay(ledger, "r")
    for forged in (
        replace(foreign),
        replace(receipt, request="s"),
        replace(receipt, seq=1),
        replace(receipt, seq=99),
    ):
        refused(Reason.LEDGER, partial(ledger.store, forged, b"bytes"))
    assert ledger.recall("r") is None and ledger.recall("s") is None


def test_threads_share_one_ledger(ledger: Ledger) -> None:
    granted: list[str] = []

    def work(name: str) -> None:
        for k in range(10):
            try:
                pay(ledger, f"{name}{k}")
            except Refusal as refusal:
                assert refusal.reason is Reason.BUDGET
            else:
                granted.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == min(40, fits(EVENT, BUDGET))


# the file


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    mask = os.umask(0)
    try:
        with Ledger.open(path, dataset="children", budget=BUDGET) as ledger:
            pay(ledger, "r")
            names = sorted(path.parent.iterdir())
            assert [name.name for name in names] == [path.name, f"{path.name}-shm", f"{path.name}-wal"]
            assert {stat.S_IMODE(name.stat().st_mode) for name in names} == {0o600}
    finally:
        os.umask(mask)


def test_a_changed_budget_is_recorded_and_holds_for_every_process(ledger: Ledger, path: Path) -> None:
    for k in range(fits(EVENT, BUDGET)):
        pay(ledger, f"r{k}")
    refused(Reason.BUDGET, lambda: pay(ledger, "more"))
    with Ledger.open(path, dataset="children", budget=WIDE):
        pay(ledger, "more")
    Ledger.open(path, dataset="children", budget=WIDE).close()
    with Ledger.open(path, dataset="children", budget=Budget(0.5, 1e-6)):
        refused(Reason.BUDGET, lambda: pay(ledger, "yet more"))
    budgets = [entry.budget for entry in ledger.entries() if entry.kind == Kind.BUDGET]
    assert budgets == [BUDGET, WIDE, Budget(0.5, 1e-6)]
    assert ledger.verify().ok


def test_entries_are_typed_and_complete(ledger: Ledger) -> None:
    ledger.store(pay(ledger, "r", ceiling=Budget(1, 1e-6)), b"bytes")
    budget, debit, release = ledger.entries()
    assert (budget.kind, budget.budget, budget.event) == (Kind.BUDGET, BUDGET, None)
    assert (debit.kind, debit.event, debit.budget) == (Kind.DEBIT, EVENT, Budget(1.0, 1e-6))
    assert (release.kind, release.debit, release.request) == (Kind.RELEASE, debit.seq, "r")
    for entry in (debit, release):
        assert (entry.study, entry.ask, entry.query) == ("growth", "r", "count/1")
    assert all(datetime.fromisoformat(entry.time).tzinfo == UTC for entry in (budget, debit, release))
    assert [entry.seq for entry in (budget, debit, release)] == [1, 2, 3]


def test_a_ledger_belongs_to_one_data_set(ledger: Ledger, path: Path) -> None:
    message = refused(Reason.LEDGER, lambda: Ledger.open(path, dataset="elders", budget=BUDGET))
    assert "'children'" in message and "'elders'" in message


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to have a header" * 20])
def test_a_file_that_is_no_ledger_is_never_a_fresh_budget(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(Reason.LEDGER, lambda: Ledger.open(path, dataset="children", budget=BUDGET))
    assert path.read_bytes() == content


def test_a_foreign_database_and_a_missing_folder_are_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY)")
    refused(Reason.LEDGER, lambda: Ledger.open(path, dataset="children", budget=BUDGET))
    nowhere = path.parent / "nowhere" / "ledger"
    assert "folder" in refused(Reason.LEDGER, lambda: Ledger.open(nowhere, dataset="children", budget=BUDGET))
    refused(Reason.LEDGER, lambda: Ledger.inspect(nowhere))


@pytest.mark.parametrize("change", ["PRAGMA user_version = 3", "PRAGMA journal_mode = DELETE"])
def test_another_version_or_journal_is_refused(path: Path, change: str) -> None:
    Ledger.open(path, dataset="children", budget=BUDGET).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(change)
    assert path.name in refused(Reason.LEDGER, lambda: Ledger.open(path, dataset="children", budget=BUDGET))


def test_the_rows_resist_plain_sql(ledger: Ledger, path: Path) -> None:
    ledger.store(pay(ledger, "r"), b"bytes")
    row = astuple(next(entry for entry in ledger.entries() if entry.kind == Kind.DEBIT))
    marks = ", ".join("?" * len(row))
    statements: list[tuple[str, tuple[object, ...]]] = [
        ("UPDATE entries SET sigma = 1", ()),
        ("DELETE FROM entries WHERE seq = 2", ()),
        (f"INSERT OR REPLACE INTO entries ({', '.join(COLUMNS)}) VALUES ({marks})", row),
        (f"INSERT OR REPLACE INTO entries SELECT 4, {', '.join(COLUMNS[1:])} FROM entries WHERE seq = 3", ()),
        ("UPDATE released SET bytes = x'00'", ()),
        ("DELETE FROM released", ()),
        ("INSERT OR REPLACE INTO released VALUES (3, x'00')", ()),
    ]  # fmt: skip
    with closing(sqlite3.connect(path)) as db:
        for statement, values in statements:
            with pytest.raises(sqlite3.IntegrityError, match=r"never|only appended"):
                db.execute(statement, values)
    assert ledger.verify().ok and ledger.verify().entries == 3


def test_a_held_lock_refuses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BUSY_SECONDS", 0.05)
    with (
        Ledger.open(path, dataset="children", budget=BUDGET) as ledger,
        closing(sqlite3.connect(path, isolation_level=None)) as db,
    ):
        db.execute("BEGIN IMMEDIATE")
        assert "SQLITE_BUSY" in refused(Reason.LEDGER, lambda: pay(ledger, "r"))
        db.execute("ROLLBACK")
        pay(ledger, "r")


def test_what_the_file_cannot_hold_is_refused(ledger: Ledger) -> None:
    before = ledger.head()
    refused(Reason.LEDGER, lambda: pay(ledger, "\ud800"))
    refused(Reason.LEDGER, lambda: ledger.store(Receipt(1 << 70, "r", before.hash), b"bytes"))
    assert ledger.head() == before


def test_a_closed_ledger_and_one_under_inspection_write_nothing(ledger: Ledger, path: Path) -> None:
    with Ledger.inspect(path) as seen:
        assert seen.dataset == "children"
        refused(Reason.LEDGER, lambda: pay(seen, "r"))
    ledger.close()
    refused(Reason.LEDGER, lambda: pay(ledger, "r"))


def test_a_file_replaced_or_removed_while_open_refuses(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    pay(ledger, "r")
    path.rename(tmp_path / "aside")
    refused(Reason.LEDGER, lambda: pay(ledger, "s"))
    with Ledger.open(path, dataset="children", budget=BUDGET) as fresh:
        assert "replaced" in refused(Reason.LEDGER, lambda: pay(ledger, "s"))
        pay(fresh, "s")


def test_a_memory_ledger_filters_and_recalls() -> None:
    with Ledger.in_memory(dataset="children", budget=BUDGET) as ledger:
        for k in range(fits(EVENT, BUDGET)):
            ledger.store(pay(ledger, f"r{k}"), b"bytes %d" % k)
        refused(Reason.BUDGET, lambda: pay(ledger, "more"))
        assert ledger.recall("r1") == b"bytes 1" and ledger.verify().ok
