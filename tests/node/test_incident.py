"""The incident bundle: everything that explains what happened, and nothing that only a patient has."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import stat
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from ahh_federated.errors import Misuse
from ahh_federated.node.home import Consortium, NodeHome
from ahh_federated.node.incident import MANIFEST, bundle_name, export_ledger, write_incident
from ahh_federated.node.sources import sql_source
from tests.node.nodes import STUDY, approve, asking, node, reception, reply
from tests.study.samples import rows

CANARY = "Zq7canary"
NUMBERS = ("4.839506172", "28.839506173")
PARTS = {"audit.jsonl", "ledger.jsonl", "settings.json", "studies.json", "versions.json", "doctor.txt", MANIFEST}


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    """A node that has answered, with one planted patient among the others, and secrets where people put them."""
    weight, bmi = NUMBERS
    planted = {
        "child": CANARY,
        "seen": "2026-08-17",
        "sex": "boy",
        "smoked": "stopped",
        "weight": weight,
        "bmi": bmi,
        "name": CANARY,
    }
    held = pd.concat([rows(312), pd.DataFrame([planted, {**planted, "child": "", "weight": CANARY}])])
    made = node(tmp_path, "north", held)
    with (tmp_path / "north.csv").open("a") as file:
        file.write(f"{CANARY}\n")
    made.add_consortium(Consortium("harbour", "north", "no-such-host.invalid:1", f"PEM {CANARY}", {"north": "SHA256:x"}))
    approve(made)
    asked = reception(made)
    assert reply(asked, made, asking("children")).cells is not None
    asked.close()
    made.add_optouts([CANARY, "another"])
    for path in (made.config_path, made.policy_path):
        path.write_text(f"{path.read_text()}\n# {CANARY}\n")
    return made


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        return {name: bundle.read(name) for name in bundle.namelist()}


def test_no_patient_and_no_secret_is_in_it(home: NodeHome, tmp_path: Path) -> None:
    path = tmp_path / "incident.zip"
    assert set(write_incident(home, path)) == PARTS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    everything = b"\n".join(contents(path).values())
    marks = [CANARY, *NUMBERS, "839506", "2026-08-17", "optout", "313 ", "314 ", " rows", "PRIVATE KEY"]
    marks += [base64.b64encode(CANARY.encode()).decode()[:10], home.key_path.read_text().splitlines()[1]]
    assert [mark for mark in marks if mark.encode() in everything] == []


def test_it_holds_what_explains_the_incident(home: NodeHome, tmp_path: Path) -> None:
    path = tmp_path / "incident.zip"
    write_incident(home, path)
    held = contents(path)
    assert held["audit.jsonl"] == home.audit_path.read_bytes()
    entries = [json.loads(line) for line in held["ledger.jsonl"].splitlines()]
    kinds = [entry["kind"] for entry in entries]
    assert kinds.count("debit") == kinds.count("release") == 1
    set_up = json.loads(held["settings.json"])
    assert set_up["policy"]["budget"]["epsilon"] == 9.0
    assert set_up["consortia"][0]["address"] == "no-such-host.invalid:1"
    assert set_up["key"] == home.key.fingerprint
    (study,) = json.loads(held["studies.json"])
    assert study["digest"] == STUDY.digest
    assert study["decision"]["by"] == "the steward"
    assert b"MEND network" in held["doctor.txt"]
    assert b"MEND table        run `ahh node doctor` on the node" in held["doctor.txt"]
    assert json.loads(held["versions.json"])["flwr"] == "1.41.0"


def test_the_manifest_fits(home: NodeHome, tmp_path: Path) -> None:
    path = tmp_path / "incident.zip"
    write_incident(home, path)
    held = contents(path)
    sums = dict(reversed(line.split("  ")) for line in held.pop(MANIFEST).decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in held.items()}


def test_the_query_is_not_in_it(home: NodeHome, tmp_path: Path) -> None:
    query = f"SELECT * FROM visits WHERE child <> '{CANARY}'"
    home.connect(sql_source("sqlite:////srv/north.db", query, tmp_path / "password"))
    write_incident(home, tmp_path / "incident.zip")
    held = contents(tmp_path / "incident.zip")
    assert CANARY.encode() not in b"".join(held.values())
    source = json.loads(held["settings.json"])["source"]
    assert source["query"] == f"sha256:{hashlib.sha256(query.encode()).hexdigest()}"
    assert source["url"] == "sqlite:////srv/north.db"


def test_a_node_in_ruins_still_gives_a_bundle(home: NodeHome, tmp_path: Path) -> None:
    home.ledger_path.write_bytes(CANARY.encode() * 1000)
    home.policy_path.write_text(f"{CANARY} = ")
    home.config_path.write_text(f'name = "{CANARY}')
    home.audit_path.unlink()
    home.witness_path.write_text(CANARY)
    home.key_path.write_text(CANARY)
    next(home.studies.glob("*.decision.json")).write_text(CANARY)
    write_incident(home, tmp_path / "incident.zip")
    held = contents(tmp_path / "incident.zip")
    assert set(held) == PARTS
    assert CANARY.encode() not in b"".join(held.values())
    for name in ("audit.jsonl", "ledger.jsonl", "studies.json"):
        assert held[name].startswith(b"not readable: ")
    assert b"node.toml is not valid TOML" in held["settings.json"]


def test_a_bundle_is_never_written_over(home: NodeHome, tmp_path: Path) -> None:
    path = tmp_path / "incident.zip"
    path.write_text("evidence")
    with pytest.raises(Misuse, match="exists: give another file"):
        write_incident(home, path)
    assert path.read_text() == "evidence"
    assert bundle_name(home).startswith("incident-north-2")


def test_the_ledger_as_csv_and_as_lines(home: NodeHome) -> None:
    lines = [json.loads(line) for line in export_ledger(home.ledger_path).splitlines()]
    cells = list(csv.DictReader(io.StringIO(export_ledger(home.ledger_path, as_csv=True).decode())))
    assert [entry["hash"] for entry in cells] == [entry["hash"] for entry in lines]
    assert [entry["kind"] for entry in lines] == ["budget", "budget", "debit", "release"]
    assert list(cells[0]) == sorted(lines[0], key=list(cells[0]).index)
    assert "bytes" not in lines[0]
