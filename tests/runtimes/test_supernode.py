"""A node's side: it comes back after any end, its own or the coordinator's, and no coordinator harms another."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from flwr.supernode.fleet_http_client import FleetHttpClient

from ahh_federated.errors import Misuse
from ahh_federated.identity import Key
from ahh_federated.runtimes.flower.supernode import Membership, serve
from tests.runtimes.certificates import make_authority
from tests.runtimes.federation import (
    Node,
    ask,
    collect,
    key_of,
    membership,
    nodes,
    open_link,
    says_its_name,
    until,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def authority(tmp_path):
    return make_authority(tmp_path)


@pytest.fixture
def link(authority, tmp_path):
    link = open_link(authority, tmp_path)
    link.start()
    yield link
    link.stop()


class Process:
    """A process of `processes.py`, and what it has said."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.runtimes.processes", *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.said.extend(line.strip() for line in self._process.stdout)

    def has_said(self, text: str) -> bool:
        return any(text in line for line in list(self.said))

    def wait_for(self, text: str) -> None:
        until(lambda: self.has_said(text), f"{text!r}; so far {self.said}")

    def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        code = self._process.wait(60)
        self._reader.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


@contextmanager
def process(*arguments: object) -> Iterator[Process]:
    running = Process(*arguments)
    try:
        yield running
    finally:
        if running._process.poll() is None:
            running.end()


def node_process(link, authority, folder, name, delay=0.0):
    return process("node", link.port, authority.ca, folder / f"{name}.key", folder / f"{name}.node-id", delay)


def test_a_node_killed_in_the_middle_of_an_answer_answers_when_it_is_back(link, authority, tmp_path):
    link.admit("a", key_of(tmp_path, "a").public)
    with node_process(link, authority, tmp_path, "a", delay=600) as first:
        until(lambda: link.online() == {"a"}, "the node")

        def work(carrier):
            ticket = carrier.send("a", b"?")
            first.wait_for("asked")
            first.end(signal.SIGKILL)
            assert carrier.collect([ticket]) == {}
            with node_process(link, authority, tmp_path, "a"):
                assert collect(carrier, [ticket]) == {ticket: b"a:?"}

        link.run(work)


def test_a_node_cut_off_in_the_middle_of_a_reply_sends_it_again(link, authority, tmp_path, monkeypatch):
    cuts, push = iter([httpx.ReadError("cut"), httpx.ReadError("cut")]), FleetHttpClient.PushObject

    def cut(self, request):
        for error in cuts:
            raise error
        return push(self, request)

    monkeypatch.setattr(FleetHttpClient, "PushObject", cut)
    asked = []
    with nodes(link, authority, tmp_path, a=lambda consortium, data: asked.append(data) or data):
        assert ask(link, ["a"]) == {"a": b"hello"}
    assert asked == [b"hello"] * 3


def test_a_node_that_ends_says_goodbye_and_finishes_its_answer(link, authority, tmp_path):
    link.admit("a", key_of(tmp_path, "a").public)
    with node_process(link, authority, tmp_path, "a", delay=1) as node:
        until(lambda: link.online() == {"a"}, "the node")

        def work(carrier):
            ticket = carrier.send("a", b"?")
            node.wait_for("asked")
            assert node.end(signal.SIGTERM) == 0
            assert link.online() == frozenset()
            assert link._state.whole_replies() == {ticket}

        link.run(work)


def test_a_node_connects_to_its_coordinator_and_to_nothing_else(link, authority, tmp_path):
    link.admit("a", key_of(tmp_path, "a").public)
    with node_process(link, authority, tmp_path, "a") as node:
        until(lambda: link.online() == {"a"}, "the node")
        assert ask(link, ["a"]) == {"a": b"a:hello"}
        node.end(signal.SIGTERM)
        assert {line for line in node.said if line.startswith("connects")} == {f"connects ('127.0.0.1', {link.port})"}


def test_a_coordinator_killed_in_the_middle_of_a_round_finds_its_nodes_again(authority, tmp_path):
    key_of(tmp_path, "a"), key_of(tmp_path, "b")
    slow = threading.Event()

    def later(consortium, data):
        slow.wait(60)
        return b"b:" + data

    with process("coordinator", 0, tmp_path, 1, "a", "b") as first:
        first.wait_for("port")
        port = int(first.said[0].split()[1])
        running = [
            Node(answer, [membership(port, authority, tmp_path, name)])
            for name, answer in (("a", says_its_name("a")), ("b", later))
        ]
        first.wait_for("sent 0")
        first.end(signal.SIGKILL)
    slow.set()
    with process("coordinator", port, tmp_path, 3, "a", "b") as second:
        second.wait_for("got [b'a in c: 2', b'b:2']")
        assert second.wait() == 0
    ids = [line for each in (first, second) for line in each.said if line.startswith("nodes")]
    assert len(ids) == 2 and ids[0] == ids[1]
    assert not first.has_said("connects") and not second.has_said("connects")
    for node in running:
        node.stop.set()
    for node in running:
        node.end()
        assert any("cannot be reached" in line for line in node.told)


