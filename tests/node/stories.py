"""Ledgers that were copied and put back, and what a node signed meanwhile: shared by the tests of the memory."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.errands import Checkpoint
from ahh_federated.errors import Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.policy import Policy

BUDGET = Budget(3.0, 1e-5)
POLICY = Policy(BUDGET)
EVENT = Event(1 << 20, 1 << 23, 4)


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


def refused(memory: Memory, ledger: Ledger, *seen: Checkpoint) -> None:
    with pytest.raises(Refusal) as caught:
        memory.require(ledger, seen)
    assert caught.value.reason is Reason.WITNESS
    assert "recover" in str(caught.value)


def covers(spent: Spent, truth: Spent) -> bool:
    return spent.mu_squared >= truth.mu_squared and spent.slack >= truth.slack


def of(key: Key, mark: Checkpoint, **fields: object) -> Checkpoint:
    """The same said by another node."""
    return dataclasses.replace(mark, node=key.fingerprint, public=key.public, **fields).signed(key)
