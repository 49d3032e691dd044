"""What a stranger, a researcher, a partner or a coordinator can do to the other end over the network."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from ahh_federated.coordinator.roster import Roster
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.identity import Key
from ahh_federated.node import home as nodes
from ahh_federated.node.tables import frame_of, load_cohort
from ahh_federated.runtimes import coordinator_process
from ahh_federated.runtimes.coordinator_process import _Members
from ahh_federated.runtimes.enrolment import join, write_invitation
from ahh_federated.runtimes.flower import listening
from ahh_federated.runtimes.flower.private_link import State
from ahh_federated.study import parse_study
from ahh_federated.study.study import MOST_ASKS
from tests.coordinator.clients import Client
from tests.coordinator.coordinators import desk as made_desk
from tests.coordinator.coordinators import study as our_study
from tests.runtimes.certificates import make_authority
from tests.runtimes.federation import open_link, until
from tests.runtimes.test_enrolment import spoken, tls_server
from tests.study.samples import small


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def link(authority, tmp_path):
    link = open_link(authority, tmp_path)
    link.start()
    yield link
    link.stop()


@pytest.fixture
def desk(tmp_path):
    with made_desk(tmp_path) as desk:
        yield desk


@contextmanager
def line(link, authority):
    context = ssl.create_default_context(cafile=str(authority.ca))
    with (
        socket.create_connection(("127.0.0.1", link.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        line.settimeout(90)  # beyond the 60 s for which a line is kept between requests
        yield line


class Doors:
    """Who is in.  The first admission may fail."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.inside: dict[str, str] = {}
        self.fault = fault

    def admit(self, name: str, public: str) -> None:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        self.inside[name] = public

    def expel(self, name: str) -> None:
        self.inside.pop(name, None)


@pytest.fixture
def roster(tmp_path):
    roster = Roster(tmp_path / "roster.db")
    yield roster
    roster.close()


def enrolled(roster, folder, name):
    return roster.enrol(roster.invite(name), Key.create(folder / f"{name}.key").public)


@pytest.mark.parametrize("fault", [Misuse("expelled before"), Unreachable("a lock held too long"), RuntimeError("anything")])
def test_a_fault_does_not_end_the_watch_over_the_roster(roster, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(coordinator_process, "_LOOK", 0.01)
    doors, told, ending = Doors(fault), list[str](), threading.Event()
    enrolled(roster, tmp_path, "east")
    members = _Members(roster, doors, told.append)
    watch = threading.Thread(target=members.watch, args=(ending,))
    watch.start()
    try:
        until(lambda: told, "the fault")
        enrolled(roster, tmp_path, "west")
        until(lambda: "west" in doors.inside, "the next partner")
        roster.revoke("west")
        until(lambda: "west" not in doors.inside, "the revocation")
    finally:
        ending.set()
        watch.join(60)
    assert not any("anything" in each for each in told)


def test_a_partner_revoked_before_the_first_look_at_it_goes(roster, tmp_path):
    doors = Doors()
    members = _Members(roster, doors, lambda line: None)
    members.follow()
    partner = enrolled(roster, tmp_path, "east")
    roster.revoke("east")
    doors.admit(partner.name, partner.public)  # the API, which was a little late
    members.follow()
    assert doors.inside == {}


def test_a_partner_that_cannot_come_in_keeps_no_other_out(roster, tmp_path):
    doors, told = Doors(Misuse("expelled before")), list[str]()
    for name in ("east", "west"):
        enrolled(roster, tmp_path, name)
    _Members(roster, doors, told.append).follow()
    assert set(doors.inside) == {"west"} and told == ["expelled before"]


def test_two_threads_may_admit_a_partner_at_once(link, tmp_path, monkeypatch):
    inside, most, register = [0], [0], State.register

    def slowly(self, name, key):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        try:
            return register(self, name, key)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(State, "register", slowly)
    public = Key.create(tmp_path / "a.key").public
    threads = [threading.Thread(target=link.admit, args=("a", public)) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert most == [1] and [each.name for each in link._members] == ["a"]


def test_the_head_of_a_request_has_a_largest_size(link, authority):
    with line(link, authority) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d: %s\r\n" % (each, b"x" * 1000) for each in range(100)))
        assert stranger.recv(12) == b"HTTP/1.1 400"


KEPT_ALIVE = b"GET /ahh/v1/about HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"


@pytest.mark.parametrize("said", [b"", b"GET / HT", pytest.param(KEPT_ALIVE, marks=pytest.mark.slow)])
def test_who_says_nothing_is_hung_up_on(link, authority, monkeypatch, said):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.2)
    with line(link, authority) as stranger:
        stranger.sendall(said)
        with suppress(ConnectionError, ssl.SSLError):  # TimeoutError is neither
            while stranger.recv(1000):
                pass


def test_a_line_that_is_kept_alive_is_not_cut(link, authority, monkeypatch):
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.05)
    with line(link, authority) as friend:
        for _ in range(3):
            friend.sendall(b"GET /ahh/v1/about HTTP/1.1\r\nHost: x\r\n\r\n")
            heard = b""
            while not heard.endswith(b"0\r\n\r\n"):
                part = friend.recv(1000)
                assert part
                heard += part
            assert heard.startswith(b"HTTP/1.1 200")
            time.sleep(0.3)


