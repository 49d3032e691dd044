"""The reception's log and ledger: what cannot be written down is not let out, and calls that cost nothing fill no disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.audit import Audit, verify_audit
from ahh_federated.core.releases import Status
from ahh_federated.errands import Receipt
from ahh_federated.errors import Misuse
from ahh_federated.node import reception as reception_module
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.quota import Quota
from ahh_federated.node.reception import Reception
from ahh_federated.wire import Reply
from tests.node.nodes import CONSORTIUM, STUDY, approve, asking, last_event, node, proposing, receipt, reception, reply, spent
from tests.node.receptions import hastened, watched
from tests.study.samples import request


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return watched(monkeypatch)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hastened(monkeypatch)


def test_a_log_that_cannot_be_written_lets_nothing_out(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was paid is stored, and given once the log can be written again."""
    approve(home)
    asked, call = reception(home), asking()

    def full(*of: object, **named: object) -> None:
        raise Misuse("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Audit, "write", full)
        found = reply(asked, home, call)
        assert (found.status, found.cells) == (Status.REFUSED, None)
        assert Receipt.from_bytes(asked.answer(CONSORTIUM, b"junk")).node == home.key.fingerprint
    before = spent(home)
    assert reply(asked, home, call).status is Status.RELEASED
    assert spent(home) == before


def junk(asked: Reception, home: NodeHome, number: int) -> None:
    """Calls of every kind that cost nothing, no two the same."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b"junk",
        lambda: asking(study=f"{number:064x}").to_bytes(),
        lambda: asking(body=b"{}").to_bytes(),
        lambda: proposing(study=f"{number:064x}").to_bytes(),
        lambda: asking(body=dataclasses.replace(request(STUDY, "children"), ask="nothing").to_bytes()).to_bytes(),
        lambda: asking(consortium="haven").to_bytes(),
        lambda: asking(version="9.9").to_bytes(),
        lambda: asking("children").to_bytes(),
    ]
    asked.answer(CONSORTIUM, kinds[number % len(kinds)]())


def lines(home: NodeHome, *events: str) -> list[dict[str, Any]]:
    return [entry for entry in home.audit.entries() if entry["event"] in events]


def test_ten_thousand_calls_that_cost_nothing_write_a_bounded_log(
    home: NodeHome, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is forgotten either: the log says how many lines it lacks, and what is paid for is always in it."""
    approve(home)
    now = [1000.0]
    asked = reception(home)
    asked._quota = Quota(reception_module._LINES, lambda: now[0])
    assert reply(asked, home, asking("children")).status is Status.RELEASED
    size, before = home.audit_path.stat().st_size, len(lines(home, "refused", "ask"))
    for number in range(10_000):
        junk(asked, home, number)
        now[0] += 0.012  # two minutes in all
    assert home.audit_path.stat().st_size - size < 3 * 120 * 600
    assert len(lines(home, "refused", "ask")) - before <= 3 * 120
    assert reply(asked, home, asking("size")).status is Status.RELEASED
    assert last_event(home)["ask"] == "size:0"
    now[0] += 60
    asked.answer(CONSORTIUM, b"junk")
    written = len(lines(home, "refused", "ask")) - before - 2
    assert written + sum(entry["lines"] for entry in lines(home, "withheld")) == 10_000
    assert verify_audit(home.audit_path)[0]
    assert spent(home)[1:] == (2, 2)


def test_a_ledger_that_is_gone_lets_nothing_out(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    for each in home.path.glob("ledger.db*"):
        each.rename(home.path / f"away-{each.name}")
    found = receipt(reception(home), home, asking())
    assert (Reply.from_bytes(found.body).reason, found.checkpoint) == ("ledger", None)
    assert not home.ledger_path.exists()
    assert reached == []


def test_a_ledger_swapped_under_a_serving_node_lets_nothing_out(home: NodeHome, tmp_path: Path) -> None:
    approve(home)
    asked = reception(home)
    assert reply(asked, home, asking()).status is Status.RELEASED
    home.ledger_path.unlink()
    Ledger.open(home.ledger_path, dataset="north", budget=home.policy.budget).close()
    found = receipt(asked, home, asking("size"))
    assert (Reply.from_bytes(found.body).reason, found.checkpoint) == ("ledger", None)
