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

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, final

from ahh_federated.core.costs import SAMPLED, Budget, Event, Spent
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.chain import (
    COLUMNS,
    GENESIS,
    PLAN,
    RESTORE,
    Entry,
    Head,
    Kind,
    Plans,
    Totals,
    Verdict,
    broken,
    distrust,
    sha256,
    walk,
)
from ahh_federated.node.ledger_file import append, begin, budget_entry, connect, create, for_reading, identity, refusing, upgrade

__all__ = ["Entry", "Head", "Kind", "Ledger", "Receipt", "Verdict"]

PREFIX = 16  # characters of a hash: enough to know an entry by
_RECENT = 32
_SELECT = f"SELECT {', '.join(f'entries.{name}' for name in COLUMNS)}"


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
        self._file = None if path is None else identity(path)
        self._lock = threading.RLock()
        self._totals = Totals(dataset)

    @classmethod
    def open(cls, path: Path, *, dataset: str, budget: Budget) -> Ledger:
        """Open the ledger at `path`, or create it there (mode 0600) if there is no file.

        A budget that differs from the recorded one is recorded and holds from then on, for every process.
        An empty or foreign file, or the ledger of another data set, is refused: it would be a fresh budget.
        """
        with refusing(dataset, "opened"):
            if not path.exists():
                create(path, dataset, budget)
            ledger = cls(connect(path, dataset), dataset, path)
        try:
            with refusing(dataset, "opened"):
                upgrade(ledger._db)
            ledger._adopt(budget)
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def inspect(cls, path: Path) -> Ledger:
        """Open an existing ledger to read or verify it, whatever its state; debit and store are refused."""
        with refusing(path.name, "opened"):
            db = connect(path, path.name)
            for_reading(db)
            first = db.execute("SELECT dataset FROM entries ORDER BY seq LIMIT 1").fetchone()
            return cls(db, path.name if first is None else str(first[0]), path)

    @classmethod
    def in_memory(cls, *, dataset: str, budget: Budget) -> Ledger:
        """A ledger that ends with the process: for the laboratory and for tests, never for a serving node."""
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        begin(db, dataset, budget)
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
        same step (`ask`) of the study.  A request debited before, whose bytes a crash kept from being stored, is not
        paid again: nothing of it can have left, since bytes are sent only once they are stored.
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
            **({name: getattr(event, name) for name in PLAN} if event.mechanism == SAMPLED else {}),
        )
        with self._transaction("debited"):
            totals = self._catch_up()
            self._require_unreleased(request)
            self._require_only(request, study, ask)
            paid = self._debited(content)
            if paid is None:
                totals.admit(study, ask, event, ceiling)
                entry = append(self._db, totals.head, content)
                paid = Receipt(entry.seq, request, entry.hash)
        return paid

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
            entry = append(self._db, totals.head, content)
            self._db.execute("INSERT INTO released (seq, bytes) VALUES (?, ?)", (entry.seq, released))

    def spent(self, study: str | None = None) -> Spent:
        """What the whole data set, or one study, has cost a patient so far."""
        with self._transaction("read", "DEFERRED"):
            totals = self._catch_up()
            return totals.whole if study is None else totals.study(study)

    def spent_until(self, seq: int) -> Spent:
        """What the entries up to this one have cost."""
        return Spent.of(entry.event for entry in self.entries() if entry.seq <= seq and entry.event is not None)

    def unfinished_at(self, seq: int) -> Spent:
        """What is paid and can still be drawn from when this entry is the last: plans not finished, debits not released.

        Two copies of a ledger that part there may both go on with it.
        """
        plans, opened = Plans(), dict[int | None, Entry]()
        for entry in self.entries():
            if entry.seq > seq:
                break
            if entry.kind in (Kind.DEBIT, Kind.BURN) and entry.event is not None:
                plans.follow(entry, entry.event)
            if entry.kind == Kind.DEBIT:
                opened[entry.seq] = entry
            opened.pop(entry.debit if entry.kind == Kind.RELEASE else None, None)
        return plans.unfinished(opened.values())

    def holds(self, head: Head) -> bool:
        """Whether this ledger has that entry, or has paid for having lost it."""
        found = "SELECT 1 FROM entries WHERE seq = ? AND hash = ? OR kind = 'burn' AND debit = ? AND request = ?"
        with self._transaction("read", "DEFERRED"):
            return head == GENESIS or self._db.execute(found, (*(head.seq, head.hash) * 2,)).fetchone() is not None

    def ancestors(self) -> tuple[tuple[int, str], ...]:
        """Entries before the last one, all of the newest and ever fewer of the older, with the beginnings of their hashes."""
        with self._transaction("read", "DEFERRED"):
            last = self._catch_up().head.seq
            wanted = {last - back for back in (*range(1, _RECENT + 1), *(1 << power for power in range(6, 53))) if back < last}
            found = (
                f"SELECT seq, substr(hash, 1, {PREFIX}) FROM entries WHERE seq IN ({', '.join('?' * len(wanted))}) ORDER BY seq"
            )
            return tuple((seq, start) for seq, start in self._db.execute(found, sorted(wanted)))

    def shares(self, ancestors: Iterable[tuple[int, str]]) -> int:
        """The last of these entries that this ledger has as well; 0 when it has none."""
        with self._transaction("read", "DEFERRED"):
            found = f"SELECT 1 FROM entries WHERE seq = ? AND substr(hash, 1, {PREFIX}) = ?"
            return max((seq for seq, start in ancestors if self._db.execute(found, (seq, start)).fetchone()), default=0)

    def burn(self, lost: Head, event: Event) -> None:
        """Pay for entries that a witness saw and this ledger lacks, whatever the budget says; then it stands for `lost`."""
        content = Entry(
            kind=Kind.BURN.value,
            dataset=self.dataset,
            request=lost.hash,
            debit=lost.seq,
            mechanism=event.mechanism,
            sensitivity=event.sensitivity,
            sigma=event.sigma,
            width=event.width,
        )
        with self._transaction("given a burn"):
            append(self._db, self._catch_up().head, content)

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
                append(self._db, self._catch_up().head, budget_entry(self.dataset, budget))

    def _paid(self, receipt: Receipt) -> Entry:
        row = self._db.execute(
            f"{_SELECT} FROM entries WHERE seq = ? AND hash = ? AND request = ? AND kind = 'debit'",
            (receipt.seq, receipt.hash, receipt.request),
        ).fetchone()
        if row is None:
            what = f"it holds no debit {receipt.seq} for request {receipt.request!r}"
            raise distrust(self.dataset, f"{what}; debit the request here first")
        return Entry(*row)

    def _debited(self, content: Entry) -> Receipt | None:
        """The debit of this very request for this very event, if there is one."""
        same = ("request", "study", "ask", "query", "mechanism", "sensitivity", "sigma", "width", *PLAN)
        found = self._db.execute(
            f"SELECT seq, hash FROM entries WHERE kind = 'debit' AND {' AND '.join(f'{name} IS ?' for name in same)}",
            [getattr(content, name) for name in same],
        ).fetchone()
        return None if found is None else Receipt(found[0], content.request or "", found[1])

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
        with self._lock, refusing(self.dataset, act):
            if self._path is not None and identity(self._path) != self._file:
                raise broken(self.dataset, self._totals.head.seq, "the file was replaced while it was open")
            self._db.execute(f"BEGIN {mode}")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
