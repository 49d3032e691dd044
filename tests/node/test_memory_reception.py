"""A reception with an old ledger or a damaged memory: no release until it has burned, and no consortium learns of another."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from ahh_federated.core.releases import Status
from ahh_federated.identity import Key
from ahh_federated.node.home import NodeHome
from ahh_federated.node.memory import Memory
from tests.node.nodes import approve, asking, node, proposing, receipt, reception, reply, rule, shown, spent, standing
from tests.node.stories import covers, of
from tests.study.samples import QUIET, small


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "stranger.key")


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
