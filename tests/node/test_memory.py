"""A ledger that is older than what this node signed for: seen before the first release, burned in full, and never on hearsay."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sqlite3
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.core.releases import Status
from ahh_federated.errands import Checkpoint
from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Head, Ledger
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.memory import _event as event_of  # the burn's price, held to exact fractions
from ahh_federated.node.policy import Policy
from tests.node.nodes import approve, asking, node, proposing, receipt, reception, reply, rule, shown, spent, standing

BUDGET = Budget(3.0, 1e-5)
POLICY = Policy(BUDGET)
EVENT = Event(1 << 20, 1 << 23, 4)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "node.key")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "stranger.key")


def pay(ledger: Ledger, *requests: str, event: Event = EVENT) -> None:
    for request in requests:
        paid = ledger.debit(request=request, study="s", ask=request, query="count/1", event=event, ceiling=BUDGET)
        ledger.store(paid, request.encode())


def opened(folder: Path, name: str = "ledger.db") -> Ledger:
    return Ledger.open(folder / name, dataset="north", budget=BUDGET)


def copied(folder: Path, old: str, new: str) -> None:
    shutil.copy(folder / old, folder / new)


class Story:
    """A ledger with three releases, a copy of it, and two more releases that the copy lacks."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.memory = Memory(folder / "witness.json", key)
        self.seen: list[Checkpoint] = []
        with opened(folder) as ledger:
            for request in "abc":
                pay(ledger, request)
                self.seen.append(checkpoint(ledger, POLICY, key))
        copied(folder, "ledger.db", "backup.db")
        with opened(folder) as ledger:
            for request in "de":
                pay(ledger, request)
                self.seen.append(checkpoint(ledger, POLICY, key))
            self.truth = ledger.spent()
        self.restored = opened(folder, "backup.db")


@pytest.fixture
def story(tmp_path: Path, key: Key) -> Story:
    return Story(tmp_path, key)


def refused(memory: Memory, ledger: Ledger, *seen: Checkpoint) -> None:
    with pytest.raises(Refusal) as caught:
        memory.require(ledger, seen)
    assert caught.value.reason is Reason.WITNESS
    assert "recover" in str(caught.value)


def covers(spent: Spent, truth: Spent) -> bool:
    return spent.mu_squared >= truth.mu_squared and spent.slack >= truth.slack


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


def test_the_difference_is_burned_and_no_more_when_the_history_is_known(story: Story) -> None:
    before = story.restored.spent()
    refused(story.memory, story.restored, *story.seen)
    burned = story.memory.recover(story.restored)
    after = story.restored.spent()
    assert covers(after, story.truth)
    assert after.mu_squared - before.mu_squared == burned.mu_squared
    lost = story.truth.mu_squared - before.mu_squared
    assert lost <= burned.mu_squared <= lost * (1 + Fraction(1, 10**6))
    assert story.restored.verify().ok
    story.memory.require(story.restored, story.seen)
    with pytest.raises(Misuse):
        story.memory.recover(story.restored)
    assert story.restored.spent() == after


def test_what_is_not_known_to_be_shared_is_burned_again(story: Story) -> None:
    """Rounding towards privacy: a coordinator that shows only the newest costs the node more, never less."""
    refused(story.memory, story.restored, story.seen[-1])
    story.memory.recover(story.restored)
    after = story.restored.spent()
    assert covers(after, story.truth)
    assert after.mu_squared >= story.truth.mu_squared + story.seen[2].mu_squared * Fraction(999, 1000)


def test_several_lost_entries_of_one_history_are_burned_once(story: Story) -> None:
    refused(story.memory, story.restored, *story.seen[:4])
    refused(story.memory, story.restored, *story.seen)
    before = story.restored.spent()
    burned = story.memory.recover(story.restored)
    lost = story.truth.mu_squared - before.mu_squared
    assert lost <= burned.mu_squared <= lost * (1 + Fraction(1, 10**6))
    for each in story.seen:
        assert story.restored.holds(Head(each.seq, each.hash))
    assert story.restored.verify().ok


