"""`ahh coordinator`: what each verb prints, writes and refuses."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from ahh_federated.cli import coordinator_parser, coordinator_verbs
from ahh_federated.cli.main import main
from ahh_federated.coordinator import authority
from ahh_federated.coordinator.home import open_home
from ahh_federated.coordinator.queue import Queue
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.unit import unit
from ahh_federated.identity import Key
from ahh_federated.runtimes import coordinator_process
from ahh_federated.runtimes.handouts import read_access, read_invitation
from tests.coordinator.coordinators import study

INIT = ["init", "--name", "antwerp", "--address", "localhost:8443"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AHH_COORDINATOR_HOME", str(tmp_path / "coordinator"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ahh(place, capsys):
    """Runs one verb; what it printed, after a status of 0 or the one expected."""

    def run(*words: str, status: int = 0) -> str:
        assert main(["coordinator", *words]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


@pytest.fixture
def made(ahh, place):
    ahh(*INIT)
    return open_home(place / "coordinator")


def test_init(ahh, place):
    printed = ahh(*INIT)
    home = open_home(place / "coordinator")
    assert home.listen == "0.0.0.0:8443"
    assert re.search(r"authority +SHA256 ([0-9a-f]{2}:){31}[0-9a-f]{2}$", printed, re.MULTILINE)
    assert f"{authority.expires(home.certificate):%Y-%m-%d}" in printed
    assert "holds something already" in ahh(*INIT, status=2)
    ahh(*INIT, "--home", "other", "--listen", "127.0.0.1:9000")
    assert open_home(place / "other").listen == "127.0.0.1:9000"


def test_without_a_coordinator_every_verb_says_so(ahh, place):
    for words in (["invite", "x"], ["welcome", "x"], ["dismiss", "x"], ["revoke", "x"], ["roster"], ["status"], ["serve"]):
        assert "holds no coordinator" in ahh(*words, status=2)
    for words in (["renew"], ["audit", "show"], ["audit", "verify"]):
        assert "holds no coordinator" in ahh(*words, status=2)
    assert list(place.iterdir()) == []


def test_invite_and_revoke(ahh, made, place):
    printed = ahh("invite", "hospital-zas", "--hours", "5")
    assert "hospital-zas.invitation.toml: for hospital-zas, within 5 hours" in printed
    invitation = read_invitation(place / "hospital-zas.invitation.toml")
    assert timedelta(hours=4) < invitation.expires - datetime.now(UTC) <= timedelta(hours=5)
    assert "exists" in ahh("invite", "hospital-zas", status=2)
    assert "outside" in ahh("invite", "zone-noord", "--hours", "nan", status=2)
    ahh("invite", "zone-noord", "--out", "north.toml")
    assert read_invitation(place / "north.toml").partner == "zone-noord"
    with closing(Roster(made.database)) as roster:
        roster.enrol(invitation.token, Key.create(place / "node.key").public)
    assert "is revoked" in ahh("revoke", "hospital-zas")
    assert "invitation of zone-noord is withdrawn" in ahh("revoke", "zone-noord")
    assert "neither a partner nor invited" in ahh("revoke", "nobody", status=2)


def test_welcome_and_dismiss(ahh, made, place):
    assert "an-peeters.access.toml: for an-peeters" in ahh("welcome", "an-peeters")
    assert read_access(place / "an-peeters.access.toml").researcher == "an-peeters"
    assert "no access any more" in ahh("dismiss", "an-peeters")
    assert "not a researcher here" in ahh("dismiss", "an-peeters", status=2)


def test_roster(ahh, made, place):
    assert ahh("roster") == ""
    ahh("invite", "hospital-zas")
    ahh("invite", "zone-noord")
    ahh("welcome", "an-peeters")
    key = Key.create(place / "node.key")
    with closing(Roster(made.database)) as roster:
        roster.enrol(read_invitation(place / "hospital-zas.invitation.toml").token, key.public)
    lines = ahh("roster").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["hospital-zas", "joined"],
        ["zone-noord", "invited"],
        ["an-peeters", "researcher"],
    ]
    assert lines[0].endswith(key.fingerprint) and lines[1].endswith("UTC")
    ahh("revoke", "hospital-zas")
    assert ahh("roster").splitlines()[0].split()[1] == "revoked"


def test_status(ahh, made):
    assert ahh("status") == ""
    with closing(Queue(made.database)) as queue:
        first = queue.submit(study(1), "an-peeters")
        queue.submit(study(2), "an-peeters")
        queue.set(first.digest, "failed", "1 partners approved, the study needs 2")
    lines = ahh("status").splitlines()
    assert lines[0].split()[:3] == [first.digest[:12], "growth", "failed"]
    assert lines[1].strip() == "1 partners approved, the study needs 2"
    assert "queued, place 1" in lines[2] and lines[2].endswith("an-peeters")


def test_renew(ahh, made):
    authority.issue("localhost", made.ca, made.ca_key, made.certificate, made.key, start=datetime.now(UTC) - timedelta(days=390))
    printed = ahh("renew")
    until = authority.expires(made.certificate)
    assert (until - datetime.now(UTC)).days >= 397 and f"{until:%Y-%m-%d}" in printed
    assert "Restart" in printed


def test_serve_warns_of_a_certificate_that_ends(ahh, made, monkeypatch, capsys):
    served = []
    monkeypatch.setattr(coordinator_process, "serve_coordinator", served.append)
    assert main(["coordinator", "serve"]) == 0
    assert capsys.readouterr().err == ""
    authority.issue("localhost", made.ca, made.ca_key, made.certificate, made.key, start=datetime.now(UTC) - timedelta(days=390))
    assert main(["coordinator", "serve"]) == 0
    assert "ahh coordinator renew" in capsys.readouterr().err
    assert served == [made, made]


def test_audit(ahh, made):
    ahh("invite", "hospital-zas")
    ahh("welcome", "an-peeters")
    ahh("revoke", "hospital-zas")
    ahh("dismiss", "an-peeters")
    ahh("renew")
    lines = ahh("audit", "show").splitlines()
    assert [line.split()[2] for line in lines] == ["init", "invite", "welcome", "revoke", "dismiss", "renew"]
    assert "partner=hospital-zas" in lines[1] and "hash" not in lines[1]
    assert ahh("audit", "verify").startswith("whole: 6 events")
    entries = made.audit.path.read_text().splitlines(keepends=True)
    made.audit.path.write_text("".join(entries[:2] + entries[3:]))
    assert main(["coordinator", "audit", "verify"]) == 3


def test_no_verb_prints_or_logs_a_secret(ahh, made, place):
    printed = ahh("invite", "hospital-zas") + ahh("welcome", "an-peeters") + ahh("roster") + ahh("audit", "show")
    for token in (
        read_invitation(place / "hospital-zas.invitation.toml").token,
        read_access(place / "an-peeters.access.toml").token,
    ):
        assert token not in printed and token not in made.audit.path.read_text()


def test_service(ahh, tmp_path):
    text = ahh("service")
    assert "coordinator serve --home /var/lib/ahh-coordinator/home" in text and "ProtectSystem=strict" in text
    assert "ProtectHome=yes" in unit("/opt/ahh/bin/python") and "ProtectHome=read-only" in unit("/home/an/venv/bin/python")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_the_unit_is_hardened(tmp_path):
    path = tmp_path / "ahh-coordinator.service"
    path.write_text(unit("/usr/bin/env"))
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for .*: ([0-9.]+)", ended.stdout)
    assert found and float(found[1]) <= 2.0, ended.stderr
    assert subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, check=False).returncode == 0


def test_every_verb_of_the_parser_has_its_function():
    top = argparse.ArgumentParser()
    coordinator_parser.add(top.add_subparsers())
    named = set()

    def walk(parser):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for inner in action.choices.values():
                    walk(inner)
        if parser.get_default("verb"):
            named.add((parser.get_default("module"), parser.get_default("verb")))

    walk(top)
    assert {module for module, _ in named} == {"coordinator_verbs"} and len(named) == 12
    assert all(callable(getattr(coordinator_verbs, verb)) for _, verb in named)


def test_the_database_being_busy_or_broken_is_told(ahh, made):
    made.database.write_bytes(json.dumps("no database").encode() * 500)
    assert "cannot be used" in ahh("roster", status=2)
