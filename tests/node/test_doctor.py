"""What the doctor finds: each thing broken on purpose has a line of its own, with how to mend it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.coordinator import authority
from ahh_federated.errors import Unreachable
from ahh_federated.node import doctor
from ahh_federated.node.doctor import Line, examine, versions
from ahh_federated.node.home import Consortium, NodeHome
from ahh_federated.node.memory import checkpoint
from ahh_federated.version import VERSION
from tests.node.nodes import node
from tests.study.samples import rows


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path, "north")


@contextmanager
def answering(folder: Path, start: datetime | None = None, skew: float = 0.0, version: object = VERSION) -> Iterator[Consortium]:
    """A coordinator that only says what it is, over TLS; `skew` is by how many seconds its clock is ahead."""

    class About(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/ahh/v1/about"
            body = json.dumps({"name": "harbour", "version": version}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + timedelta(seconds=skew), usegmt=True)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that does not trust us hangs up

    ca, certificate = folder / "ca.pem", folder / "server.pem"
    authority.found("harbour", ca, folder / "ca.key")
    authority.issue("127.0.0.1", ca, folder / "ca.key", certificate, folder / "server.key", start=start)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, folder / "server.key")
    with Quiet(("127.0.0.1", 0), About) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Consortium("harbour", "north", f"127.0.0.1:{server.server_port}", ca.read_text(), {})
        finally:
            server.shutdown()
            thread.join()


def joined(home: NodeHome, consortium: Consortium) -> dict[str, Line]:
    home.add_consortium(consortium)
    return {line.what: line for line in examine(home)}


def test_a_node_that_is_well(home: NodeHome, tmp_path: Path) -> None:
    with answering(tmp_path) as consortium:
        lines = joined(home, consortium)
    assert [line for line in lines.values() if not line.ok] == []
    looked = ["versions", "permissions", "key", "disk", "policy", "ledger", "audit", "table", "consortia"]
    assert list(lines) == [*looked, "network", "tls", "clock", "coordinator"]
    assert str(lines["table"]) == "ok   table        north.csv: 300 rows, 7 columns"
    assert "TLSv1.3" in lines["tls"].text


def loosen(home: NodeHome) -> None:
    home.key_path.chmod(0o644)


def cut_audit(home: NodeHome) -> None:
    home.audit_path.write_text(home.audit_path.read_text().replace("north", "south"))


def break_ledger(home: NodeHome) -> None:
    with closing(sqlite3.connect(home.ledger_path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER entries_update")
        db.execute("UPDATE entries SET epsilon = 9.5 WHERE seq = 1")


def lose_entries(home: NodeHome) -> None:
    """A coordinator has shown an entry that this ledger lacks."""
    with home.ledger() as ledger:
        ahead = replace(checkpoint(ledger, home.policy, home.key), seq=99).signed(home.key)
        try:
            doctor.Memory(home.witness_path, home.key).require(ledger, [ahead])
        except Exception:
            return
    raise AssertionError("the entry was not missed")


BROKEN: dict[str, tuple[str, Callable[[NodeHome], object], str]] = {
    "open-key": ("permissions", loosen, "node.key can be read by others: chmod 600"),
    "open-folder": ("permissions", lambda home: home.path.chmod(0o755), "can be read by others: chmod 700"),
    "open-rules": ("permissions", lambda home: home.policy_path.chmod(0o666), "policy.toml can be changed by others"),
    "no-key": (
        "key",
        lambda home: home.key_path.unlink(),
        "node.key cannot be read (No such file or directory): put the key back",
    ),
    "other-key": ("key", lambda home: home.public_path.write_text("a b c"), "is not the public half of"),
    "no-public-key": ("key", lambda home: home.public_path.unlink(), "node.pub cannot be read (No such file or directory)"),
    "no-rules": ("policy", lambda home: home.policy_path.unlink(), "policy.toml is gone"),
    "no-columns": ("policy", lambda home: doctor_allow(home, []), "no column is allowed yet"),
    "no-ledger": ("ledger", lambda home: home.ledger_path.unlink(), "ledger.db is gone: put back a copy"),
    "broken-ledger": ("ledger", break_ledger, "entry 1: its content does not match its hash"),
    "old-ledger": ("ledger", lose_entries, "burned with `ahh node ledger recover`"),
    "audit": ("audit", cut_audit, "audit.jsonl: line 1 was changed; keep the file"),
    "no-table": ("table", lambda home: home.source.path.unlink(), "/north.csv cannot be read (No such file or directory)"),
    "ragged": ("table", lambda home: ragged(home), "1 rows have more or fewer cells than the header"),
    "no-consortium": ("consortia", lambda home: None, "none joined: ask the coordinator for an invitation"),
}


def doctor_allow(home: NodeHome, columns: list[str]) -> None:
    from ahh_federated.node.policy import allow

    allow(home.policy_path, columns)


def ragged(home: NodeHome) -> None:
    assert home.source.path is not None
    home.source.path.write_text(rows(10).to_csv(index=False) + "Zq7canary\n")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_in_its_line(home: NodeHome, name: str) -> None:
    what, act, says = BROKEN[name]
    act(home)
    lines = {line.what: line for line in examine(home)}
    assert not lines[what].ok
    assert says in lines[what].text
    assert str(lines[what]).startswith("MEND ")
    assert "Zq7canary" not in "".join(map(str, lines.values()))


def test_one_fault_is_told_once(home: NodeHome) -> None:
    """The key's file is looked at for its mode, read for the key, and read again to check the ledger's witnesses."""
    loosen(home)
    assert [line.what for line in examine(home) if "node.key" in line.text] == ["permissions"]


def test_a_list_of_opt_outs_that_is_none(home: NodeHome) -> None:
    home.add_optouts(["p1-1"])
    assert {line.what: line for line in examine(home)}["table"].text.endswith("7 columns, 1 opted out")
    home.optout_path.write_text("p1-1\nZq7canary,2\n")
    line = {line.what: line for line in examine(home)}["table"]
    assert not line.ok
    assert "optout.txt: line 2 holds a comma" in line.text
    assert "Zq7canary" not in line.text


def test_whoever_asks_is_told_of_the_membership(home: NodeHome, tmp_path: Path) -> None:
    def revoked(consortium: Consortium) -> str:
        raise Unreachable(f"{consortium.name} refuses this node")

    with answering(tmp_path) as consortium:
        home.add_consortium(consortium)
        *_, well = examine(home, lambda each: f"{each.name} admits this node")
        *_, ill = examine(home, revoked)
    assert str(well) == "ok   membership   harbour admits this node"
    assert str(ill) == "MEND membership   harbour refuses this node"
    assert "membership" not in {line.what for line in examine(home, revoked)}  # nobody listens any more


def test_a_full_disk(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK", 1 << 62)
    assert "MB are free: free some space" in {line.what: line for line in examine(home)}["disk"].text


def test_a_network_disk(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_filesystem", lambda path: "nfs4")
    line = {line.what: line for line in examine(home)}["disk"]
    assert not line.ok
    assert "lies on a network disk (nfs4)" in line.text


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="only Linux tells its mounts so")
def test_the_kind_of_disk_is_found() -> None:
    assert doctor._filesystem(Path("/proc/self")) == "proc"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_somebody_elses_folder(home: NodeHome) -> None:
    os.chown(home.audit_path, 12345, -1)
    line = {line.what: line for line in examine(home)}["permissions"]
    assert not line.ok and "audit.jsonl belongs to another user" in line.text


def test_a_coordinator_of_another_authority(home: NodeHome, tmp_path: Path) -> None:
    authority.found("other", tmp_path / "other.pem", tmp_path / "other.key")
    with answering(tmp_path) as consortium:
        lines = joined(home, replace(consortium, ca=(tmp_path / "other.pem").read_text()))
    assert lines["network"].ok
    assert not lines["tls"].ok
    assert "shows no certificate that is trusted" in lines["tls"].text
    assert "clock" not in lines


@pytest.mark.parametrize(("days", "says"), [(-400, "shows no certificate that is trusted"), (-390, "tell its operator to run")])
def test_a_certificate_that_has_ended_or_soon_will(home: NodeHome, tmp_path: Path, days: int, says: str) -> None:
    with answering(tmp_path, start=datetime.now(UTC) + timedelta(days=days)) as consortium:
        lines = joined(home, consortium)
    assert not lines["tls"].ok
    assert says in lines["tls"].text
    assert ("clock" in lines) == (days == -390)


def test_another_host_than_the_certificates(home: NodeHome, tmp_path: Path) -> None:
    with answering(tmp_path) as consortium:
        lines = joined(home, replace(consortium, address=consortium.address.replace("127.0.0.1", "localhost")))
    assert not lines["tls"].ok


@pytest.mark.parametrize(("skew", "says"), [(-60, "60 s ahead of the coordinator's"), (60, "60 s behind the coordinator's")])
def test_a_clock_that_is_wrong(home: NodeHome, tmp_path: Path, skew: float, says: str) -> None:
    with answering(tmp_path, skew=skew) as consortium:
        lines = joined(home, consortium)
    assert not lines["clock"].ok
    assert says.partition(" s ")[2] in lines["clock"].text
    assert "NTP" in lines["clock"].text


@pytest.mark.parametrize("version", ["9.0.0", "", None, 7, "\x1b[2J"])
def test_a_coordinator_of_another_version(home: NodeHome, tmp_path: Path, version: object) -> None:
    with answering(tmp_path, version=version) as consortium:
        lines = joined(home, consortium)
    assert not lines["coordinator"].ok
    assert "bring both within one minor version" in lines["coordinator"].text
    assert lines["coordinator"].text.isprintable()


def test_nobody_listens(home: NodeHome, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        lines = joined(home, Consortium("harbour", "north", address, "x"))
    assert not lines["network"].ok
    assert "nothing listens there" in lines["network"].text
    assert "tls" not in lines


@pytest.mark.parametrize(
    ("address", "says"), [("no-such-host.invalid:1", "check DNS"), ("nowhere", "is not HOST:PORT"), (":1", "HOST")]
)
def test_an_address_that_is_none(home: NodeHome, address: str, says: str) -> None:
    line = joined(home, Consortium("harbour", "north", address, "x"))["network"]
    assert not line.ok
    assert says in line.text


def test_something_else_answers_there(home: NodeHome, tmp_path: Path) -> None:
    authority.found("harbour", tmp_path / "ca.pem", tmp_path / "ca.key")
    listening = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        with listening, listening.accept()[0] as line:
            line.recv(100)
            line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=hang_up)
    thread.start()
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    line = joined(home, Consortium("harbour", "north", address, (tmp_path / "ca.pem").read_text()))["tls"]
    thread.join()
    assert not line.ok
    assert "does not speak as a coordinator" in line.text


def test_an_authority_that_is_no_certificate(home: NodeHome, tmp_path: Path) -> None:
    with answering(tmp_path) as consortium:
        line = joined(home, replace(consortium, ca="x"))["tls"]
    assert not line.ok
    assert "harbour.ca.pem is no certificate" in line.text


def test_versions_are_what_is_installed() -> None:
    found = versions()
    assert found["ahh-federated"] == VERSION
    assert found["flwr"] == "1.41.0"
    assert "not installed" not in found.values()


def test_software_that_is_not_there(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "versions", lambda: {"flwr": "not installed", "python": "3.11"})
    line = next(iter(examine(home)))
    assert (line.what, line.ok) == ("versions", False)
    assert "flwr cannot be found" in line.text
