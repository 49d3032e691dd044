"""A real federation on this machine: a coordinator and nodes as processes of their own, over TLS."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from ahh_federated.coordinator import home as coordinator_home
from ahh_federated.coordinator.home import CoordinatorHome
from ahh_federated.coordinator.queue import Queue, Queued
from ahh_federated.coordinator.roster import Roster
from ahh_federated.lab.synthetic import write_partners
from ahh_federated.node import home as node_home
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Entry, Ledger
from ahh_federated.node.policy import allow
from ahh_federated.node.sources import file_source
from ahh_federated.node.stewardship import decide, propose
from ahh_federated.runtimes.enrolment import join, write_invitation
from ahh_federated.study import Study, canonical, parse_study

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "child-overweight.toml"
ASKS = ("children", "size", "model", "evaluation")
Prefix = Callable[[str], list[str]]


def study_text(asks: Iterable[str] = ASKS, **about: float) -> str:
    """The demo's study file with fewer asks; `about` sets keys of its [study] table."""
    head, *blocks = EXAMPLE.read_text().split("[[ask]]")
    kept = [block for block in blocks if tomllib.loads(block)["id"] in set(asks)]
    for name, value in {"minimum_partners": 2, "round_deadline": 60.0, **about}.items():
        head = re.sub(rf"^{name} = .*\n", "", head, flags=re.MULTILINE)
        head = head.replace("[study]\n", f"[study]\n{name} = {value}\n")
    return "[[ask]]".join([head, *kept])


def study(**about: float) -> Study:
    return parse_study(tomllib.loads(study_text(**about)))


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port


@dataclass
class Federation:
    """`prefix` gives the words in front of a process's command, such as `ip netns exec NAME`."""

    root: Path
    names: tuple[str, ...]
    host: str = "localhost"
    listen: str = "127.0.0.1"
    prefix: Prefix = lambda who: []
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    nodes: dict[str, NodeHome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        port = free_port()
        self.coordinator: CoordinatorHome = coordinator_home.create_home(
            self.root / "coordinator", "antwerp", f"{self.host}:{port}", f"{self.listen}:{port}"
        )
        self.queue = Queue(self.coordinator.database)
        self.roster = Roster(self.coordinator.database)

    def found(self, children: int = 8000) -> None:
        """Write the tables and make a node for each partner."""
        tables = write_partners(self.root / "tables", children=children, seed=7).values()
        for name, table in zip(self.names, cycle(sorted(tables)), strict=False):
            node = node_home.create_home(self.root / "nodes" / name, name)
            node.connect(file_source(table))
            allow(node.policy_path, [*study().columns, "recorded"])
            self.nodes[name] = node

    def enrol(self, names: Iterable[str] | None = None) -> None:
        for name in names or self.names:
            invitation = write_invitation(self.coordinator, self.roster, name, out=self.root / f"{name}.invitation")
            join(self.nodes[name], invitation)

    def start(self, who: str) -> None:
        """`coordinator` or a partner's name."""
        home, words = (self.coordinator.path, "coordinator") if who == "coordinator" else (self.nodes[who].path, "node")
        command = [*self.prefix(who), sys.executable, "-m", "ahh_federated", words, "serve", "--home", str(home)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.root / f"{who}.log").open("ab") as log:
            self.processes[who] = subprocess.Popen(command, stderr=log, stdout=log, env=environment, start_new_session=True)

    def kill(self, who: str) -> None:
        process = self.processes.pop(who)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, who: str) -> str:
        return (self.root / f"{who}.log").read_text(errors="replace")

    def submit(self, asked: Study, approve: Iterable[str] | None = None) -> Queued:
        """Queue a study, approved at these nodes, by default at all."""
        for name in self.names if approve is None else approve:
            propose(self.nodes[name], canonical(asked.content), "")
            decide(self.nodes[name], asked.digest, "approved", by="steward")
        return self.queue.submit(canonical(asked.content), "an-peeters")

    def state(self, asked: Study) -> Queued:
        found = self.queue.get(asked.digest)
        assert found is not None
        return found

    def until(self, what: Callable[[], bool], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            dead = {who: process.poll() for who, process in self.processes.items() if process.poll() is not None}
            assert not dead, f"{dead} ended: {[self.log(who)[-2000:] for who in dead]}"
            assert time.monotonic() < end, {who: self.log(who)[-1500:] for who in self.processes}
            time.sleep(0.02)

    def up(self) -> None:
        """Until the coordinator listens."""
        self.until(lambda: "listens on" in self.log("coordinator"), 60)

    def done(self, asked: Study, seconds: float = 180.0) -> Queued:
        self.until(lambda: self.state(asked).state.over, seconds)
        return self.state(asked)

    def entries(self, name: str) -> list[Entry]:
        with Ledger.inspect(self.nodes[name].ledger_path) as ledger:
            assert ledger.verify().ok
            return list(ledger.entries())

    def close(self) -> None:
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def debits(entries: Iterable[Entry]) -> Mapping[str, int]:
    """How often each request was paid."""
    counts: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "debit" and entry.request is not None:
            counts[entry.request] = counts.get(entry.request, 0) + 1
    return counts
