"""The privacy ledger: what every release of one data set has cost its patients, kept for good.

One SQLite file per data set, for all studies, researchers and coordinators.  The order is: debit (on the
disk before anything is computed), compute, store the bytes, send.  A crash in between wastes budget and leaks
nothing.  A repeated request gets the stored bytes, never a fresh draw.  Nothing is refunded, and time refills
nothing.

Entries are appended, never changed, and chained (`chain.py` says what the chain shows and what only a
witness can).  The file is safe under several processes, each with its own `Ledger`; carry none across a fork.
It must lie on a local disk: network file systems break SQLite's locks.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, final

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.chain import (
    COLUMNS,
    GENESIS,
    RESTORE,
    Entry,
    Head,
    Kind,
    Totals,
    Verdict,
    broken,
    chained,
    distrust,
    sha256,
    walk,
)

__all__ = ["Entry", "Head", "Kind", "Ledger", "Receipt", "Verdict"]

FORMAT = 1
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, time TEXT NOT NULL, dataset TEXT NOT NULL,
    request TEXT, study TEXT, ask TEXT, query TEXT,
    mechanism TEXT, sensitivity INTEGER, sigma INTEGER, width INTEGER,
    epsilon REAL, delta REAL, debit INTEGER, bytes_hash TEXT, previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE released (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE INDEX steps ON entries (study, ask) WHERE kind = 'debit';
CREATE UNIQUE INDEX one_release ON entries (request) WHERE kind = 'release';
CREATE TRIGGER entries_append BEFORE INSERT ON entries
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entries) OR NEW.kind = 'release'
        AND EXISTS (SELECT 1 FROM entries WHERE kind = 'release' AND request = NEW.request)
    BEGIN SELECT RAISE(ABORT, 'entries are only appended'); END;
CREATE TRIGGER entries_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries never change'); END;
CREATE TRIGGER entries_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are never dropped'); END;
CREATE TRIGGER released_append BEFORE INSERT ON released
    WHEN EXISTS (SELECT 1 FROM released WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'bytes are only appended'); END;
CREATE TRIGGER released_update BEFORE UPDATE ON released
    BEGIN SELECT RAISE(ABORT, 'bytes never change'); END;
CREATE TRIGGER released_delete BEFORE DELETE ON released
    BEGIN SELECT RAISE(ABORT, 'bytes are never dropped'); END;
"""
_SELECT = f"SELECT {', '.join(f'entries.{name}' for name in COLUMNS)}"
_INSERT = f"INSERT INTO entries ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

