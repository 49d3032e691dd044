"""A stock SuperLink and SuperNodes on loopback, as docs/stock-flower.md starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ahh_federated.identity import Key
from tests.federation.rig import ROOT, free_port

BIN = Path(sys.executable).parent


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