@pytest.fixture
def node(tmp_path):
    return nodes.create_home(tmp_path / "node", "zas")


@pytest.fixture
def invitation(desk, tmp_path):
    return write_invitation(desk.home, desk.roster, "hospital-zas", out=tmp_path / "invitation.toml")


def test_a_coordinator_packs_no_answer(desk, node, invitation):
    with tls_server(desk, spoken(200, b"{}", "Content-Encoding: gzip, gzip, gzip")), pytest.raises(Breach, match="packed"):
        join(node, invitation)


@pytest.mark.parametrize("other", [{"\x1b[2J": "SHA256:x"}, {"west": "SHA256:\nx"}, {"west": "x" * 500}, {"west\ud800": "x"}])
def test_a_coordinator_writes_no_roster_of_its_own_kind(desk, node, invitation, other):
    roster = {"hospital-zas": node.key.fingerprint, **other}
    answer = json.dumps({"consortium": "antwerp", "partner": "hospital-zas", "roster": roster}).encode()
    with tls_server(desk, spoken(200, answer)), pytest.raises(Breach, match="roster that is none"):
        join(node, invitation)
    assert node.consortia() == {}


@pytest.mark.parametrize("key", ["\x1b[2J\nnode: all is well", "x" * 100_000, "\u202eterces"])
def test_a_study_shows_no_key_of_its_own_making(key):
    content = {**small().content, key: 1}
    with pytest.raises(Misuse, match="not a known key") as raised:
        parse_study(content)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1000


def test_a_study_has_no_more_asks_than_a_steward_reads():
    content = dict(small().content)
    content["ask"] = [{"analysis": "count", "id": f"a{each}", "share": 1e-4} for each in range(MOST_ASKS + 1)]
    with pytest.raises(Misuse, match="at most"):
        parse_study(content)


def test_the_list_of_studies_asks_for_the_order_once(desk, monkeypatch):
    for version in range(1, 6):
        desk.queue.submit(our_study(version), "an")
    order, asked = desk.queue.order, []
    monkeypatch.setattr(type(desk.queue), "order", lambda self: asked.append(1) or order())
    token = desk.roster.welcome("an")
    answer = Client(desk.app).get("/ahh/v1/studies", headers={"Authorization": f"Bearer {token}"}).json()
    assert [each["position"] for each in answer["studies"]] == [1, 2, 3, 4, 5] and asked == [1]


def test_no_cell_of_a_database_stops_the_others():
    study = small()
    names = [study.patient.key, *study.columns, *([study.patient.order] if study.patient.order else [])]
    rows = [["1", *[10**5000] * (len(names) - 1)], [10**5000, *["1"] * (len(names) - 1)]]
    found: list[str] = []
    assert load_cohort(frame_of(names, rows), study, "t", found).size == 1
    assert any("have no" in each for each in found)
