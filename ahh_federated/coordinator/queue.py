"""The studies that researchers submitted, in order, with their states; they survive a restart.

queued ──► waiting (for approvals) ──► running ──► done
   └──────────────┴──────────────────────┴──────► failed, cancelled ──► queued, when submitted again
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

from ahh_federated.coordinator.database import Database, now
from ahh_federated.errors import Misuse
from ahh_federated.study import Study, read_canonical

MOST_A_DAY = 100  # studies of one researcher
_LEAST_PREFIX = 6

_SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    place INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, id TEXT NOT NULL, title TEXT NOT NULL,
    by TEXT NOT NULL, submitted TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, progress TEXT NOT NULL,
    content BLOB NOT NULL)
"""
_BRIEF = "digest, id, title, by, submitted, state, reason, progress"
_SELECT = f"SELECT {_BRIEF}, content FROM studies"
_WAITING = "state IN ('queued', 'waiting') ORDER BY place"


class State(StrEnum):
    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Queued:
    """A submitted study.  `content` is its canonical JSON, `digest` the SHA-256 of that, `by` the researcher."""

    digest: str
    id: str
    title: str
    by: str
    submitted: str
    state: State
    reason: str
    progress: Mapping[str, Any]
    content: bytes


class Named(Protocol):
    """What a study can be found by."""

    @property
    def digest(self) -> str: ...

    @property
    def id(self) -> str: ...


@final
class Queue:
    """The studies in the database `path`."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def submit(self, content: bytes, by: str) -> Queued:
        """Put a study at the end of the queue.

        The same study again changes nothing, unless it failed or was cancelled: then it is queued afresh.

        Raises:
            Misuse: when it is no study in canonical JSON, has expired, is another researcher's, has another one's version, or is
                one too many today.
        """
        study = read_canonical(content)
        if study.expires < datetime.now(UTC).date():
            raise Misuse(f"the study {study.id} expired on {study.expires}: raise `expires` and `version`")
        with self._db.change() as db:
            row = db.execute(f"{_SELECT} WHERE digest = ?", (study.digest,)).fetchone()
            found = None if row is None else _queued(row)
            if found is not None and found.by != by:
                raise Misuse(f"the study {study.id} was submitted by another researcher: raise its `version` to submit your own")
            if found is not None and found.state not in (State.FAILED, State.CANCELLED):
                return found
            _check_version(db, study)
            yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="milliseconds")
            recent = db.execute("SELECT count(*) FROM studies WHERE by = ? AND submitted > ?", (by, yesterday)).fetchone()[0]
            if recent >= MOST_A_DAY:
                raise Misuse(f"{by} has submitted {recent} studies in 24 hours: submit this one tomorrow")
            db.execute("DELETE FROM studies WHERE digest = ?", (study.digest,))
            new = (study.digest, study.id, study.title, by, now(), State.QUEUED, "", "{}", content)
            db.execute(f"INSERT INTO studies ({_BRIEF}, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
        return _queued(new)

    def get(self, digest: str) -> Queued | None:
        rows = self._db.rows(f"{_SELECT} WHERE digest = ?", (digest,))
        return _queued(rows[0]) if rows else None

    def find(self, name: str) -> Queued:
        """The study with this id or beginning of a digest.  Raises Misuse when there is none, or more than one."""
        found = self.get(match(self.studies(), name).digest)
        assert found is not None  # nothing is ever dropped
        return found

    def studies(self) -> list[Queued]:
        """Every study, oldest first, with an empty content: `get` has it."""
        return [_queued((*row, b"")) for row in self._db.rows(f"SELECT {_BRIEF} FROM studies ORDER BY place")]

    def waiting(self) -> list[Queued]:
        """The studies that are still to run, oldest first: queued, or waiting for approvals."""
        return [_queued(row) for row in self._db.rows(f"{_SELECT} WHERE {_WAITING}")]

    def order(self) -> list[str]:
        """The digests of the studies that are still to run, oldest first."""
        return [row[0] for row in self._db.rows(f"SELECT digest FROM studies WHERE {_WAITING}")]

    def set(self, digest: str, state: str, reason: str = "") -> bool:
        """Move a study on; False, and nothing changes, when it is over already, cancelled for example."""
        new = State(state)
        with self._db.change() as db:
            row = db.execute("SELECT state FROM studies WHERE digest = ?", (digest,)).fetchone()
            if row is None or State(row[0]).over:
                return False
            db.execute("UPDATE studies SET state = ?, reason = ? WHERE digest = ?", (new, reason, digest))
        return True

    def note(self, digest: str, progress: Mapping[str, Any]) -> None:
        """Keep how far a study is, for the researcher who asks."""
        text = json.dumps(progress, allow_nan=False)
        with self._db.change() as db:
            db.execute("UPDATE studies SET progress = ? WHERE digest = ?", (text, digest))

    def cancel(self, digest: str) -> bool:
        """Stop a study.  What was released and paid stays so.  False when it is over already."""
        return self.set(digest, State.CANCELLED, "the researcher stopped it")

    def resume(self) -> list[Queued]:
        """After a restart: what was running is queued again, in its old place."""
        with self._db.change() as db:
            db.execute("UPDATE studies SET state = ? WHERE state = ?", (State.QUEUED, State.RUNNING))
        return self.waiting()

    def close(self) -> None:
        self._db.close()


def _check_version(db: sqlite3.Connection, study: Study) -> None:
    """People tell the versions of a study apart by their number."""
    others = "SELECT content FROM studies WHERE id = ? AND digest <> ? AND state NOT IN ('failed', 'cancelled')"
    for (content,) in db.execute(others, (study.id, study.digest)):
        if read_canonical(content).version == study.version:
            raise Misuse(f"another study {study.id} of version {study.version} is here already: raise `version`")


_Some = TypeVar("_Some", bound=Named)


def match(studies: Iterable[_Some], name: str) -> _Some:
    """The one study with this id or beginning of a digest."""
    found = [each for each in studies if each.id == name or (len(name) >= _LEAST_PREFIX and each.digest.startswith(name))]
    if not found:
        raise Misuse(f"no study here is called {name!r}: look at the list of studies")
    if len(found) > 1:
        digests = ", ".join(each.digest[:12] for each in found)
        raise Misuse(f"{len(found)} studies are called {name!r}: name one by the beginning of its digest: {digests}")
    return found[0]


def _queued(row: tuple[Any, ...]) -> Queued:
    digest, id_, title, by, submitted, state, reason, progress, content = row
    return Queued(digest, id_, title, by, submitted, State(state), reason, json.loads(progress), content)
