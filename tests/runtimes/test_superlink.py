"""The coordinator's engine: who gets in, what can be reached, and how bytes go round."""

from __future__ import annotations

import socket
import sqlite3
import ssl
import threading

import pytest
from flwr.app import Message

from ahh_federated.errors import Misuse
from ahh_federated.runtimes.flower.apps import MESSAGE_TYPE, packed, unpacked
from tests.runtimes.certificates import make_authority
from tests.runtimes.federation import ask, collect, key_of, nodes, open_link, until
from tests.runtimes.knocking import activate, client, raw_request, signed

CANARY = "Jan Janssens, born 2019"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def link(authority, tmp_path):
    link = open_link(authority, tmp_path)
    link.start()
    yield link
    link.stop()


def table_sizes(folder) -> dict[str, int]:
    with sqlite3.connect(folder / "flower.db") as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def test_bytes_go_out_and_come_back(link, authority, tmp_path):
    with nodes(link, authority, tmp_path, a=None, b=None):
        data = bytes(range(256)) * 40
        assert ask(link, ["a", "b"], data) == {"a": b"a in c: " + data, "b": b"b in c: " + data}


def test_rounds_follow_each_other_and_a_partner_may_get_several_calls(link, authority, tmp_path):
    with nodes(link, authority, tmp_path, a=None, b=None):

        def work(carrier):
            for number in range(5):
                tickets = [carrier.send(name, b"%d" % number) for name in ("a", "b", "a")]
                replies = collect(carrier, tickets)
                assert [replies[each] for each in tickets] == [name + b" in c: %d" % number for name in (b"a", b"b", b"a")]

        link.run(work)


def test_flowers_own_way_of_waiting_works_as_well(link, authority, tmp_path):
    """`send_and_receive`, which other ServerApps use: the replies there are, and no longer than the timeout."""
    with nodes(link, authority, tmp_path, a=None, b=None):

        def work(carrier):
            grid = carrier._grid
            sent = [Message(packed(b"hello"), node, MESSAGE_TYPE) for node in sorted(grid.get_node_ids())]
            assert sorted(unpacked(each) for each in grid.send_and_receive(sent)) == [b"a in c: hello", b"b in c: hello"]
            assert grid.send_and_receive([]) == []
            slow = [Message(packed(b"again"), node, MESSAGE_TYPE) for node in grid.get_node_ids()]
            assert len(grid.send_and_receive(slow, timeout=0.0)) < 2

        until(lambda: link.online() == {"a", "b"}, "both nodes")
        link.run(work)


def test_a_large_message_goes_round(link, authority, tmp_path):
    with nodes(link, authority, tmp_path, a=lambda consortium, data: data[::-1]):
        data = bytes(range(256)) * 40_000  # ten megabytes
        assert ask(link, ["a"], data) == {"a": data[::-1]}


def test_nothing_of_a_run_stays_in_the_file(link, authority, tmp_path):
    with nodes(link, authority, tmp_path, a=None):
        before = table_sizes(tmp_path)
        for _ in range(3):
            ask(link, ["a"], b"x" * 10_000)
        assert table_sizes(tmp_path) == before
        assert before["node"] == 1


def test_replies_that_were_collected_are_dropped_within_a_run(link, authority, tmp_path):
    with nodes(link, authority, tmp_path, a=None):

        def work(carrier):
            for _ in range(3):
                collect(carrier, [carrier.send("a", b"x" * 10_000)])
                sizes = table_sizes(tmp_path)
                assert {sizes[name] for name in ("objects", "message_ins", "message_res", "object_push_sessions")} == {0}

        link.run(work)


def test_a_partner_that_never_came_gets_no_reply(link):
    assert ask(link, ["nobody"]) == {"nobody": None}


def test_a_node_that_left_gets_no_reply(link, authority, tmp_path):
    started, wait = threading.Event(), threading.Event()

    def slow(consortium, data):
        started.set()
        wait.wait()
        return data

    with nodes(link, authority, tmp_path, a=slow, b=None):

        def work(carrier):
            tickets = {name: carrier.send(name, b"?") for name in ("a", "b")}
            assert started.wait(60)
            node = next(each for each in link._online() if each.name == "a")
            link._state.link.deactivate_node(node.node_id)
            replies = collect(carrier, tickets.values())
            assert replies[tickets["a"]] is None
            assert replies[tickets["b"]] is not None

        link.run(work)
        wait.set()


