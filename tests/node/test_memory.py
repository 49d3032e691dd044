"""A ledger that is older than what this node signed for: seen before the first release, burned in full, and never on hearsay."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sqlite3
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.core.releases import Status
from ahh_federated.errands import Checkpoint
from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node import memory as memory_module
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Head, Ledger
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.memory import _event as event_of  # the burn's price, held to exact fractions
from ahh_federated.node.policy import Policy
from tests.node.nodes import approve, asking, node, proposing, receipt, reception, reply, rule, shown, spent, standing
from tests.study.samples import QUIET, small

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


@pytest.mark.parametrize("shown", [slice(None), slice(-1, None)], ids=["every checkpoint", "the newest alone"])
def test_the_difference_is_burned_and_no_more(story: Story, shown: slice) -> None:
    """The newest names its ancestors, so nobody else has a say in what is shared."""
    before = story.restored.spent()
    refused(story.memory, story.restored, *story.seen[shown])
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


def test_what_is_not_known_to_be_shared_is_burned_again(story: Story, key: Key) -> None:
    """Rounding towards privacy: without ancestors all of it counts."""
    lonely = dataclasses.replace(story.seen[-1], ancestors=()).signed(key)
    before = story.restored.spent()
    refused(story.memory, story.restored, lonely)
    story.memory.recover(story.restored)
    after = story.restored.spent()
    assert covers(after, story.truth)
    assert after.mu_squared >= story.truth.mu_squared + before.mu_squared


def test_an_entry_signed_twice_is_lost_once(story: Story, key: Key) -> None:
    """A node signs anew whenever it is asked, and two coordinators have two signatures on one entry."""
    newest = story.seen[-1]
    twice = [dataclasses.replace(newest, signature="").signed(key) for _ in range(3)]
    assert len({each.signature for each in (newest, *twice)}) == 4
    before = story.restored.spent()
    refused(story.memory, story.restored, newest, twice[0], twice[0])
    refused(story.memory, story.restored, twice[1])
    assert len(story.memory.lost()) == 1
    refused(story.memory, story.restored, *twice)
    burned = story.memory.recover(story.restored)
    lost = story.truth.mu_squared - before.mu_squared
    assert lost <= burned.mu_squared <= lost * (1 + Fraction(1, 10**6))


@pytest.mark.parametrize("order", [(3, 4), (4, 3), (4,)])
def test_what_two_coordinators_show_one_after_the_other_is_burned_once(story: Story, key: Key, order: tuple[int, ...]) -> None:
    """Each has its own newest checkpoint of one lost history; the node is recovered in between, and pays."""
    before = story.restored.spent()
    for place in order:
        with suppress(Refusal):
            story.memory.require(story.restored, [story.seen[place]])
        with suppress(Misuse):
            story.memory.recover(story.restored)
        story.memory.require(story.restored, [story.seen[place]])
    story.memory.require(story.restored, story.seen)
    burned = story.restored.spent().mu_squared - before.mu_squared
    lost = story.truth.mu_squared - before.mu_squared
    assert lost <= burned <= lost * (1 + Fraction(1, 10**6))


def test_what_a_coordinator_shows_has_no_say_in_what_is_shared(story: Story, key: Key) -> None:
    """The copy went on for itself; its own newest is held here, and no entry that the lost history shares with it."""
    pay(story.restored, "x")
    between = checkpoint(story.restored, POLICY, key)
    own = story.restored.spent()
    refused(story.memory, story.restored, *story.seen[:3], story.seen[-1], between)
    story.memory.recover(story.restored)
    lost = story.truth.mu_squared - 3 * EVENT.mu_squared
    assert story.restored.spent().mu_squared >= own.mu_squared + lost


def test_three_copies_of_one_ledger_that_went_on_apart(story: Story, tmp_path: Path, key: Key) -> None:
    """Each of the two others is lost beyond what it shares with this one; one of them was copied from this one later."""
    pay(story.restored, "x")
    story.restored.close()
    copied(tmp_path, "backup.db", "third.db")
    with opened(tmp_path, "third.db") as ledger:
        pay(ledger, "y", "z")
        third = checkpoint(ledger, POLICY, key)
    with opened(tmp_path, "backup.db") as ledger:
        pay(ledger, "w")
        refused(story.memory, ledger, third, story.seen[-1])
        own, burned = ledger.spent(), story.memory.recover(ledger)
        lost = 4 * EVENT.mu_squared  # d and e; y and z
        assert lost <= burned.mu_squared <= lost * (1 + Fraction(1, 10**6))
        assert ledger.spent().mu_squared == own.mu_squared + burned.mu_squared


DISTANCES = [1, 2, 15, 16, 17, 18, 31, 32, 33, 45, 50]  # releases, of two entries each


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, key: Key) -> tuple[Path, Checkpoint, list[Spent]]:
    """A folder with a copy of a ledger at each distance; its checkpoint at the end; what was spent after each entry."""
    folder, rng = tmp_path_factory.mktemp("long"), random.Random(9)
    for left in reversed(range(51)):
        with opened(folder) as ledger:
            pay(ledger, f"r{left}", event=Event(rng.randrange(1 << 16, 1 << 19), 1 << 23, rng.randrange(1, 9)))
        copied(folder, "ledger.db", f"{left}.db")
    with opened(folder) as ledger:
        spends = [ledger.spent_until(seq) for seq in range(ledger.head().seq + 1)]
        return folder, checkpoint(ledger, POLICY, key), spends


@pytest.mark.parametrize("distance", DISTANCES)
def test_from_far_back_at_most_twice_the_distance_is_burned_and_never_less(
    long: tuple[Path, Checkpoint, list[Spent]], distance: int, tmp_path: Path, key: Key
) -> None:
    folder, newest, spends = long
    shutil.copy(folder / f"{distance}.db", tmp_path / "ledger.db")
    memory, entries = Memory(tmp_path / "witness.json", key), 2 * distance
    with opened(tmp_path) as ledger:
        assert ledger.head().seq == newest.seq - entries
        pay(ledger, "for itself", "once more")
        own = ledger.spent()
        refused(memory, ledger, newest)
        burned = memory.recover(ledger)
        assert ledger.spent() == own + burned
    far = max(0, newest.seq - (entries if entries <= 32 else 2 * entries))
    for name in ("mu_squared", "slack"):
        least = getattr(spends[newest.seq], name) - getattr(spends[newest.seq - entries], name)
        most = getattr(spends[newest.seq], name) - getattr(spends[far], name)
        assert least <= getattr(burned, name) <= most * (1 + Fraction(1, 10**6)) + Fraction(1, 10**17)


def test_the_ancestors_are_the_newest_and_fewer_of_the_older(long: tuple[Path, Checkpoint, list[Spent]]) -> None:
    folder, newest, _ = long
    with Ledger.inspect(folder / "ledger.db") as ledger:
        hashes = {entry.seq: entry.hash for entry in ledger.entries()}
    assert newest.seq == 103
    assert [newest.seq - seq for seq, _ in newest.ancestors] == [64, *range(32, 0, -1)]
    assert all(hashes[seq].startswith(start) and len(start) == 16 for seq, start in newest.ancestors)
    assert Ledger.in_memory(dataset="north", budget=BUDGET).ancestors() == ()


class Branch:
    """One of many copies of a ledger, and the debits that its spending has to stand for: its own, and those that were shown."""

    def __init__(self, path: Path, debits: frozenset[tuple[int, str]]) -> None:
        self.path, self.debits = path, debits

    def open(self) -> Ledger:
        return Ledger.open(self.path, dataset="north", budget=BUDGET)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_was_copied_and_recovered_no_debit_is_forgotten(tmp_path: Path, key: Key, seed: int) -> None:
    """Copies of copies that pay, are shown some of the others' checkpoints, recover, and are copied again.

    Half of the times the memory outlives the ledger that is put back.
    """
    rng, costs = random.Random(seed), dict[tuple[int, str], Event]()
    branches, marks = [Branch(tmp_path / "0.db", frozenset())], list[tuple[Checkpoint, frozenset[tuple[int, str]]]]()
    for number in range(1, 40):
        branch = rng.choice(branches)
        with branch.open() as ledger:
            if rng.random() < 0.6:
                event = Event(rng.randrange(1, 1 << 14), 1 << 23, rng.randrange(1, 9))
                paid = ledger.debit(request=f"{number}", study="s", ask=f"{number}", query="q/1", event=event, ceiling=BUDGET)
                costs[paid.seq, paid.hash] = event
                branch.debits |= {(paid.seq, paid.hash)}
            elif marks:
                seen, memory = rng.sample(marks, min(len(marks), 3)), Memory(tmp_path / f"{number * (seed % 2)}.json", key)
                with suppress(Refusal):
                    memory.require(ledger, [mark for mark, _ in seen])
                with suppress(Misuse):
                    memory.recover(ledger)
                memory.require(ledger, [mark for mark, _ in seen])
                branch.debits = branch.debits.union(*(debits for _, debits in seen))
            assert covers(ledger.spent(), Spent.of(costs[each] for each in branch.debits))
            assert ledger.verify().ok
            marks.append((checkpoint(ledger, POLICY, key), branch.debits))
        if rng.random() < 0.3:
            branches.append(Branch(tmp_path / f"{number}.db", branch.debits))
            shutil.copy(branch.path, branches[-1].path)
    assert len(branches) > 3


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
        dataclasses.replace(newest, hash="\ud800"),
        dataclasses.replace(newest, seq=10**6, public=stranger.public).signed(stranger),
        dataclasses.replace(newest, seq=10**6, public=""),
    ]
    story.memory.require(story.restored, forged)
    assert story.memory.lost() == []
    with pytest.raises(Misuse):
        story.memory.recover(story.restored)


def of(key: Key, mark: Checkpoint, **fields: object) -> Checkpoint:
    """The same said by another node."""
    return dataclasses.replace(mark, node=key.fingerprint, public=key.public, **fields).signed(key)  # type: ignore[arg-type]


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
        dataclasses.replace(true, **better),  # type: ignore[arg-type]
        dataclasses.replace(true, **better).signed(key),  # type: ignore[arg-type]
        dataclasses.replace(true, **better, public=key.public).signed(key),  # type: ignore[arg-type]
        dataclasses.replace(true, **better, signature=""),  # type: ignore[arg-type]
        dataclasses.replace(true, **better, public=""),  # type: ignore[arg-type]
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
    theirs = of(stranger, forged)
    assert standing(asked, home, proposing(witness=forged, kept=(forged, forged.signed(stranger), theirs))) == ("approved", "")
    assert reply(asked, home, asking(witness=forged, kept=(forged, forged.signed(stranger)))).status is Status.RELEASED
    assert receipt(asked, home, proposing()).kept == (theirs,)


def test_no_consortium_sees_what_partners_of_another_signed(home: NodeHome, stranger: Key) -> None:
    """Whatever it calls itself, and whatever it sends."""
    asked = reception(home)
    theirs = of(stranger, shown(asked, home))
    assert receipt(asked, home, proposing(kept=(theirs,))).kept == (theirs,)
    haven = small(*QUIET, ('consortium = "harbour"', 'consortium = "haven"'))
    for call in (
        proposing(haven, consortium="haven"),
        proposing(consortium="haven"),
        proposing(haven),
        proposing(),
        proposing(haven, consortium="haven", body=b"{}"),
        asking(consortium="haven"),
        asking(),
    ):
        assert receipt(asked, home, call, "haven").kept == ()
        data = asked.answer("haven", call.to_bytes())
        assert stranger.fingerprint.encode() not in data
    assert asked.answer("haven", b"junk").count(stranger.fingerprint.encode()) == 0
    older = of(stranger, theirs, mu_squared=0.0)
    assert receipt(asked, home, proposing(haven, consortium="haven", kept=(older,)), "haven").kept == (older,)
    assert receipt(asked, home, proposing()).kept == (theirs,)


def test_a_damaged_memory_stops_every_release_but_no_receipt(home: NodeHome) -> None:
    home.witness_path.write_bytes(json.dumps({"lost": [], "others": {"harbour": [{}]}}).encode())
    asked = reception(home)
    assert standing(asked, home, proposing())[0] == "refused"
    assert reply(asked, home, asking()).status is Status.REFUSED
    assert spent(home)[1:] == (0, 0)