def test_a_coordinator_of_another_authority_is_not_believed(link, authority, tmp_path):
    asked = []
    imposter = make_authority(tmp_path / "imposter")
    link.admit("a", key_of(tmp_path, "a").public)
    mine = replace(membership(link.port, authority, tmp_path, "a"), ca=imposter.ca.read_bytes())
    node = Node(lambda consortium, data: asked.append(data) or b"", [mine])
    until(lambda: node.told, "a word")
    assert "certificate that this consortium's authority did not sign" in node.told[0]
    assert ask(link, ["a"]) == {"a": None}
    node.end()
    assert link.online() == frozenset() and asked == []


def test_an_unknown_key_is_told(link, authority, tmp_path):
    node = Node(says_its_name("a"), [membership(link.port, authority, tmp_path, "a")])
    until(lambda: node.told, "a word")
    assert "refuses this node: its key is not admitted there" in node.told[0]
    node.end()


def test_a_silent_coordinator_delays_no_other(link, authority, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        link.admit("a", key_of(tmp_path, "a").public)
        dead = membership(silent.getsockname()[1], authority, tmp_path, "a", "silent")
        node = Node(says_its_name("a"), [dead, membership(link.port, authority, tmp_path, "a")])
        until(lambda: link.online() == {"a"}, "the node")
        for _ in range(3):
            assert ask(link, ["a"]) == {"a": b"a in c: hello"}
        node.end()


def test_a_membership_that_cannot_work_is_told_once_and_harms_no_other(link, authority, tmp_path):
    link.admit("a", key_of(tmp_path, "a").public)
    good = membership(link.port, authority, tmp_path, "a")
    node = Node(says_its_name("a"), [replace(good, consortium="bad", ca=b"no certificate"), good])
    until(lambda: link.online() == {"a"}, "the node")
    assert ask(link, ["a"]) == {"a": b"a in c: hello"}
    node.end()
    assert len([line for line in node.told if line.startswith("bad")]) == 1


def test_one_node_serves_several_consortia_which_come_and_go(authority, tmp_path):
    links = {}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        links[name] = open_link(authority, tmp_path / name)
        links[name].start()
        links[name].admit("a", key_of(tmp_path, "a").public)
    mine = {name: membership(link.port, authority, tmp_path, "a", name) for name, link in links.items()}
    node = Node(says_its_name("a"), [mine["one"]])
    until(lambda: links["one"].online(), "the node")
    node.memberships.append(mine["two"])
    until(lambda: links["two"].online(), "the node")
    for name, link in links.items():
        assert ask(link, ["a"]) == {"a": f"a in {name}: hello".encode()}
    node.memberships.remove(mine["one"])
    until(lambda: not links["one"].online(), "the node to leave")
    assert ask(links["two"], ["a"]) == {"a": b"a in two: hello"}
    node.end()
    for link in links.values():
        link.stop()


def test_answers_to_two_coordinators_are_given_one_at_a_time(tmp_path):
    busy, most, rounds = [], [], 10

    def answer(consortium, data):
        busy.append(consortium)
        most.append(len(busy))
        threading.Event().wait(0.05)
        busy.remove(consortium)
        return data

    with ExitStack() as stack:
        coordinators, mine = [], []
        for name in ("one", "two"):
            folder, key = tmp_path / name, key_of(tmp_path, "a")
            authority = make_authority(folder)
            (folder / "a.key").symlink_to(tmp_path / "a.key")
            coordinators.append(stack.enter_context(process("coordinator", 0, folder, rounds, "a")))
            coordinators[-1].wait_for("port")
            address = f"127.0.0.1:{coordinators[-1].said[0].split()[1]}"
            mine.append(Membership(name, address, authority.ca.read_bytes(), key.private, folder / "id"))
        node = Node(answer, mine)
        assert [each.wait() for each in coordinators] == [0, 0]
        node.end()
    assert len(most) == 2 * rounds and max(most) == 1


def test_memberships_that_cannot_be_read_do_not_end_the_service(link, authority, tmp_path):
    link.admit("a", key_of(tmp_path, "a").public)
    mine, calls = membership(link.port, authority, tmp_path, "a"), []

    def memberships():
        calls.append(1)
        if len(calls) == 2:
            raise Misuse("consortia/c.toml cannot be read: mend it")
        return [mine]

    stop, told = threading.Event(), []
    thread = threading.Thread(target=serve, args=(memberships, says_its_name("a"), stop, told.append))
    thread.start()
    until(lambda: len(calls) > 2, "a third look")
    assert ask(link, ["a"]) == {"a": b"a in c: hello"}
    stop.set()
    thread.join()
    assert "consortia/c.toml cannot be read: mend it" in told


def test_what_is_no_call_gets_a_failure_and_the_node_goes_on(link, authority, tmp_path):
    from flwr.app import ConfigRecord, Message, RecordDict

    with nodes(link, authority, tmp_path, a=None):

        def work(carrier):
            node = next(iter(carrier._grid.get_nodes())).node_id
            empty = RecordDict({"ahh": ConfigRecord({"text": "no bytes"})})
            other = [Message(empty, node, "query.ahh"), Message(RecordDict(), node, "query.ahh"), Message(empty, node, "train")]
            tickets = carrier._grid.push_messages(other)
            assert set(collect(carrier, tickets).values()) == {None}
            ticket = carrier.send("a", b"?")
            assert collect(carrier, [ticket]) == {ticket: b"a in c: ?"}

        link.run(work)


def test_the_key_shows_nowhere(authority, tmp_path):
    key = Key.create(tmp_path / "a.key")
    assert "PRIVATE" not in repr(Membership("c", "x:1", b"", key.private, tmp_path / "id")) + repr(key)
