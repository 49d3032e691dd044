"""A call that comes again: the same bytes at no cost, never with other numbers, and not after a revocation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ahh_federated.core.releases import Status
from ahh_federated.node.home import NodeHome
from ahh_federated.node.stewardship import decide
from tests.node.nodes import STUDY, approve, asking, node, receipt, reception, reply, spent
from tests.node.receptions import hastened
from tests.study.samples import TODAY, scale


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hastened(monkeypatch)


def test_a_step_is_not_answered_with_other_numbers(home: NodeHome) -> None:
    approve(home)
    asked = reception(home)
    assert reply(asked, home, asking("model", 2, scale(STUDY))).status is Status.RELEASED
    before = spent(home)
    assert reply(asked, home, asking("model", 2, scale(STUDY, radius=[2.0]))).reason == "schedule"
    asked.close()
    assert reply(reception(home), home, asking("model", 2, scale(STUDY, radius=[2.0]))).reason == "schedule"
    assert spent(home) == before


def test_after_a_revocation_not_even_stored_bytes_are_given(home: NodeHome) -> None:
    approve(home)
    asked, call = reception(home), asking()
    assert reply(asked, home, call).status is Status.RELEASED
    decide(home, STUDY.digest, "revoked", by="the steward", today=TODAY)
    found = reply(asked, home, call)
    assert (found.status, found.cells) == (Status.REFUSED, None)


def replayed(home: NodeHome, at_reception: int, at_desk: int) -> None:
    asked, call = reception(home), asking("model", 2, scale(STUDY))
    first, before = receipt(asked, home, call), spent(home)
    for k in range(at_reception):
        again = receipt(asked, home, call if k % 2 else dataclasses.replace(call, attempt=str(k)))
        assert (again.body, again.checkpoint is not None and again.checkpoint.hash) == (first.body, first.checkpoint.hash)
    held = asked._desks[STUDY.digest]
    assert all(held.answer(call.body, TODAY) == first.body for _ in range(at_desk))
    assert spent(home) == before
    asked.close()
    assert receipt(reception(home), home, call).body == first.body
    assert spent(home) == before


def test_ten_thousand_replays_get_the_same_bytes_and_cost_nothing(home: NodeHome, fast: None) -> None:
    """The most of them at the desk, which is what gives the bytes."""
    approve(home)
    replayed(home, 200, 9800)


@pytest.mark.slow
def test_ten_thousand_replays_at_the_reception(home: NodeHome, fast: None) -> None:
    approve(home)
    replayed(home, 10_000, 0)