def test_no_text_of_an_exception_crosses(link, authority, tmp_path):
    def broken(consortium, data):
        raise ValueError(CANARY)

    with nodes(link, authority, tmp_path, a=broken) as running:

        def work(carrier):
            ticket = carrier.send("a", b"?")
            until(link._state.whole_replies, "the reply")
            stored = link._state.link.query("SELECT * FROM message_res") + link._state.link.query("SELECT * FROM objects")
            assert len(stored) > 1 and "Janssens" not in repr(stored)
            assert collect(carrier, [ticket]) == {ticket: None}

        link.run(work)
        assert running["a"].told[-1] == "c: could not answer: ValueError"


def test_an_error_in_the_work_is_raised_and_leaves_a_usable_link(link, authority, tmp_path):
    with nodes(link, authority, tmp_path, a=None):
        with pytest.raises(ZeroDivisionError):
            link.run(lambda carrier: 1 / 0)
        assert ask(link, ["a"]) == {"a": b"a in c: hello"}


def test_one_run_at_a_time(link):
    with pytest.raises(Misuse, match="another run"):
        link.run(lambda carrier: link.run(lambda other: None))


def test_an_expelled_partner_is_out_at_once_and_for_good(link, authority, tmp_path):
    key = key_of(tmp_path, "a")
    with nodes(link, authority, tmp_path, a=None, b=None) as running:
        link.expel("a")
        assert "a" not in link.online()
        with client(authority, link.port) as http:
            assert http.post("/v1/fleet/pull-messages", headers=signed(key), content=b"").status_code == 401
        assert ask(link, ["a", "b"]) == {"a": None, "b": b"b in c: hello"}
        with pytest.raises(Misuse, match="expelled"):
            link.admit("a", key.public)
        until(lambda: "refuses this node" in running["a"].told[-1], "the refusal")


def test_a_partner_with_a_new_key_has_lost_the_old_one(link, authority, tmp_path):
    old, new = key_of(tmp_path, "old"), key_of(tmp_path, "new")
    link.admit("a", old.public)
    link.admit("a", old.public)
    link.admit("a", new.public)
    with client(authority, link.port) as http:
        assert http.post("/v1/fleet/pull-messages", headers=signed(old), content=b"").status_code == 401
        activate(http, new)
    assert link.online() == {"a"}


def test_a_port_that_is_taken_is_told(authority, tmp_path, link):
    with pytest.raises(Misuse, match=f"{link.port} cannot be listened on .*another port"):
        open_link(authority, tmp_path / "other", link.port)


def test_a_certificate_that_cannot_serve_is_told(authority, tmp_path):
    with pytest.raises(Misuse, match="expired"):
        open_link(make_authority(tmp_path / "old", days=-1), tmp_path)
    other = make_authority(tmp_path / "other")
    with pytest.raises(Misuse, match="do not go together"):
        open_link(type(other)(other.ca, authority.certificate, authority.key), tmp_path)
    with pytest.raises(Misuse, match="do not go together"):
        open_link(type(other)(other.ca, other.certificate, authority.key), tmp_path)


def test_a_file_that_is_no_database_is_told(authority, tmp_path):
    (tmp_path / "flower.db").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(Misuse, match=r"flower\.db cannot be used"):
        open_link(authority, tmp_path)


def test_the_file_is_its_owners_alone(link, tmp_path):
    assert {path.name: path.stat().st_mode & 0o077 for path in tmp_path.glob("flower.db*")} == dict.fromkeys(
        (path.name for path in tmp_path.glob("flower.db*")), 0
    )


def test_nothing_below_tls_1_3(link, authority):
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", link.port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_it_is_silent(authority, tmp_path, capfd):
    link = open_link(authority, tmp_path)
    link.start()
    with nodes(link, authority, tmp_path, a=None):
        ask(link, ["a"])
        raw_request(authority, link.port, "/v1/control/start-run", "POST", {})
        with socket.create_connection(("127.0.0.1", link.port)) as line:
            line.sendall(b"GET / HTTP/1.0\r\n\r\n")
    link.stop()
    assert capfd.readouterr() == ("", "")


def test_stop_leaves_no_thread_and_frees_the_port(authority, tmp_path):
    link = open_link(authority, tmp_path)
    link.start()
    port = link.port
    link.stop()
    assert not [each for each in threading.enumerate() if each.name == "superlink"]
    again = open_link(authority, tmp_path, port)
    again.start()
    again.stop()
