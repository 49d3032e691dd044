"""A planted patient: whatever goes wrong, nothing that only this patient has is in any reply, log, error or file."""

from __future__ import annotations

import base64
import json
import logging
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.analyses import counts, glm, histograms, moments, quantiles, rounds, scores
from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import Exchange, Header, dump_exchange, dump_header, dump_spending
from ahh_federated.core import gate
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.releases import Status
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.node.tables import find_tables, load_cohort, read_table
from ahh_federated.runtimes.local import LocalLink
from tests.study.samples import BUDGET, QUIET, TODAY, debits, rows, small

WORD = "Zq7canary"
NUMBERS = {"weight": 4.839506172, "bmi": 28.839506173}
STUDY = small(*QUIET)
PLANTED = {
    "child": f"{WORD}-key",
    "seen": "2026-08-17",
    "sex": "boy",
    "smoked": "stopped",
    **{name: f"{value:.9f}" for name, value in NUMBERS.items()},
    "name": f"{WORD} {WORD}",
}


def marks() -> list[bytes]:
    """Everything that would give the patient away: words, digits, and the numbers as eight bytes, also in base64."""
    found = [WORD.encode(), WORD.lower().encode(), b"839506", b"2026-08-17", base64.b64encode(WORD.encode())[:10]]
    for value in NUMBERS.values():
        found += [struct.pack(order + "d", value) for order in "<>"]
        found.append(base64.b64encode(struct.pack("<d", value))[:10])
    return found


def betrayed(text: str | bytes) -> list[bytes]:
    data = text.encode() if isinstance(text, str) else text
    return [mark for mark in marks() if mark in data or mark in data.lower()]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    for seed, name in enumerate(("east", "north", "south")):
        held = pd.concat([rows(300, seed), pd.DataFrame([PLANTED])]) if name == "north" else rows(300, seed)
        held.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """After each test: logs, standard output and error, and every file but the table itself."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    assert betrayed(caplog.text + printed.out + printed.err) == []
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != tmp_path / "tables" / "north.csv":
            assert betrayed(path.read_bytes()) == [], path


class Played:
    """A whole run over local desks, with everything that crossed the wire or was told kept."""

    def __init__(self, tables: Path, out: Path, ledgers: Callable[[str], Any]) -> None:
        self.heard: list[bytes] = []
        self.told: list[str] = []
        self.exchanges: list[Exchange] = []
        desks = {}
        for name, path in find_tables(tables).items():
            held = load_cohort(read_table(path), STUDY, path.name)
            desks[name] = Desk(name, STUDY, held, ledgers(name), Policy(BUDGET, 10), Entropy.system(), "", self.told.append)
        self.desks = desks
        header = Header(STUDY, tuple(sorted(desks)), "", False)
        out.mkdir()
        with (out / "transcript.jsonl").open("w") as file:
            file.write(dump_header(header))

            def record(exchange: Exchange) -> None:
                self.exchanges.append(exchange)
                self.heard += [reply.to_bytes() for reply in exchange.replies.values()]
                file.write(dump_exchange(exchange))

            session = Session(STUDY, LocalLink(desks, TODAY), record, Silent())
            outcomes = session.outcomes()
            file.write(dump_spending({}))
        self.results = Results(header, outcomes, self.exchanges, {}, "test")
        (out / "results.json").write_text(json.dumps(self.results.to_json()))

    def statuses(self, partner: str) -> set[Status]:
        return {exchange.replies[partner].status for exchange in self.exchanges if partner in exchange.replies}

    def assert_silent(self) -> None:
        assert len(self.heard) > 0
        for said in [*self.heard, *self.told, repr(self.desks), repr(self.exchanges), repr(self.results)]:
            assert betrayed(said) == []
        for exchange in self.exchanges:
            for reply in exchange.replies.values():
                assert reply.exact is None
                assert betrayed(reply.cells or b"") == []


def in_memory(name: str) -> Ledger:
    return Ledger.in_memory(dataset=name, budget=BUDGET)


def test_the_marks_would_be_found(tables: Path) -> None:
    assert len(betrayed((tables / "north.csv").read_bytes())) >= 3
    held = load_cohort(read_table(tables / "north.csv"), STUDY, "north.csv")
    assert len(betrayed(held["weight"].tobytes() + held["bmi"].tobytes())) == 2


def test_a_whole_run(tables: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:

        def on_disk(name: str) -> Ledger:
            return stack.enter_context(Ledger.open(tmp_path / f"{name}.ledger", dataset=name, budget=BUDGET))

        played = Played(tables, tmp_path / "out", on_disk)
    assert played.statuses("north") == {Status.RELEASED}
    assert {outcome.status for outcome in played.results.outcomes} == {Status.RELEASED}
    played.assert_silent()


class Quoting(Exception):
    """The worst error there can be: its text, its arguments and its frame quote the patient."""


def quoting(plain: Callable[..., Any], rehearsed: bool) -> Callable[..., Any]:
    """Fails, with the patient's words, where patients are computed with; where they are made up too, if so asked."""

    def fail(*arguments: Any, **others: Any) -> Any:
        patients = [len(each) for each in arguments if isinstance(each, Cohort)]
        if patients and patients[0] <= 2 and rehearsed:
            return plain(*arguments, **others)
        words = dict(PLANTED)
        logging.getLogger("numpy").debug("computing")
        raise Quoting(f"cannot use {words}", *NUMBERS.values())

    return fail


