"""What others remember of this node's ledger, and what this node remembers of theirs: the checkpoints in `witness.json`.

A ledger that lacks an entry which somebody holds this node's signature for is an older copy: a restored backup or a cloned
machine.  The node then releases nothing until its operator has the difference burned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ahh_federated.core.costs import SLACK, Event, Spent
from ahh_federated.encoding import dump
from ahh_federated.errands import Checkpoint, newest
from ahh_federated.errors import Breach, Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.chain import Head
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.node.settings import write

_MOST = 1000  # nodes remembered
_SIGMA = 1 << 30  # of a burn: fine enough to round up by next to nothing


@dataclass(frozen=True, slots=True)
class Lost:
    """An entry that this node signed for and its ledger lacks; up to the entry `shared` the two histories are one."""

    checkpoint: Checkpoint
    shared: int

    @property
    def head(self) -> Head:
        return Head(self.checkpoint.seq, self.checkpoint.hash)


@dataclass(frozen=True, slots=True)
class Memory:
    """What is kept in the file `path`: entries of this node that are lost, and the newest checkpoint of each other node."""

    path: Path
    key: Key

    def require(self, ledger: Ledger, shown: Iterable[Checkpoint]) -> None:
        """Refusal when the ledger lacks an entry that this node signed for, as a coordinator shows now or showed before.

        Only a checkpoint with this node's own signature counts, so nobody else can make one up.
        """
        own = [each for each in shown if each.node == self.key.fingerprint and self._signed(each)]
        held = {each: ledger.holds(Head(each.seq, each.hash)) for each in own}
        shared = [each.seq for each in own if held[each]]
        new = [Lost(each, max((seq for seq in shared if seq < each.seq), default=0)) for each in own if not held[each]]
        if new:
            self._write([*self.lost(), *new], self.others())
        lost = [each for each in self.lost() if not ledger.holds(each.head)]
        if lost:
            last = max(each.checkpoint.seq for each in lost)
            what = f"the ledger lacks entry {last}, which this node once signed for: it is an older copy"
            fix = "put the newest ledger back, or have the difference burned with `ahh node ledger recover`"
            raise Refusal(Reason.WITNESS, f"{what}; {fix}")

    def recover(self, ledger: Ledger) -> Spent:
        """Burn what the lost entries spent beyond the history they share with this ledger; what was burned.

        All lost entries are taken as one history, each later one with the earlier ones in it.

        Raises:
            Misuse: when nothing is lost.
        """
        lost = [each for each in self.lost() if not ledger.holds(each.head)]
        if not lost:
            raise Misuse("the ledger lacks nothing that a coordinator has shown this node: there is nothing to recover")
        common = ledger.spent_until(min(each.shared for each in lost))
        burned = Spent()
        for each in sorted(lost, key=lambda each: each.checkpoint.mu_squared):
            event = _event(
                Fraction(each.checkpoint.mu_squared) - common.mu_squared - burned.mu_squared,
                Fraction(each.checkpoint.slack) - common.slack - burned.slack,
            )
            ledger.burn(each.head, event)
            burned = burned + event
        return burned

    def learn(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Keep the newest of each other node, to show it to coordinators that lost theirs."""
        known = self.others()
        merged = newest([*known, *(each for each in checkpoints if each.node != self.key.fingerprint)])
        kept = tuple(merged[node] for node in sorted(merged))[:_MOST]
        if kept != known:
            self._write(self.lost(), kept)

    def lost(self) -> list[Lost]:
        return self._read()[0]

    def others(self) -> tuple[Checkpoint, ...]:
        return self._read()[1]

    def _signed(self, checkpoint: Checkpoint) -> bool:
        try:
            checkpoint.check(self.key.public)
        except Breach:
            return False
        return True

    def _write(self, lost: Iterable[Lost], others: Iterable[Checkpoint]) -> None:
        once: dict[Head, Lost] = {}
        for each in lost:
            before = once.get(each.head)
            once[each.head] = each if before is None or each.shared < before.shared else before
        content = {
            "lost": [{"checkpoint": each.checkpoint.to_json(), "shared": each.shared} for each in once.values()],
            "others": [each.to_json() for each in others],
        }
        write(self.path, dump(content))

    def _read(self) -> tuple[list[Lost], tuple[Checkpoint, ...]]:
        try:
            content = json.loads(self.path.read_bytes())
            lost = [Lost(Checkpoint.from_json(each["checkpoint"]), int(each["shared"])) for each in content["lost"]]
            return lost, tuple(Checkpoint.from_json(each) for each in content["others"])
        except FileNotFoundError:
            return [], ()
        except (OSError, ValueError, TypeError, KeyError, RecursionError, Breach):
            what = "put it back from your backup; without it a lost ledger is not seen"
            raise Misuse(f"{self.path} cannot be read: {what}") from None


def checkpoint(ledger: Ledger, policy: Policy, key: Key) -> Checkpoint:
    """This node's signed word on its ledger as it is now."""
    head, spent = ledger.head(), ledger.spent()
    limit = policy.budget
    found = Checkpoint(
        node=key.fingerprint,
        seq=head.seq,
        hash=head.hash,
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
