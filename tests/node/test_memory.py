"""A ledger that is older than what this node signed for: seen at once, and never on hearsay; and what is kept of the others."""

from __future__ import annotations

import dataclasses
import random
import sqlite3
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event
from ahh_federated.errors import Misuse
from ahh_federated.identity import Key
from ahh_federated.node import memory as memory_module
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.memory import Memory, checkpoint
from tests.node.stories import POLICY, Story, covers, of, opened, pay, refused


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "node.key")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "stranger.key")


@pytest.fixture
def story(tmp_path: Path, key: Key) -> Story:
    return Story(tmp_path, key)


def test_a_ledger_that_holds_what_was_signed_is_the_newest(story: Story, tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        story.memory.require(ledger, story.seen)
    assert not story.memory.path.exists()
    with pytest.raises(Misuse, match="nothing to recover"):
        story.memory.recover(story.restored)


def test_a_restored_backup_is_seen_and_stays_seen(story: Story) -> None:
    refused(story.memory, story.restored, story.seen[-1])
    refused(story.memory, story.restored)
    refused(Memory(story.memory.path, story.memory.key), story.restored, *story.seen[:3])


def test_a_truncated_ledger_is_seen(story: Story, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        for trigger in ("entries_delete", "released_delete"):
            db.execute(f"DROP TRIGGER {trigger}")
        for table in ("released", "entries"):
            db.execute(f"DELETE FROM {table} WHERE seq > ?", (story.seen[3].seq,))
        db.commit()
    with opened(tmp_path) as ledger:
        assert ledger.verify().ok
        refused(story.memory, ledger, story.seen[-1])


def test_a_fresh_ledger_under_an_old_key_is_seen(story: Story, tmp_path: Path) -> None:
    with opened(tmp_path, "fresh.db") as ledger:
        refused(story.memory, ledger, *story.seen)
        story.memory.recover(ledger)
        assert covers(ledger.spent(), story.truth)


def test_a_clone_is_seen_also_at_the_same_height(story: Story, tmp_path: Path, key: Key) -> None:
    pay(story.restored, "x", "y")
    clone = checkpoint(story.restored, POLICY, key)
    assert (clone.seq, clone.mu_squared) == (story.seen[-1].seq, story.seen[-1].mu_squared)
    refused(story.memory, story.restored, clone, story.seen[-1])
    with opened(tmp_path) as ledger:
        refused(Memory(tmp_path / "other.json", key), ledger, clone, story.seen[-1])


def test_what_others_made_up_has_no_effect(story: Story, stranger: Key, key: Key) -> None:
    newest = story.seen[-1]
    forged = [
        dataclasses.replace(newest, seq=10**6),
        dataclasses.replace(newest, hash="ab" * 32),
        dataclasses.replace(newest, signature=""),
        dataclasses.replace(newest, signature="x"),
        dataclasses.replace(newest, seq=10**6).signed(stranger),
        dataclasses.replace(newest, node=stranger.fingerprint).signed(stranger),
        dataclasses.replace(newest, node=stranger.fingerprint).signed(key),
        dataclasses.replace(newest, hash="\ud800"),
        dataclasses.replace(newest, seq=10**6, public=stranger.public).signed(stranger),
        dataclasses.replace(newest, seq=10**6, public=""),
    ]
    story.memory.require(story.restored, forged)
    assert story.memory.lost() == []
    with pytest.raises(Misuse):
        story.memory.recover(story.restored)


def test_the_newest_of_each_other_node_is_kept(story: Story, stranger: Key) -> None:
    theirs, memory = [of(stranger, each) for each in story.seen], story.memory
    memory.learn("harbour", [*theirs[:4], *story.seen])
    assert memory.others("harbour") == (theirs[3],)
    memory.learn("harbour", [theirs[1], of(stranger, story.seen[3])])
    assert memory.others("harbour") == (theirs[3],)
    memory.learn("harbour", [theirs[4]])
    assert memory.others("harbour") == (theirs[4],)
    refused(memory, story.restored, *story.seen)
    assert memory.others("harbour") == (theirs[4],)
    memory.learn("harbour", [])
    refused(memory, story.restored)


def test_each_consortium_has_its_own(story: Story, stranger: Key) -> None:
    older, newer = of(stranger, story.seen[0]), of(stranger, story.seen[1])
    story.memory.learn("harbour", [newer])
    assert story.memory.others("haven") == ()
    story.memory.learn("haven", [older])
    assert (story.memory.others("harbour"), story.memory.others("haven")) == ((newer,), (older,))
    refused(story.memory, story.restored, *story.seen)
    assert (story.memory.others("harbour"), story.memory.others("haven")) == ((newer,), (older,))


def test_what_is_planted_under_another_nodes_name_is_not_kept(story: Story, stranger: Key, key: Key) -> None:
    true, better = of(stranger, story.seen[1]), {"seq": 10**6, "mu_squared": 99.0}
    story.memory.learn("harbour", [true])
    planted = [
        dataclasses.replace(true, **better),
        dataclasses.replace(true, **better).signed(key),
        dataclasses.replace(true, **better, public=key.public).signed(key),
        dataclasses.replace(true, **better, signature=""),
        dataclasses.replace(true, **better, public=""),
    ]
    story.memory.learn("harbour", planted)
    story.memory.learn("haven", planted)
    assert (story.memory.others("harbour"), story.memory.others("haven")) == ((true,), ())


def test_made_up_nodes_neither_fill_the_disk_nor_displace_a_true_one(
    story: Story, tmp_path: Path, stranger: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can make keys; what is known of a node stays, however many come."""
    monkeypatch.setattr(memory_module, "_MOST", 5)
    true = of(stranger, story.seen[0])
    story.memory.learn("harbour", [true])
    made_up = [Key.create(tmp_path / f"{k}.key") for k in range(20)]
    for start in (0, 10):
        story.memory.learn("harbour", [of(each, story.seen[4]) for each in made_up[start : start + 10]])
        assert len(story.memory.others("harbour")) == 5
    assert true in story.memory.others("harbour")
    newer = of(stranger, story.seen[1])
    story.memory.learn("harbour", [*(of(each, story.seen[4]) for each in made_up), newer])
    assert newer in story.memory.others("harbour")
    assert len(story.memory.others("harbour")) == 5


def test_nodes_without_a_key_are_not_kept(story: Story) -> None:
    story.memory.learn("harbour", [dataclasses.replace(story.seen[0], node=f"{k:0200}") for k in range(1000)])
    assert not story.memory.path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"lost":[{}],"others":{}}',
        b'{"lost":[],"others":{"a":[1]}}',
        b'{"lost":[],"others":[]}',
        b"[" * 10**5,
    ],
)
def test_a_damaged_memory_is_not_taken_for_an_empty_one(story: Story, content: bytes) -> None:
    story.memory.path.write_bytes(content)
    memory = story.memory
    for use in (
        lambda: memory.require(story.restored, []),
        lambda: memory.learn("harbour", []),
        lambda: memory.others("harbour"),
        lambda: memory.recover(story.restored),
    ):
        with pytest.raises(Misuse, match=r"witness\.json"):
            use()


def test_a_checkpoint_never_says_less_than_was_spent(tmp_path: Path, key: Key) -> None:
    ledger = Ledger.in_memory(dataset="north", budget=Budget(9.0, 1e-3))
    assert checkpoint(ledger, POLICY, key).mu_squared == 0.0
    rng = random.Random(5)
    for k in range(50):
        pay(ledger, str(k), event=Event(rng.randrange(1, 1000), rng.randrange(2**20, 2**40), rng.randrange(1, 100)))
        mark, truth = checkpoint(ledger, POLICY, key), ledger.spent()
        mark.check()
        assert Fraction(mark.mu_squared) >= truth.mu_squared
        assert Fraction(mark.slack) >= truth.slack
