"""What an older ledger lacks is burned: never less than was lost, once for each history, and at most twice the distance."""

from __future__ import annotations

import dataclasses
import random
import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.errands import Checkpoint
from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.ledger import Head, Ledger
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.memory import _event as event_of  # the burn's price, held to exact fractions
from tests.node.stories import BUDGET, EVENT, POLICY, Story, copied, covers, opened, pay, refused


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "node.key")


@pytest.fixture
def story(tmp_path: Path, key: Key) -> Story:
    return Story(tmp_path, key)


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
