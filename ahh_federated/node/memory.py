"""What others remember of this node's ledger, and what this node remembers of theirs: the checkpoints in `witness.json`.

A ledger that lacks an entry which somebody holds this node's signature for is an older copy: a restored backup or a cloned
machine.  The node then releases nothing until its operator has the difference burned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ahh_federated.core.costs import SLACK, Event, Spent
from ahh_federated.encoding import dump
from ahh_federated.errands import Checkpoint, newest
from ahh_federated.errors import Breach, Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.chain import Head
from ahh_federated.node.ledger import PREFIX, Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.node.settings import write

_MOST = 200  # nodes of a consortium remembered
_SIGMA = 1 << 30  # of a burn: fine enough to round up by next to nothing


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept in the file `path`: checkpoints of this node whose entry is lost, and for each consortium the newest
    checkpoint of each of its other nodes."""

    path: Path
    key: Key

    def require(self, ledger: Ledger, shown: Iterable[Checkpoint]) -> None:
        """Refusal when the ledger lacks an entry that this node signed for, as a coordinator shows now or showed before.

        Only a checkpoint with this node's own signature counts, so nobody else can make one up.
        """
        known, others = self._read()
        seen = {_head(each): each for each in known}  # one entry is lost once, however often it was signed
        burned = [each for each in known if ledger.holds(_head(each))]
        own = [each for each in shown if each.node == self.key.fingerprint and _head(each) not in seen and _signed(each)]
        seen |= {_head(each): each for each in own if not ledger.holds(_head(each)) and not any(_has(b, each) for b in burned)}
        if len(seen) > len(known):
            self._write(seen.values(), others)
        lost = [each for head, each in seen.items() if not ledger.holds(head)]
        if lost:
            last = max(each.seq for each in lost)
            what = f"the ledger lacks entry {last}, which this node once signed for: it is an older copy"
            fix = "put the newest ledger back, or have the difference burned with `ahh node ledger recover`"
            raise Refusal(Reason.WITNESS, f"{what}; {fix}")

    def recover(self, ledger: Ledger) -> Spent:
        """Burn what each lost entry had spent beyond the last entry that its history shares with this ledger; what was burned.

        What was burned for one of its ancestors is not burned again.

        Raises:
            Misuse: when nothing is lost.
        """
        known = self.lost()
        lost = [each for each in known if not ledger.holds(_head(each))]
        if not lost:
            raise Misuse("the ledger lacks nothing that a coordinator has shown this node: there is nothing to recover")
        burned = Spent()
        for each in sorted(lost, key=lambda each: each.seq):
            event = _beyond(each, ledger, known)
            ledger.burn(_head(each), event)
            burned += event
        return burned

    def learn(self, consortium: str, checkpoints: Iterable[Checkpoint]) -> None:
        """Keep the newest of each other node, to show it to this consortium's coordinator if it has lost its own."""
        lost, others = self._read()
        known = others.get(consortium, ())
        new = [each for each in checkpoints if each.node != self.key.fingerprint and each not in known and _signed(each)]
        merged = newest([*new, *known])
        nodes = dict.fromkeys(each.node for each in (*known, *new))  # those known stay, however many come
        kept = tuple(merged[node] for node in nodes)[:_MOST]
        if kept != known:
            self._write(lost, {**others, consortium: kept})

    def lost(self) -> list[Checkpoint]:
        return self._read()[0]

    def others(self, consortium: str) -> tuple[Checkpoint, ...]:
        return self._read()[1].get(consortium, ())

    def _write(self, lost: Iterable[Checkpoint], others: Mapping[str, Iterable[Checkpoint]]) -> None:
        content = {
            "lost": [each.to_json() for each in lost],
            "others": {name: [each.to_json() for each in kept] for name, kept in others.items()},
        }
        write(self.path, dump(content))

    def _read(self) -> tuple[list[Checkpoint], dict[str, tuple[Checkpoint, ...]]]:
        try:
            content = json.loads(self.path.read_bytes())
            lost = [Checkpoint.from_json(each) for each in content["lost"]]
            others = content["others"].items()
            return lost, {name: tuple(Checkpoint.from_json(each) for each in kept) for name, kept in others}
        except FileNotFoundError:
            return [], {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, Breach):
            what = "put it back from your backup; without it a lost ledger is not seen"
            raise Misuse(f"{self.path} cannot be read: {what}") from None


def _head(checkpoint: Checkpoint) -> Head:
    return Head(checkpoint.seq, checkpoint.hash)


def _has(later: Checkpoint, earlier: Checkpoint) -> bool:
    """Whether an entry is known to be an ancestor of another."""
    return (earlier.seq, earlier.hash[:PREFIX]) in later.ancestors


def _beyond(lost: Checkpoint, ledger: Ledger, known: Iterable[Checkpoint]) -> Event:
    """What a lost history has spent beyond what it shares with this ledger, or beyond its last entry that was burned.

    A plan that both had begun is paid again, whole: two histories may each have gone on with it.
    """
    shared = ledger.shares(lost.ancestors)
    paid, again = ledger.spent_until(shared), ledger.unfinished_at(shared)
    mu_squared, slack = paid.mu_squared - again.mu_squared, paid.slack - again.slack
    burned = [each for each in known if each.seq > shared and _has(lost, each) and ledger.holds(_head(each))]
    if burned:
        last = max(burned, key=lambda each: each.seq)
        mu_squared, slack = Fraction(last.mu_squared), Fraction(last.slack)
    return _event(Fraction(lost.mu_squared) - mu_squared, Fraction(lost.slack) - slack)


def _signed(checkpoint: Checkpoint) -> bool:
    try:
        checkpoint.check()
    except Breach:
        return False
    return True


def checkpoint(ledger: Ledger, policy: Policy, key: Key) -> Checkpoint:
    """This node's signed word on its ledger as it is now."""
    head, spent = ledger.head(), ledger.spent()
    limit = policy.budget
    found = Checkpoint(
        node=key.fingerprint,
        public=key.public,
        seq=head.seq,
        hash=head.hash,
        ancestors=ledger.ancestors(),
        mu_squared=_up(spent.mu_squared),
        slack=_up(spent.slack),
        epsilon=min(spent.epsilon(limit.delta), 1e6),
        epsilon_limit=float(limit.epsilon),
        delta_limit=float(limit.delta),
    )
    return found.signed(key)


def _up(value: Fraction) -> float:
    return math.nextafter(float(value), math.inf) if value else 0.0


def _event(mu_squared: Fraction, slack: Fraction) -> Event:
    """An event that costs at least this much."""
    mu = math.sqrt(max(mu_squared, Fraction(0))) * (1 + 1e-12)
    width = math.ceil(max(slack, Fraction(0)) * _SIGMA**2 / SLACK)
    return Event(max(1, math.ceil(mu * _SIGMA)), _SIGMA, max(1, width))