def test_a_backup_from_before_the_burn_is_seen_as_well(story: Story, tmp_path: Path, key: Key) -> None:
    story.restored.close()
    copied(tmp_path, "backup.db", "older.db")
    ledger = opened(tmp_path, "backup.db")
    refused(story.memory, ledger, *story.seen)
    story.memory.recover(ledger)
    pay(ledger, "f")
    after, truth = checkpoint(ledger, POLICY, key), ledger.spent()
    older = opened(tmp_path, "older.db")
    refused(story.memory, older, after)
    story.memory.recover(older)
    assert covers(older.spent(), truth)
    story.memory.require(older, [*story.seen, after])


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


def test_recovering_a_clone_pays_for_both(story: Story, key: Key) -> None:
    """The clone went on for itself before anybody showed it the other's entries."""
    pay(story.restored, "x", "y")
    own = story.restored.spent()
    refused(story.memory, story.restored, *story.seen)
    story.memory.recover(story.restored)
    lost = story.truth.mu_squared - Fraction(3) * EVENT.mu_squared
    assert story.restored.spent().mu_squared >= own.mu_squared + lost


def test_a_burn_may_exceed_the_budget_and_then_nothing_can_be_paid(tmp_path: Path, key: Key) -> None:
    costly = Event(1 << 20, 1 << 20, 1)
    ledger = Ledger.in_memory(dataset="north", budget=Budget(9.0, 1e-3))
    lost = checkpoint(ledger, POLICY, key)
    lost = dataclasses.replace(lost, seq=9, hash="ab" * 32, mu_squared=float(100 * costly.mu_squared)).signed(key)
    memory = Memory(tmp_path / "witness.json", key)
    refused(memory, ledger, lost)
    memory.recover(ledger)
    memory.require(ledger, [lost])
    assert not ledger.spent().within(Budget(9.0, 1e-3))
    with pytest.raises(Refusal) as caught:
        pay(ledger, "a", event=Event(1, 1 << 40, 1))
    assert caught.value.reason is Reason.BUDGET
    assert ledger.verify().ok


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
    ]
    story.memory.require(story.restored, forged)
    assert story.memory.lost() == []
    with pytest.raises(Misuse):
        story.memory.recover(story.restored)


def test_the_newest_of_each_other_node_is_kept(story: Story, stranger: Key) -> None:
    theirs = [dataclasses.replace(each, node=stranger.fingerprint).signed(stranger) for each in story.seen]
    story.memory.learn([*theirs[:4], *story.seen])
    assert story.memory.others() == (theirs[3],)
    story.memory.learn([theirs[1]])
    assert story.memory.others() == (theirs[3],)
    story.memory.learn([theirs[4]])
    assert story.memory.others() == (theirs[4],)
    refused(story.memory, story.restored, *story.seen)
    assert story.memory.others() == (theirs[4],)
    story.memory.learn([])
    refused(story.memory, story.restored)


def test_made_up_nodes_cannot_fill_the_disk(story: Story) -> None:
    many = [dataclasses.replace(story.seen[0], node=f"{k:0200}") for k in range(3000)]
    for start in range(0, 3000, 1000):
        story.memory.learn(many[start : start + 1000])
    assert len(story.memory.others()) <= 1000
    assert story.memory.path.stat().st_size < 1 << 20


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"lost":[{}],"others":[]}', b'{"lost":[],"others":[1]}', b"[" * 10**5]
)
def test_a_damaged_memory_is_not_taken_for_an_empty_one(story: Story, content: bytes) -> None:
    story.memory.path.write_bytes(content)
    for use in (lambda: story.memory.require(story.restored, []), lambda: story.memory.learn([]), story.memory.others):
        with pytest.raises(Misuse, match=r"witness\.json"):
            use()


def test_a_checkpoint_never_says_less_than_was_spent(tmp_path: Path, key: Key) -> None:
    ledger = Ledger.in_memory(dataset="north", budget=Budget(9.0, 1e-3))
    assert checkpoint(ledger, POLICY, key).mu_squared == 0.0
    rng = random.Random(5)
    for k in range(50):
        pay(ledger, str(k), event=Event(rng.randrange(1, 1000), rng.randrange(2**20, 2**40), rng.randrange(1, 100)))
        mark, truth = checkpoint(ledger, POLICY, key), ledger.spent()
        mark.check(key.public)
        assert Fraction(mark.mu_squared) >= truth.mu_squared
        assert Fraction(mark.slack) >= truth.slack


