"""The chain: every mutation of a ledger is found where it is, save a tail cut off, which needs a witness."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node import chain
from ahh_federated.node.chain import Entry, Head, Kind
from ahh_federated.node.ledger import Ledger, Receipt

WIDE = Budget(5.0, 1e-2)
EVENT = Event(sensitivity=1 << 20, sigma=1 << 22, width=3)


def pay(ledger: Ledger, request: str, study: str = "growth", event: Event = EVENT) -> Receipt:
    return ledger.debit(request=request, study=study, ask=request, query="count/1", event=event, ceiling=WIDE)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        act()
    assert caught.value.reason is Reason.LEDGER
    return str(caught.value)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed ledger of 41 entries whose last is a release."""
    path = tmp_path_factory.mktemp("sound") / "ledger"
    with Ledger.open(path, dataset="children", budget=WIDE) as ledger:
        for k in range(14):
            receipt = pay(ledger, f"r{k}", study=("growth", "diet")[k % 2])
            if k % 5 == 4:
                continue
            ledger.store(receipt, bytes([k]) * (k + 2))
        for k in range(7):
            ledger.store(pay(ledger, f"t{k}", event=Event(1 << 20, 1 << 28, 2)), b"tail %d" % k)
    return path


def tampered(sound: Path, path: Path) -> sqlite3.Connection:
    """A copy with the triggers and the unique index gone, open for any change."""
    shutil.copy(sound, path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    db.execute("DROP INDEX one_release")
    return db


def read(db: sqlite3.Connection) -> list[Entry]:
    return [Entry(*row) for row in db.execute(f"SELECT {', '.join(chain.COLUMNS)} FROM entries ORDER BY seq")]


def write(db: sqlite3.Connection, entry: Entry) -> None:
    marks = ", ".join("?" * len(chain.COLUMNS))
    db.execute(f"INSERT OR REPLACE INTO entries ({', '.join(chain.COLUMNS)}) VALUES ({marks})", astuple(entry))


def edit(db: sqlite3.Connection, rng: random.Random) -> int:
    entry = rng.choice(read(db))
    column = rng.choice(chain.COLUMNS)
    old = getattr(entry, column)
    choices: list[object]
    if column == "seq":
        choices = [entry.seq + 1000]
    elif isinstance(old, str):
        choices = [old + "x", old[:-1], old.upper() + " ", b"\xff"]
    elif isinstance(old, int | float):
        choices = [old * 2, old + 1, -old, "x", None]
    else:
        choices = [0, 7, "", "x", 0.5]
    db.execute(f"UPDATE entries SET {column} = ? WHERE seq = ?", (rng.choice(choices), entry.seq))
    return entry.seq


def edit_and_rehash(db: sqlite3.Connection, rng: random.Random) -> int:
    entry = rng.choice(read(db)[:-1])
    changed = replace(entry, study="forged")
    write(db, replace(changed, hash=chain.digest(changed)))
    return entry.seq + 1


def drop(db: sqlite3.Connection, rng: random.Random) -> int:
    seq = rng.choice(read(db)[:-1]).seq
    db.execute("DELETE FROM entries WHERE seq = ?", (seq,))
    if rng.random() < 0.5:
        db.execute("DELETE FROM released WHERE seq = ?", (seq,))
    return seq


def drop_and_renumber(db: sqlite3.Connection, rng: random.Random) -> int:
    entries = read(db)
    gone = rng.choice(entries[:-1])
    db.execute("DELETE FROM entries WHERE seq >= ?", (gone.seq,))
    for entry in entries[gone.seq :]:
        write(db, replace(entry, seq=entry.seq - 1))
    return gone.seq


def swap(db: sqlite3.Connection, rng: random.Random) -> int:
    first, second = rng.sample(read(db), 2)
    write(db, replace(first, seq=second.seq))
    write(db, replace(second, seq=first.seq))
    return min(first.seq, second.seq)


def insert(db: sqlite3.Connection, rng: random.Random) -> int:
    entries = read(db)
    before = rng.choice(entries[:-1])
    for entry in entries[before.seq :]:
        write(db, replace(entry, seq=entry.seq + 1))
    db.execute("UPDATE released SET seq = -seq - 1 WHERE seq > ?", (before.seq,))
    db.execute("UPDATE released SET seq = -seq WHERE seq < 0")
    forged = Entry(kind="budget", dataset="children", epsilon=50.0, delta=0.01)
    write(db, chain.chained(forged, Head(before.seq, before.hash), before.time))
    return before.seq + 2


def change_bytes(db: sqlite3.Connection, rng: random.Random) -> int:
    seq, old = rng.choice(db.execute("SELECT seq, bytes FROM released ORDER BY seq").fetchall())
    new = bytearray(old)
    new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    choices: list[object] = [bytes(new), old + b"\0", old[:-1], b"", "text"]
    db.execute("UPDATE released SET bytes = ? WHERE seq = ?", (rng.choice(choices), seq))
    return int(seq)


def swap_bytes(db: sqlite3.Connection, rng: random.Random) -> int:
    first, second = rng.sample(db.execute("SELECT seq, bytes FROM released").fetchall(), 2)
    db.execute("UPDATE released SET bytes = ? WHERE seq = ?", (first[1], second[0]))
    db.execute("UPDATE released SET bytes = ? WHERE seq = ?", (second[1], first[0]))
    return int(min(first[0], second[0]))


def drop_bytes(db: sqlite3.Connection, rng: random.Random) -> int:
    (seq,) = rng.choice(db.execute("SELECT seq FROM released").fetchall())
    db.execute("DELETE FROM released WHERE seq = ?", (seq,))
    return int(seq)


def add_bytes(db: sqlite3.Connection, rng: random.Random) -> int:
    seq = rng.choice([entry.seq for entry in read(db) if entry.kind != Kind.RELEASE] + [1000])
    db.execute("INSERT INTO released VALUES (?, ?)", (seq, b"forged"))
    return seq


MUTATIONS = (
    edit, edit_and_rehash, drop, drop_and_renumber, swap, insert, change_bytes, swap_bytes, drop_bytes,
    add_bytes,
)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_every_mutation_is_found_where_it_is(
    mutate: Callable[[sqlite3.Connection, random.Random], int], sound: Path, tmp_path: Path
) -> None:
    for seed in range(60 if mutate is edit else 25):
        path = tmp_path / f"{seed}"
        with closing(tampered(sound, path)) as db:
            expected = mutate(db, random.Random(f"{mutate.__name__} {seed}"))
        with Ledger.inspect(path) as ledger:
            verdict = ledger.verify()
        assert not verdict.ok and verdict.first_bad == expected and verdict.why, (seed, verdict)


def test_the_control_without_a_mutation_is_sound(sound: Path, tmp_path: Path) -> None:
    tampered(sound, tmp_path / "copy").close()
    with Ledger.inspect(tmp_path / "copy") as ledger:
        verdict = ledger.verify()
    assert verdict.ok and verdict.entries == verdict.head.seq and verdict.first_bad is None


@pytest.mark.parametrize("act", ["cut", "rewrite"])
def test_a_tail_cut_off_or_rewritten_shows_only_against_a_witness(act: str, sound: Path, tmp_path: Path) -> None:
    with Ledger.inspect(sound) as ledger:
        witness = ledger.head()
        assert ledger.verify(witness).ok
        earlier = [Head(entry.seq, entry.hash) for entry in ledger.entries()][5]
        assert ledger.verify(earlier).ok
    with closing(tampered(sound, tmp_path / "copy")) as db:
        last = read(db)[-1]
        if act == "cut":
            for table in ("entries", "released"):
                db.execute(f"DELETE FROM {table} WHERE seq >= ?", (last.seq - 3,))
        else:
            changed = replace(last, time="2001-01-01T00:00:00.000+00:00")
            write(db, replace(changed, hash=chain.digest(changed)))
    with Ledger.inspect(tmp_path / "copy") as ledger:
        blind, seeing = ledger.verify(), ledger.verify(witness)
        assert ledger.verify(earlier).ok
    assert blind.ok and "without a witness" in blind.why
    assert not seeing.ok and seeing.first_bad == (last.seq - 3 if act == "cut" else last.seq)


def test_an_emptied_ledger_is_not_sound(sound: Path, tmp_path: Path) -> None:
    with closing(tampered(sound, tmp_path / "copy")) as db:
        db.execute("DELETE FROM entries")
        db.execute("DELETE FROM released")
    with Ledger.inspect(tmp_path / "copy") as ledger:
        assert ledger.verify().first_bad == 1
    refused(lambda: Ledger.open(tmp_path / "copy", dataset="children", budget=WIDE))


def test_a_broken_chain_pays_recalls_and_stores_nothing(sound: Path, tmp_path: Path) -> None:
    with closing(tampered(sound, tmp_path / "copy")) as db:
        db.execute("UPDATE entries SET sigma = sigma * 1000 WHERE kind = 'debit'")
    with Ledger.open(tmp_path / "copy", dataset="children", budget=WIDE) as ledger:
        assert "edited" in refused(lambda: pay(ledger, "new"))
        refused(lambda: ledger.recall("r1"))
        refused(lambda: ledger.spent())


def test_changed_bytes_are_never_recalled(sound: Path, tmp_path: Path) -> None:
    with closing(tampered(sound, tmp_path / "copy")) as db:
        db.execute("UPDATE released SET bytes = x'00'")
    with Ledger.open(tmp_path / "copy", dataset="children", budget=WIDE) as ledger:
        refused(lambda: ledger.recall("r1"))


def test_a_tail_lost_while_open_refuses(sound: Path, tmp_path: Path) -> None:
    tampered(sound, tmp_path / "copy").close()
    with Ledger.open(tmp_path / "copy", dataset="children", budget=WIDE) as ledger:
        last = ledger.head().seq
        with closing(sqlite3.connect(tmp_path / "copy", isolation_level=None)) as db:
            db.execute("DELETE FROM entries WHERE seq = ?", (last,))
        assert f"entry {last}" in refused(lambda: pay(ledger, "new"))


@pytest.mark.parametrize(
    "unknown",
    [
        Entry(kind="refund", dataset="children"),
        Entry(kind="debit", dataset="children", request="r", study="s"),
        Entry(kind="debit", study="s", mechanism="new/2", sensitivity=1, sigma=9999, width=1),
        Entry(kind="budget", dataset="children", epsilon=1e9, delta=1e-6),
    ],
    ids=["kind", "event", "mechanism", "budget"],
)  # fmt: skip
def test_an_entry_this_version_cannot_price_stops_everything(unknown: Entry, sound: Path, tmp_path: Path) -> None:
    shutil.copy(sound, tmp_path / "copy")
    with Ledger.open(tmp_path / "copy", dataset="children", budget=WIDE) as ledger:
        head = ledger.head()
        with closing(sqlite3.connect(tmp_path / "copy", isolation_level=None)) as db:
            write(db, chain.chained(unknown, head, "2030-01-01T00:00:00.000+00:00"))
        refused(lambda: pay(ledger, "new"))
        refused(lambda: ledger.spent())


def test_a_missing_entry_is_named(sound: Path, tmp_path: Path) -> None:
    with closing(tampered(sound, tmp_path / "copy")) as db:
        db.execute("DELETE FROM entries WHERE seq = 5")
    with Ledger.inspect(tmp_path / "copy") as ledger:
        assert "entry 5 is missing" in ledger.verify().why


def linked(*contents: Entry) -> list[Entry]:
    entries, head = list[Entry](), chain.GENESIS
    for content in contents:
        entries.append(chain.chained(content, head, "2030-01-01T00:00:00.000+00:00"))
        head = Head(entries[-1].seq, entries[-1].hash)
    return entries


BEGIN = Entry(kind="budget", epsilon=1.0, delta=1e-6)
DEBIT = Entry(kind="debit", request="r", study="s", mechanism=EVENT.mechanism, sensitivity=1, sigma=9999, width=1)
RELEASE = Entry(kind="release", request="r", debit=2, bytes_hash=chain.sha256(b"bytes"))


def test_a_chain_begins_with_a_budget() -> None:
    assert chain.walk([(entry, None) for entry in linked(BEGIN, DEBIT)], None).ok
    assert chain.walk([(entry, None) for entry in linked(DEBIT, BEGIN)], None).first_bad == 1


@pytest.mark.parametrize(
    ("contents", "first_bad"),
    [
        ((BEGIN, DEBIT, RELEASE), None),
        ((BEGIN, DEBIT, replace(RELEASE, request="other")), 3),
        ((BEGIN, DEBIT, replace(RELEASE, debit=1)), 3),
        ((BEGIN, DEBIT, replace(RELEASE, debit=None)), 3),
        ((BEGIN, replace(RELEASE, debit=3), DEBIT), 2),
        ((BEGIN, DEBIT, RELEASE, RELEASE), 4),
    ],
)
def test_every_release_has_a_debit_of_its_own(contents: tuple[Entry, ...], first_bad: int | None) -> None:
    rows = [(entry, b"bytes" if entry.kind == Kind.RELEASE else None) for entry in linked(*contents)]
    assert chain.walk(rows, None).first_bad == first_bad


def test_random_damage_to_the_file_never_frees_budget(sound: Path, tmp_path: Path) -> None:
    with Ledger.inspect(sound) as ledger:
        whole, head = ledger.spent(), ledger.head()
    content, noticed = sound.read_bytes(), 0
    for seed in range(60):
        rng, damaged = random.Random(seed), bytearray(content)
        for _ in range(20):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path = tmp_path / f"{seed}"
        path.write_bytes(bytes(damaged))
        try:
            with Ledger.inspect(path) as ledger:
                verdict, spent = ledger.verify(head), ledger.spent()
        except Refusal as refusal:
            assert refusal.reason is Reason.LEDGER
            noticed += 1
        else:
            noticed += not verdict.ok
            assert spent == whole or not verdict.ok
    assert noticed >= 30
