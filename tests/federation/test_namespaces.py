"""Coordinator and nodes in network namespaces of their own, with an address each; one is cut off in the middle of a round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahh_federated.coordinator.queue import State
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.core.releases import Status
from ahh_federated.runtimes.enrolment import write_invitation
from ahh_federated.study import parse_study
from tests.federation.rig import ROOT, Federation, debits, study

NAMES = ("east", "north", "south")
HOSTS = ("coordinator", *NAMES)
NET = "10.77.0"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """A bridge and a host for each process, none of which reaches anything outside."""

    def __init__(self) -> None:
        self.tag = f"ahh{os.getpid()}"
        self.spaces = {who: f"{self.tag}{number}" for number, who in enumerate(HOSTS, start=1)}
        self.bridge = f"{self.tag}b"

    def build(self) -> None:
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "br0", "up")
        for number, space in enumerate(self.spaces.values(), start=1):
            ip("netns", "add", space)
            ip("link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", f"p{number}", "netns", self.bridge)
            ip("-n", self.bridge, "link", "set", f"p{number}", "master", "br0", "up")
            ip("-n", space, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")

    def prefix(self, who: str) -> list[str]:
        return ["ip", "netns", "exec", self.spaces[who]]

    def cable(self, who: str, state: str) -> None:
        ip("-n", self.bridge, "link", "set", f"p{HOSTS.index(who) + 1}", state)

    def drop(self) -> None:
        for space in (*self.spaces.values(), self.bridge):
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


@pytest.fixture
def network() -> Iterator[Network]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need the program ip, and root")
    made = Network()
    try:
        made.build()
    except subprocess.CalledProcessError as error:
        made.drop()
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    yield made
    made.drop()


def join(federation: Federation, name: str) -> None:
    invitation = write_invitation(federation.coordinator, federation.roster, name, out=federation.root / f"{name}.invitation")
    command = [sys.executable, "-m", "ahh_federated", "node", "join", str(invitation), "--home", str(federation.nodes[name].path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*federation.prefix(name), *command], check=True, env=environment, capture_output=True)


def test_a_partner_cut_off_in_the_middle_of_a_round(network: Network, tmp_path: Path) -> None:
    federation = Federation(tmp_path, NAMES, f"{NET}.1", f"{NET}.1", network.prefix)
    try:
        federation.start("coordinator")
        federation.up()
        federation.found()
        for name in NAMES:
            join(federation, name)
            federation.start(name)
        federation.until(lambda: all("connected" in federation.log(name) for name in NAMES))
        cut_off(federation, network)
        back_again(federation, network)
    finally:
        federation.close()


def cut_off(federation: Federation, network: Network) -> None:
    asked = study(round_deadline=6.0)
    federation.submit(asked)
    federation.until(lambda: federation.state(asked).progress.get("ask") == "size")
    south = federation.processes["south"]
    os.killpg(south.pid, signal.SIGSTOP)  # so that the next round waits for it
    step = federation.state(asked).progress
    time.sleep(1.0)
    network.cable("south", "down")
    os.killpg(south.pid, signal.SIGCONT)
    over = federation.done(asked)
    assert over.state is State.DONE, (over, step)
    _, exchanges, _ = read_transcript(federation.coordinator.transcript(asked.digest))
    said = {name: [each.replies[name].status for each in exchanges if name in each.replies] for name in NAMES}
    assert set(said["east"]) == set(said["north"]) == {Status.RELEASED}
    assert said["south"][0] is Status.RELEASED and said["south"][-1] is Status.OFFLINE
    assert all(set(debits(federation.entries(name)).values()) == {1} for name in NAMES)


def back_again(federation: Federation, network: Network) -> None:
    network.cable("south", "up")
    first = study(round_deadline=30.0)
    content = {**first.content, "study": {**first.content["study"], "version": 2}}
    asked = parse_study(content)
    federation.submit(asked)
    over = federation.done(asked)
    assert over.state is State.DONE, over
    header, exchanges, _ = read_transcript(federation.coordinator.transcript(asked.digest))
    assert header.partners == NAMES
    assert all(reply.status is Status.RELEASED for each in exchanges for reply in each.replies.values())