def test_a_burn_costs_at_least_what_it_stands_for() -> None:
    rng = random.Random(6)
    for _ in range(2000):
        mu_squared = Fraction(rng.random()) * Fraction(10) ** rng.randrange(-14, 2)
        slack = Fraction(rng.random()) * Fraction(10) ** rng.randrange(-16, -4)
        event = event_of(mu_squared, slack)
        assert event.mu_squared >= mu_squared
        assert event.slack >= slack
        assert event.mu_squared <= mu_squared * (1 + Fraction(1, 10**6)) + Fraction(1, 10**12)
        assert event.slack <= slack * (1 + Fraction(1, 10**6)) + Fraction(1, 10**18)
    assert event_of(Fraction(-1), Fraction(-1)).mu_squared > 0


def back(home: NodeHome, copy: Path) -> None:
    """Put a copy of the ledger back while the node is down."""
    for each in home.path.glob("ledger.db*"):
        each.unlink()
    shutil.copy(copy, home.ledger_path)


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    made = node(tmp_path)
    approve(made)
    return made


def test_a_node_with_an_old_ledger_releases_nothing_until_it_has_burned(home: NodeHome, tmp_path: Path) -> None:
    asked = reception(home)
    assert reply(asked, home, asking("children")).status is Status.RELEASED
    asked.close()
    shutil.copy(home.ledger_path, tmp_path / "backup.db")
    asked = reception(home)
    assert reply(asked, home, asking("size")).status is Status.RELEASED
    newest, truth = shown(asked, home), spent(home)[0]
    asked.close()
    back(home, tmp_path / "backup.db")

    asked, before = reception(home), spent(home)
    for call in (asking("bins", witness=newest), asking("bins"), asking("children"), asking("size", kept=(newest,))):
        refusal = reply(asked, home, call)
        assert (refusal.status, refusal.reason, refusal.cells) == (Status.REFUSED, "witness", None)
    assert standing(asked, home, proposing()) == ("refused", "witness")
    assert spent(home) == before

    with home.ledger() as ledger:
        Memory(home.witness_path, home.key).recover(ledger)
        assert covers(ledger.spent(), truth)
        assert ledger.verify().ok
    assert standing(asked, home, proposing(witness=newest)) == ("approved", "")
    assert reply(asked, home, asking("bins", witness=newest)).status is Status.RELEASED


def test_a_burn_beyond_the_budget_ends_the_releases(home: NodeHome, tmp_path: Path) -> None:
    shutil.copy(home.ledger_path, tmp_path / "backup.db")
    asked = reception(home)
    for ask in ("children", "size", "bins"):
        assert reply(asked, home, asking(ask)).status is Status.RELEASED
    newest = shown(asked, home)
    asked.close()
    back(home, tmp_path / "backup.db")
    rule(home, "epsilon = 9", "epsilon = 0.5")
    asked = reception(home)
    assert reply(asked, home, asking("children", witness=newest)).reason == "witness"
    with home.ledger() as ledger:
        Memory(home.witness_path, home.key).recover(ledger)
    before = spent(home)
    for ask in ("children", "size", "spread"):
        assert reply(asked, home, asking(ask, witness=newest)).reason == "budget"
    assert spent(home) == before


def test_a_coordinators_invention_stops_no_release(home: NodeHome, stranger: Key) -> None:
    asked = reception(home)
    mine = shown(asked, home)
    forged = dataclasses.replace(mine, seq=10**9, hash="ab" * 32)
    theirs = dataclasses.replace(forged, node=stranger.fingerprint).signed(stranger)
    assert standing(asked, home, proposing(witness=forged, kept=(forged, forged.signed(stranger), theirs))) == ("approved", "")
    assert reply(asked, home, asking(witness=forged, kept=(forged, forged.signed(stranger)))).status is Status.RELEASED
    assert receipt(asked, home, proposing()).kept == (theirs,)


def test_a_damaged_memory_stops_every_release_but_no_receipt(home: NodeHome) -> None:
    home.witness_path.write_bytes(json.dumps({"lost": [], "others": [{}]}).encode())
    asked = reception(home)
    assert standing(asked, home, proposing())[0] == "refused"
    assert reply(asked, home, asking()).status is Status.REFUSED
    assert spent(home)[1:] == (0, 0)