_WRITABLE = "make the file and its folder exist and be writable for the node alone"
_FIXES = {
    sqlite3.SQLITE_FULL: "free some disk space",
    sqlite3.SQLITE_BUSY: "end the process that holds the file",
    sqlite3.SQLITE_READONLY: _WRITABLE,
    sqlite3.SQLITE_CANTOPEN: _WRITABLE,
    sqlite3.SQLITE_CORRUPT: RESTORE,
    sqlite3.SQLITE_NOTADB: RESTORE,
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a release is paid for: the debit's place in the ledger."""

    seq: int
    request: str
    hash: str


@final
class Ledger:
    """The ledger of one data set; see the module.

    Every method raises `Refusal` with `Reason.LEDGER` when the file cannot be trusted or written: full disk,
    I/O error, a lock held too long, a broken chain, a file swapped while open.  Release nothing then.
    """

    def __init__(self, db: sqlite3.Connection, dataset: str, path: Path | None = None) -> None:
        self.dataset = dataset
        self._db = db
        self._path = path
        self._file = None if path is None else _identity(path)
        self._lock = threading.RLock()
        self._totals = Totals(dataset)

    @classmethod
    def open(cls, path: Path, *, dataset: str, budget: Budget) -> Ledger:
        """Open the ledger at `path`, or create it there (mode 0600) if there is no file.

        A budget that differs from the recorded one is recorded and holds from then on, for every process.
        An empty or foreign file, or the ledger of another data set, is refused: it would be a fresh budget.
        """
        with _refusing(dataset, "opened"):
            if not path.exists():
                _create(path, dataset, budget)
            ledger = cls(_connect(path, dataset), dataset, path)
        try:
            ledger._adopt(budget)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def inspect(cls, path: Path) -> Ledger:
        """Open an existing ledger to read or verify it, whatever its state; debit and store are refused."""
        with _refusing(path.name, "opened"):
            db = _connect(path, path.name)
            db.execute("PRAGMA query_only = ON")
            first = db.execute("SELECT dataset FROM entries ORDER BY seq LIMIT 1").fetchone()
            return cls(db, path.name if first is None else str(first[0]), path)

    @classmethod
    def in_memory(cls, *, dataset: str, budget: Budget) -> Ledger:
        """A ledger that ends with the process: for the laboratory and for tests, never for a serving node."""
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        _found(db, dataset, budget)
        return cls(db, dataset)

    def recall(self, request: str) -> bytes | None:
        """The bytes released under this request id, if any."""
        with self._transaction("read", "DEFERRED"):
            self._catch_up()
            row = self._db.execute(
                "SELECT seq, bytes_hash, bytes FROM entries LEFT JOIN released USING (seq)"
                " WHERE kind = 'release' AND request = ?",
                (request,),
            ).fetchone()
        if row is None:
            return None
        seq, bytes_hash, released = row
        if not isinstance(released, bytes) or sha256(released) != bytes_hash:
            raise broken(self.dataset, seq, "its bytes are not the ones released")
        return released

    def debit(self, *, request: str, study: str, ask: str, query: str, event: Event, ceiling: Budget) -> Receipt:
        """Pay for one release; on the disk before this returns.

        Refused with `Reason.BUDGET`, and nothing written, when the event would take the data set past its
        budget or the study past its ceiling; with `Reason.SCHEDULE` when another request was debited for the
        same step (`ask`) of the study.  A request debited before without bytes stored is paid again.
        """
        content = Entry(
            kind=Kind.DEBIT.value,
            dataset=self.dataset,
            request=request,
            study=study,
            ask=ask,
            query=query,
            mechanism=event.mechanism,
            sensitivity=event.sensitivity,
            sigma=event.sigma,
            width=event.width,
            epsilon=float(ceiling.epsilon),
            delta=float(ceiling.delta),
        )
        with self._transaction("debited"):
            totals = self._catch_up()
            self._require_unreleased(request)
            self._require_only(request, study, ask)
            totals.admit(study, event, ceiling)
            entry = _append(self._db, totals.head, content)
        return Receipt(entry.seq, request, entry.hash)

    def store(self, receipt: Receipt, released: bytes) -> None:
        """Keep the bytes of a paid release under its request id; on the disk before this returns.

        Refused when the receipt is not of this ledger or the request has its bytes already: recall those.
        """
        with self._transaction("given the released bytes"):
            totals = self._catch_up()
            paid = self._paid(receipt)
            self._require_unreleased(receipt.request)
            content = Entry(
                kind=Kind.RELEASE.value,
                dataset=self.dataset,
                request=paid.request,
                study=paid.study,
                ask=paid.ask,
                query=paid.query,
                debit=paid.seq,
                bytes_hash=sha256(released),
            )
            entry = _append(self._db, totals.head, content)
            self._db.execute("INSERT INTO released (seq, bytes) VALUES (?, ?)", (entry.seq, released))

    def spent(self, study: str | None = None) -> Spent:
        """What the whole data set, or one study, has cost a patient so far."""
        with self._transaction("read", "DEFERRED"):
            totals = self._catch_up()
            return totals.whole if study is None else totals.study(study)

    def head(self) -> Head:
        """The last entry: what a witness should keep."""
        with self._transaction("read", "DEFERRED"):
            return self._catch_up().head

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first, as written: not checked."""
        with self._transaction("read", "DEFERRED"):
            rows = self._db.execute(f"{_SELECT} FROM entries ORDER BY seq").fetchall()
        return (Entry(*row) for row in rows)

    def verify(self, witness: Head | None = None) -> Verdict:
        """Walk the whole chain and every stored byte.

        A tail cut off or rewritten shows only against a `witness`: an earlier `head`, kept elsewhere.
        """
        with self._transaction("read", "DEFERRED"):
            state = str(self._db.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if state != "ok":
                return Verdict(False, 0, GENESIS, None, f"the file itself is damaged ({state}); {RESTORE}")
            joined = f"{_SELECT}, bytes FROM entries LEFT JOIN released USING (seq) ORDER BY entries.seq"
            verdict = walk(((Entry(*row[:-1]), row[-1]) for row in self._db.execute(joined)), witness)
            stray = "SELECT min(seq) FROM released WHERE seq NOT IN (SELECT seq FROM entries)"
            orphan: int | None = self._db.execute(stray).fetchone()[0]
        if verdict.ok and orphan is not None:
            why = f"entry {orphan} is gone, its bytes are not"
            return replace(verdict, ok=False, first_bad=orphan, why=why)
        return verdict

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _adopt(self, budget: Budget) -> None:
        with self._transaction("opened"):
            first = self._db.execute("SELECT dataset FROM entries ORDER BY seq LIMIT 1").fetchone()
            if first != (self.dataset,):
                whose = "no data set" if first is None else f"data set {first[0]!r}"
                fix = "give every data set a file of its own, and keep the name it began with"
                raise distrust(self.dataset, f"the file is the ledger of {whose}; {fix}")
            last = "SELECT epsilon, delta FROM entries WHERE kind = 'budget' ORDER BY seq DESC LIMIT 1"
            if self._db.execute(last).fetchone() != (budget.epsilon, budget.delta):
                _append(self._db, self._catch_up().head, _budget_entry(self.dataset, budget))

    def _paid(self, receipt: Receipt) -> Entry:
        row = self._db.execute(
            f"{_SELECT} FROM entries WHERE seq = ? AND hash = ? AND request = ? AND kind = 'debit'",
            (receipt.seq, receipt.hash, receipt.request),
        ).fetchone()
        if row is None:
            what = f"it holds no debit {receipt.seq} for request {receipt.request!r}"
            raise distrust(self.dataset, f"{what}; debit the request here first")
        return Entry(*row)

    def _require_unreleased(self, request: str) -> None:
        released = "SELECT seq FROM entries WHERE kind = 'release' AND request = ?"
        row = self._db.execute(released, (request,)).fetchone()
        if row is not None:
            raise distrust(self.dataset, f"request {request!r} was released in entry {row[0]}; recall those bytes")

    def _require_only(self, request: str, study: str, ask: str) -> None:
        query = "SELECT 1 FROM entries WHERE kind = 'debit' AND study = ? AND ask = ? AND request <> ? LIMIT 1"
        if self._db.execute(query, (study, ask, request)).fetchone() is not None:
            what = f"step {ask} of this study was asked before, with other numbers: raise the study's version"
            raise Refusal(Reason.SCHEDULE, f"{self.dataset}: {what}")

    def _catch_up(self) -> Totals:
        """The totals up to the last entry on the disk, each link checked; only inside a transaction."""
        head = self._totals.head
        if head != GENESIS:
            seen = self._db.execute("SELECT hash FROM entries WHERE seq = ?", (head.seq,)).fetchone()
            if seen != (head.hash,):
                raise broken(self.dataset, head.seq, "it was dropped or changed since this process read it")
        for row in self._db.execute(f"{_SELECT} FROM entries WHERE seq > ? ORDER BY seq", (head.seq,)):
            self._totals.follow(Entry(*row))
        return self._totals

    @contextmanager
    def _transaction(self, act: str, mode: str = "IMMEDIATE") -> Iterator[None]:
        with self._lock, _refusing(self.dataset, act):
            if self._path is not None and _identity(self._path) != self._file:
                raise broken(self.dataset, self._totals.head.seq, "the file was replaced while it was open")
            self._db.execute(f"BEGIN {mode}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _refusing(dataset: str, act: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        fix = _FIXES.get(primary, _WRITABLE if isinstance(error, OSError) else "check the disk")
        why = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
        raise distrust(dataset, f"it could not be {act} ({why}); {fix}; nothing is released until then") from error


def _connect(path: Path, dataset: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")
        found = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "journal_mode")]
        if found != [FORMAT, "wal"]:
            what = f"{path.name} is empty, foreign or of another version (format, journal: {found})"
            raise distrust(dataset, f"{what}; {RESTORE}")
    except BaseException:
        db.close()
        raise
    return db


def _create(path: Path, dataset: str, budget: Budget) -> None:
    """Build the file aside and link it into place: never half a ledger, never over another process's."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            _found(db, dataset, budget)
            db.execute("PRAGMA journal_mode = WAL")
        _sync(draft)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def _found(db: sqlite3.Connection, dataset: str, budget: Budget) -> None:
    db.executescript(f"BEGIN;\n{_SCHEMA}\nPRAGMA user_version = {FORMAT};")
    _append(db, GENESIS, _budget_entry(dataset, budget))
    db.execute("COMMIT")


def _budget_entry(dataset: str, budget: Budget) -> Entry:
    epsilon, delta = float(budget.epsilon), float(budget.delta)
    return Entry(kind=Kind.BUDGET.value, dataset=dataset, epsilon=epsilon, delta=delta)


def _append(db: sqlite3.Connection, head: Head, content: Entry) -> Entry:
    entry = chained(content, head, datetime.now(UTC).isoformat(timespec="milliseconds"))
    db.execute(_INSERT, astuple(entry))
    return entry


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
