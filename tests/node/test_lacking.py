"""A node without torch: the steward is told beforehand, and nothing is paid for a network that could not be trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from ahh_federated.cli.node_inspect import describe
from ahh_federated.core.releases import Status
from ahh_federated.node.stewardship import Proposal
from ahh_federated.study import asks
from tests.node.nodes import node
from tests.study.samples import answer, debits, desk, request, small

STUDY = small(
    (
        'analysis = "logistic"',
        'analysis = "neural"',
    )
)


@pytest.fixture
def without_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    there = asks.find_spec
    monkeypatch.setattr(asks, "find_spec", lambda name: None if name == "opacus" else there("json"))


def test_a_network_is_refused_from_the_first_message_on_and_costs_nothing(without_opacus: None) -> None:
    told: list[str] = []
    asked = desk(STUDY, tell=told.append)
    reply = answer(asked, request(STUDY, "model"))
    assert (reply.status, reply.reason) == (Status.REFUSED, "query")
    assert debits(asked.ledger) == 0
    assert told == ["north: model trains a network, which needs opacus here: pip install 'ahh-federated[neural]'"]


def test_all_else_is_answered(without_opacus: None) -> None:
    assert answer(desk(STUDY), request(STUDY, "children")).status is Status.RELEASED


def test_with_all_that_it_needs_a_node_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    there = asks.find_spec
    monkeypatch.setattr(asks, "find_spec", lambda name: there("json"))
    assert answer(desk(STUDY), request(STUDY, "model")).status is Status.RELEASED


def test_the_steward_reads_it_before_deciding(without_opacus: None, tmp_path: Path) -> None:
    page = " ".join(" ".join(describe(node(tmp_path), Proposal(STUDY, "harbour", "2026-11-01", None))).split())
    assert "This node cannot answer all of it: model trains a network, which needs opacus here: pip install" in page
