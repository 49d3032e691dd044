"""The ledger's file: an SQLite database in WAL mode, synced in full, whose entries can only be appended."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ahh_federated.core.costs import Budget
from ahh_federated.node.chain import COLUMNS, GENESIS, PLAN, RESTORE, Entry, Head, Kind, chained, distrust

FORMAT = 2
_WITHOUT_PLANS = 1  # an earlier format, whose entries lack the columns of a plan
BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, time TEXT NOT NULL, dataset TEXT NOT NULL,
    request TEXT, study TEXT, ask TEXT, query TEXT,
    mechanism TEXT, sensitivity INTEGER, sigma INTEGER, width INTEGER,
    epsilon REAL, delta REAL, debit INTEGER, bytes_hash TEXT, previous TEXT NOT NULL, hash TEXT NOT NULL,
    rate INTEGER, count INTEGER, place INTEGER, steps INTEGER);
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


@contextmanager
def refusing(dataset: str, act: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, OverflowError, UnicodeError) as error:
        primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
        fix = _FIXES.get(primary, _WRITABLE if isinstance(error, OSError) else "check the disk")
        why = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
        raise distrust(dataset, f"it could not be {act} ({why}); {fix}; nothing is released until then") from error


def connect(path: Path, dataset: str) -> sqlite3.Connection:
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
        if found not in ([_WITHOUT_PLANS, "wal"], [FORMAT, "wal"]):
            what = f"{path.name} is empty, foreign or of another version (format, journal: {found})"
            raise distrust(dataset, f"{what}; {RESTORE}")
    except BaseException:
        db.close()
        raise
    return db


def upgrade(db: sqlite3.Connection) -> None:
    """Give a file of the earlier format the columns of a plan; its entries stay as they are, to the last hash."""
    db.execute("BEGIN IMMEDIATE")
    if db.execute("PRAGMA user_version").fetchone()[0] == _WITHOUT_PLANS:
        for name in PLAN:
            db.execute(f"ALTER TABLE entries ADD COLUMN {name} INTEGER")
        db.execute(f"PRAGMA user_version = {FORMAT}")
    db.execute("COMMIT")


def for_reading(db: sqlite3.Connection) -> None:
    """Nothing is written from here on; a file of the earlier format looks like one of this."""
    if db.execute("PRAGMA user_version").fetchone()[0] == _WITHOUT_PLANS:
        nothing = ", ".join(f"NULL AS {name}" for name in PLAN)
        db.execute(f"CREATE TEMP VIEW entries AS SELECT *, {nothing} FROM main.entries")
    db.execute("PRAGMA query_only = ON")


def create(path: Path, dataset: str, budget: Budget) -> None:
    """Build the file aside and link it into place: never half a ledger, never over another process's."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            begin(db, dataset, budget)
            db.execute("PRAGMA journal_mode = WAL")
        _sync(draft)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def begin(db: sqlite3.Connection, dataset: str, budget: Budget) -> None:
    db.executescript(f"BEGIN;\n{_SCHEMA}\nPRAGMA user_version = {FORMAT};")
    append(db, GENESIS, budget_entry(dataset, budget))
    db.execute("COMMIT")


def budget_entry(dataset: str, budget: Budget) -> Entry:
    epsilon, delta = float(budget.epsilon), float(budget.delta)
    return Entry(kind=Kind.BUDGET.value, dataset=dataset, epsilon=epsilon, delta=delta)


def append(db: sqlite3.Connection, head: Head, content: Entry) -> Entry:
    entry = chained(content, head, datetime.now(UTC).isoformat(timespec="milliseconds"))
    db.execute(_INSERT, [getattr(entry, name) for name in COLUMNS])
    return entry


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
