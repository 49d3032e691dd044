"""docs/stock-flower.md: the same apps on stock `flower-superlink` and `flower-supernode`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ahh_federated.coordinator import home as coordinator_home
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.core.releases import Status
from ahh_federated.identity import Key
from ahh_federated.lab.synthetic import write_partners
from ahh_federated.node import home as node_home
from ahh_federated.node.policy import allow
from ahh_federated.node.sources import file_source
from ahh_federated.node.stewardship import decide, propose
from ahh_federated.study import canonical, open_study
from tests.federation.rig import ROOT, debits, free_port, study_text

BIN = Path(sys.executable).parent
NAMES = ("east", "north")
APP = ROOT / "examples" / "stock-flower"


class Stock:
    """A stock SuperLink and SuperNodes on loopback, as the recipe starts them."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(root / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        (root / "flwr").mkdir()
        (root / "flwr" / "config.toml").write_text(
            f'[superlink]\ndefault = "lab"\n[superlink.lab]\naddress = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{root}/coordinator/ca.pem"\n'
        )

    def start(self, log: str, *command: str, home: str = "") -> None:
        environment = {**self.environment, **({"FLWR_HOME": str(self.root / home)} if home else {})}
        with (self.root / log).open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        self.processes.append(process)

    def listens(self, port: int) -> None:
        """Until something listens there."""
        end = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def flwr(self, *words: str, seconds: float = 60) -> str:
        ended = subprocess.run(
            ["flwr", *words], capture_output=True, text=True, env=self.environment, timeout=seconds, check=False, cwd=self.root
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr + self.logs()
        return ended.stdout

    def logs(self) -> str:
        return "".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2500:]}" for log in self.root.glob("*.log"))

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            time.sleep(1.0)
        for process in self.processes:
            process.wait()


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


def superlink(stock: Stock) -> None:
    files = [f"{stock.root}/coordinator/{name}" for name in ("ca.pem", "server.pem", "server.key")]
    stock.start(
        "superlink.log", "flower-superlink", "--host", "127.0.0.1", "--port", str(stock.port), *_tls(files),
        "--enable-supernode-auth", "--database", str(stock.root / "state.db"), "--disable-runtime-dependency-installation",
    )  # fmt: skip


def _tls(files: Sequence[str]) -> list[str]:
    return ["--ssl-ca-certfile", files[0], "--ssl-certfile", files[1], "--ssl-keyfile", files[2]]


def supernode(stock: Stock, name: str) -> None:
    home = stock.root / "nodes" / name
    private = home / "flower.key"  # what `ssh-keygen -p` makes of a copy
    key = Key.load(home / "node.key").private
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    private.chmod(0o600)
    stock.flwr("supernode", "register", str(home / "node.pub"), "lab", "--name", name, "--format", "json")
    config = f'home="{home}" consortium="antwerp"'
    files = [f"{stock.root}/coordinator/{each}" for each in ("ca.pem", "server.pem", "server.key")]
    stock.start(
        f"{name}.log", "flower-supernode", "--superlink", f"127.0.0.1:{stock.port}", "--root-certificates", files[0],
        "--auth-supernode-private-key", str(private), "--host", "127.0.0.1", "--port", str(free_port()), *_tls(files),
        "--node-config", config, home=f"flwr-{name}",
    )  # fmt: skip


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
