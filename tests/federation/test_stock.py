"""docs/stock-flower.md: the same apps on stock `flower-superlink` and `flower-supernode`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahh_federated.coordinator import home as coordinator_home
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.core.releases import Status
from ahh_federated.lab.synthetic import write_partners
from ahh_federated.node import home as node_home
from ahh_federated.node.policy import allow
from ahh_federated.node.sources import file_source
from ahh_federated.node.stewardship import decide, propose
from ahh_federated.study import canonical, open_study
from tests.federation.rig import ROOT, debits, study_text
from tests.federation.stock import Stock, superlink, supernode

NAMES = ("east", "north")
APP = ROOT / "examples" / "stock-flower"


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    made = Stock(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def found(stock: Stock, study_file: Path) -> None:
    """The folders of a coordinator and of its nodes, each node's table connected and the study approved."""
    home = coordinator_home.create_home(stock.root / "coordinator", "antwerp", f"127.0.0.1:{stock.port}")
    roster, asked = Roster(home.database), open_study(study_file)
    tables = sorted(write_partners(stock.root / "tables", children=8000, seed=7).items())
    for name, (_, table) in zip(NAMES, tables, strict=False):
        node = node_home.create_home(stock.root / "nodes" / name, name)
        node.connect(file_source(table))
        allow(node.policy_path, [*asked.columns, "recorded"])
        roster.enrol(roster.invite(name), node.key.public)
        propose(node, canonical(asked.content), "")
        decide(node, asked.digest, "approved", by="steward")


@pytest.mark.slow
def test_the_recipe(stock: Stock) -> None:
    study_file = stock.root / "study.toml"
    study_file.write_text(study_text(("children", "size")))
    found(stock, study_file)
    superlink(stock)
    stock.listens(stock.port)
    for name in NAMES:
        supernode(stock, name)
    config = f'home="{stock.root}/coordinator" study="{study_file}"'
    run = json.loads(stock.flwr("run", str(APP), "lab", "-c", config, "--format", "json"))
    asked = open_study(study_file)
    transcript = coordinator_home.open_home(stock.root / "coordinator").transcript(asked.digest)
    end = time.monotonic() + 240
    while b'"spending"' not in (transcript.read_bytes() if transcript.exists() else b""):
        assert time.monotonic() < end, (run, stock.logs())
        time.sleep(1)
    header, exchanges, _ = read_transcript(transcript)
    assert header.partners == NAMES and len(exchanges) == 2
    assert all(reply.status is Status.RELEASED for each in exchanges for reply in each.replies.values())
    for name in NAMES:
        with node_home.open_home(stock.root / "nodes" / name).ledger() as ledger:
            assert ledger.verify().ok and set(debits(ledger.entries()).values()) == {1}
