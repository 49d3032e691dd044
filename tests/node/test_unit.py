"""The systemd unit: systemd itself says how exposed it is, and that it can be read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ahh_federated.errors import Misuse
from ahh_federated.node.home import Consortium, NodeHome, create_home
from ahh_federated.node.sources import CREDENTIAL, file_source, sql_source
from ahh_federated.node.unit import unit

MOST_EXPOSED = 2.0
ANALYZE = shutil.which("systemd-analyze")
analyzed = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not on this machine")
HARBOUR = Consortium("harbour", "north", "192.0.2.7:8443", "x")


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    made = create_home(tmp_path / "node", "north")
    made.connect(file_source(Path("/srv/ahh/north.csv")))
    made.add_consortium(HARBOUR)
    return made


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def exposure(folder: Path, text: str) -> float:
    path = folder / "ahh-node.service"
    path.write_text(text)
    found = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--no-pager", str(path)], capture_output=True, text=True, check=False
    )
    level = re.search(r"Overall exposure level for ahh-node.service: ([\d.]+)", found.stdout)
    assert level, found.stderr
    return float(level[1])


@analyzed
def test_systemd_finds_little_exposed(home: NodeHome, tmp_path: Path) -> None:
    password = tmp_path / "password"
    database = sql_source("sqlite:////srv/a.db", "SELECT 1", password)
    assert exposure(tmp_path, unit(home)) <= MOST_EXPOSED
    home.connect(database)
    assert exposure(tmp_path, unit(home, "somebody")) <= MOST_EXPOSED


@analyzed
def test_the_figure_is_of_this_unit(home: NodeHome, tmp_path: Path) -> None:
    """The check can fail: without its fences the same unit is far above."""
    bare = "\n".join(line for line in unit(home).splitlines() if not re.match(r"[A-Z]\w+=", line) or line.startswith("Exec"))
    assert exposure(tmp_path, bare) > 9


@analyzed
def test_systemd_can_read_it(home: NodeHome, tmp_path: Path) -> None:
    path = tmp_path / "ahh-node.service"
    path.write_text(unit(home))
    found = subprocess.run([str(ANALYZE), "verify", str(path)], capture_output=True, text=True, check=False)
    complaints = [line for line in found.stderr.splitlines() if "ahh-node.service" in line]
    assert complaints == []


def test_only_the_coordinators_are_reached(home: NodeHome) -> None:
    home.add_consortium(replace(HARBOUR, name="city", address="[2001:db8::1]:8443"))
    home.add_consortium(replace(HARBOUR, name="gone", address="no-such-host.invalid:8443"))
    text = unit(home)
    assert values(text, "IPAddressDeny") == ["any"]
    assert values(text, "IPAddressAllow") == ["localhost", "2001:db8::1", "192.0.2.7"]
    assert "# gone: no-such-host.invalid, which could not be looked up: add its address" in text
    assert values(text, "SocketBindDeny") == ["any"]


def test_the_database_is_reached_too(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ahh_federated.node.home.read_source",
        lambda table: replace(sql_source("sqlite://", "SELECT 1"), url="sqlite://192.0.2.9/x"),
    )
    assert "192.0.2.9" in values(unit(home), "IPAddressAllow")


def test_the_table_is_read_only_and_the_folder_is_not(home: NodeHome) -> None:
    text = unit(home)
    assert values(text, "ReadOnlyPaths") == ["/srv/ahh/north.csv"]
    assert values(text, "ReadWritePaths") == [str(home.path)]
    assert values(text, "ExecStart") == [f"{sys.executable} -m ahh_federated node serve --home {home.path}"]
    assert (values(text, "User"), values(text, "Group")) == (["ahh"], ["ahh"])


def test_what_lies_below_home_is_bound(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    home.connect(file_source(Path("/home/an/north.csv")))
    monkeypatch.setattr("ahh_federated.node.unit._HIDDEN", (Path("/home"), home.path.parent))
    text = unit(home)
    assert values(text, "ProtectHome") == ["tmpfs"]
    assert "/home/an/north.csv" in values(text, "BindReadOnlyPaths")
    assert values(text, "BindPaths") == [str(home.path)]


def test_the_password_is_handed_over_as_a_credential(home: NodeHome, tmp_path: Path) -> None:
    assert values(unit(home), "LoadCredential") == []
    home.connect(sql_source("sqlite:////srv/a.db", "SELECT 1", tmp_path / "password"))
    assert values(unit(home), "LoadCredential") == [f"{CREDENTIAL}:{tmp_path / 'password'}"]
    home.connect(sql_source("sqlite:////srv/a.db", "SELECT 1", None, "AHH_PASSWORD"))
    text = unit(home)
    assert values(text, "LoadCredential") == []
    assert "connect again with --password-file" in text
    assert values(text, "Environment") == [f"AHH_NODE_HOME={home.path}"]


@pytest.mark.parametrize("name", ["with space", 'quo"te', "co:lon", "new\nline", "back\\slash"])
def test_a_path_that_would_be_read_otherwise_is_refused(home: NodeHome, name: str) -> None:
    home.connect(file_source(Path(f"/srv/{name}/north.csv")))
    with pytest.raises(Misuse, match="cannot stand in a systemd unit"):
        unit(home)


def test_a_percent_sign_is_a_percent_sign(home: NodeHome) -> None:
    home.connect(file_source(Path("/srv/100%h/north.csv")))
    assert values(unit(home), "ReadOnlyPaths") == ["/srv/100%%h/north.csv"]


def test_without_a_table_there_is_no_unit(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="ahh node connect"):
        unit(create_home(tmp_path / "node", "north"))


@pytest.mark.parametrize("user", ["root\nExecStartPre=/bin/sh", "a b", "", "-x"])
def test_a_user_that_is_no_name_is_refused(home: NodeHome, user: str) -> None:
    with pytest.raises(Misuse, match="is no name of a system user"):
        unit(home, user)
