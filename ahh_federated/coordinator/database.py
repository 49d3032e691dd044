"""The coordinator's one SQLite file, shared by roster, queue and witness, and by several processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from ahh_federated.errors import Unreachable

FORMAT = 1
BUSY_SECONDS = 30.0


@final
class Database:
    """One connection, safe under several threads.  Carry none across a fork; keep the file on a local disk.

    Every method raises Unreachable when the file cannot be read or written: full disk, foreign file, a lock held too long.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._reachable():
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(schema)
            except BaseException:
                self._db.close()
                raise

    def rows(self, select: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._reachable():
            return self._db.execute(select, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other writer can enter; all of it is on the disk at its end, or nothing."""
        with self._lock, self._reachable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _prepare(self, schema: str) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "fullfsync = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        with self.change() as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise sqlite3.DatabaseError(f"it is of format {found}, this version reads format {FORMAT}")
            for statement in filter(str.strip, schema.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT}")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            fix = "check the disk, the file's rights, and that it is the coordinator's own database"
            raise Unreachable(f"{self._path} cannot be used ({error}): {fix}") from error


def now() -> str:
    """The time in UTC as ISO 8601, which sorts as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
