"""The doctor's knock: a coordinator says whether it admits this key, and notices nothing else."""

from __future__ import annotations

import json
import socket

import pytest

from ahh_federated.cli.main import main
from ahh_federated.errors import Misuse, Unreachable
from ahh_federated.node import doctor
from ahh_federated.node.home import Consortium
from ahh_federated.runtimes.flower.superlink import SuperLink
from ahh_federated.runtimes.flower.supernode import knock
from ahh_federated.runtimes.membership import knocking
from ahh_federated.version import VERSION
from tests.node.nodes import node
from tests.runtimes.certificates import make_authority
from tests.runtimes.federation import ask, key_of, membership, nodes


async def about(scope, receive, send) -> None:
    body = json.dumps({"name": "harbour", "version": VERSION}).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def authority(tmp_path):
    return make_authority(tmp_path)


@pytest.fixture
def link(authority, tmp_path):
    link = SuperLink.open(
        host="127.0.0.1",
        port=0,
        ca=authority.ca,
        certificate=authority.certificate,
        key=authority.key,
        database=tmp_path / "flower.db",
        extra=about,
    )
    link.start()
    yield link
    link.stop()


def test_doctor_says_whether_the_key_is_admitted(link, authority, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_SOON", 0)  # the authority of these tests lives for a day
    home = node(tmp_path, "north")
    home.add_consortium(Consortium("harbour", "north", f"127.0.0.1:{link.port}", authority.ca.read_text()))
    words = ["node", "doctor", "--home", str(home.path)]
    link.admit("north", home.key.public)
    assert main(words) == 0
    assert "ok   membership   harbour admits this node's key" in capsys.readouterr().out
    link.expel("north")
    assert main(words) == 3
    printed = capsys.readouterr().out
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("MEND")] == ["membership"]
    assert "its key is not admitted there, or was revoked; ask the coordinator" in printed


def test_a_knock_makes_no_node_appear_and_disturbs_none(link, authority, tmp_path):
    link.admit("a", key_of(tmp_path, "a").public)
    mine = membership(link.port, authority, tmp_path, "a")
    knock(mine)
    assert link.online() == frozenset()
    assert not mine.id_file.exists()
    with nodes(link, authority, tmp_path, a=None):

        def work(carrier):
            ticket = carrier.send("a", b"?")
            knock(mine)
            while not (found := carrier.collect([ticket])):
                knock(mine)
            assert found == {ticket: b"a in c: ?"}

        link.run(work)
        assert link.online() == {"a"}
        assert ask(link, ["a"]) == {"a": b"a in c: hello"}


def test_a_knock_at_a_closed_door(authority, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match=r"cannot be reached \(ConnectError\)$"):
            knock(membership(free.getsockname()[1], authority, tmp_path, "a"))


def test_a_node_without_its_key_says_so(authority, tmp_path):
    home = node(tmp_path, "north")
    home.key_path.unlink()
    with pytest.raises(Misuse, match=r"node\.key cannot be read"):
        knocking(home)(Consortium("harbour", "north", "127.0.0.1:1", authority.ca.read_text()))