FAULTS: dict[str, list[tuple[object, str]]] = {
    "rows of every query": [
        *((each, "rows") for each in (counts.CellCounts, moments.MomentSums, histograms.BinCounts, quantiles.TreeCounts)),
        *((each, "rows") for each in (glm.Complete, glm.FeatureMoments, glm.ClassSums, glm.Score, scores.RiskCounts)),
        (glm.Gram, "factors"),
    ],
    "rows of the score alone": [(glm.Score, "rows")],
    "what shares x": [(rounds.Second, "vectors")],
    "the exact sum": [(gate, "integer_sum")],
    "the noise": [(gate, "discrete_gaussian")],
}


@pytest.mark.parametrize("rehearsed", [True, False])
@pytest.mark.parametrize("where", FAULTS)
def test_errors_that_quote_the_patient(
    where: str, rehearsed: bool, tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in FAULTS[where]:
        monkeypatch.setattr(owner, name, quoting(getattr(owner, name), rehearsed))
    played = Played(tables, tmp_path / "out", in_memory)
    played.assert_silent()
    replies = [reply for exchange in played.exchanges for reply in exchange.replies.values()]
    failed = {(reply.status, reply.reason) for reply in replies if reply.status is not Status.RELEASED}
    paid = rehearsed or where == "the noise"  # a rehearsal is not noised
    assert failed == {(Status.FAILED, "") if paid else (Status.REFUSED, "query")}


def test_what_is_not_finite_warns_nobody(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One patient's row overflows: a warning, or a failure, would be about that patient alone."""
    plain = moments.MomentSums.rows

    def overflowing(self: moments.MomentSums, held: Any) -> Any:
        found = plain(self, held).copy()
        found[np.abs(held["weight"] - NUMBERS["weight"]) < 1e-9] *= 1e308
        return found * 1e5

    monkeypatch.setattr(moments.MomentSums, "rows", overflowing)
    played = Played(tables, tmp_path / "out", in_memory)
    played.assert_silent()
    assert Status.FAILED not in played.statuses("north")


class Faulty:
    """A ledger of which one act fails, with a text that quotes the patient."""

    def __init__(self, ledger: Ledger, act: str, error: type[Exception]) -> None:
        self._ledger, self._act, self._error = ledger, act, error

    def __getattr__(self, name: str) -> Any:
        if name != self._act:
            return getattr(self._ledger, name)

        def fail(*arguments: Any, **others: Any) -> Any:
            if self._error is Refusal:
                raise Refusal(Reason.LEDGER, "the disk is full")
            raise self._error(f"{PLANTED}")

        return fail


@pytest.mark.parametrize("error", [Refusal, OSError, MemoryError, KeyError])
@pytest.mark.parametrize("act", ["recall", "debit", "store"])
def test_a_ledger_that_fails(act: str, error: type[Exception], tables: Path, tmp_path: Path) -> None:
    ledgers = {name: Faulty(in_memory(name), act, error) for name in ("east", "north", "south")}
    played = Played(tables, tmp_path / "out", ledgers.__getitem__)
    played.assert_silent()
    assert played.statuses("north") == {Status.REFUSED if error is Refusal else Status.FAILED}
    assert (debits(ledgers["north"]._ledger) > 0) == (act == "store")


def test_a_full_disk(tables: Path, tmp_path: Path) -> None:
    """The ledger's file may not grow: the debit cannot be written, so nothing is computed and nothing is said."""
    with ExitStack() as stack:

        def full(name: str) -> Ledger:
            ledger = stack.enter_context(Ledger.open(tmp_path / f"{name}.ledger", dataset=name, budget=BUDGET))
            pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
            ledger._db.execute(f"PRAGMA max_page_count = {pages}")
            return ledger

        played = Played(tables, tmp_path / "out", full)
        refused = [exchange.replies["north"] for exchange in played.exchanges if "north" in exchange.replies]
    played.assert_silent()
    assert "ledger" in {reply.reason for reply in refused}
    assert all("free some disk space" in line for line in played.told)


BAD_CELLS = {"sex": f"{WORD}", "weight": f"{WORD} 4.839506172", "smoked": f"{WORD}", "seen": f"{WORD} 2026-08-17", "child": " "}


@pytest.mark.parametrize("column", BAD_CELLS)
def test_a_table_that_cannot_be_read(column: str, tables: Path, tmp_path: Path) -> None:
    pd.concat([rows(5), pd.DataFrame([{**PLANTED, column: BAD_CELLS[column]}])]).to_csv(tables / "north.csv", index=False)
    try:
        ahh.run(STUDY, tables, out=tmp_path / "out")
    except Refusal as error:
        shown = "".join(traceback.format_exception(error))
        assert betrayed(shown) == []
        assert "north.csv: 1 rows" in shown
    else:
        pytest.fail("the table was used")
    assert not (tmp_path / "out").exists()


def test_a_cohort_in_an_uncaught_error_says_nothing(tables: Path) -> None:
    held = load_cohort(read_table(tables / "north.csv"), STUDY, "north.csv")
    try:
        raise ValueError("could not use", held)
    except ValueError:
        assert betrayed(traceback.format_exc()) == []
        assert betrayed(repr(sys.exc_info()[1])) == []
