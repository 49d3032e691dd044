"""Joining over real TLS on loopback, and every way in which that must fail."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from ahh_federated.coordinator import authority
from ahh_federated.coordinator.home import split_address
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.node import home as nodes
from ahh_federated.runtimes import https
from ahh_federated.runtimes.enrolment import join, write_invitation
from ahh_federated.runtimes.handouts import read_access, read_invitation, write_access
from ahh_federated.runtimes.https import Peer
from tests.coordinator.coordinators import desk as made_desk
from tests.coordinator.coordinators import free_port, serving


@pytest.fixture
def desk(tmp_path):
    with made_desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def node(tmp_path):
    return nodes.create_home(tmp_path / "node", "zas")


@pytest.fixture
def invitation(desk, tmp_path):
    return write_invitation(desk.home, desk.roster, "hospital-zas", out=tmp_path / "invitation.toml")


def test_a_node_joins_over_tls(desk, node, invitation):
    with serving(desk):
        consortium = join(node, invitation)
    assert (consortium.name, consortium.partner, consortium.address) == ("antwerp", "hospital-zas", desk.home.address)
    assert consortium.roster == {"hospital-zas": node.key.fingerprint}
    assert consortium.ca == desk.home.ca.read_text()
    assert node.consortia() == {"antwerp": consortium}
    assert [partner.public for partner in desk.admitted] == [node.key.public]


def test_a_second_node_cannot_use_the_invitation(desk, node, invitation, tmp_path):
    other = nodes.create_home(tmp_path / "other", "other")
    with serving(desk):
        join(node, invitation)
        with pytest.raises(Misuse, match="is in the consortium antwerp already"):
            join(node, invitation)
        with pytest.raises(Misuse, match="used by another key"):
            join(other, invitation)
    assert other.consortia() == {} and len(desk.roster.partners()) == 1


def test_a_lost_answer_is_had_again(desk, node, invitation, monkeypatch):
    with serving(desk):
        with monkeypatch.context() as crash:
            crash.setattr(nodes.NodeHome, "add_consortium", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                join(node, invitation)
        assert node.consortia() == {}
        assert join(node, invitation).partner == "hospital-zas"


def test_one_node_several_consortia(desk, node, invitation, tmp_path):
    with made_desk(tmp_path / "second") as second:
        content = second.home.path / "coordinator.toml"
        content.write_text(content.read_text().replace('name = "antwerp"', 'name = "aalst"'))
        second.home = type(second.home)(second.home.path, "aalst", second.home.address, second.home.listen)
        more = write_invitation(second.home, second.roster, "olv", out=tmp_path / "more.toml")
        with serving(desk), serving(second):
            join(node, invitation)
            join(node, more)
    assert {name: each.partner for name, each in node.consortia().items()} == {"antwerp": "hospital-zas", "aalst": "olv"}


def test_the_invitation_file(desk, invitation, node, tmp_path):
    assert invitation.stat().st_mode & 0o777 == 0o600
    read = read_invitation(invitation)
    assert (read.consortium, read.partner, read.address, read.roster) == ("antwerp", "hospital-zas", desk.home.address, {})
    assert read.token not in repr(read) and read.token not in repr(read.peer)
    with serving(desk):
        join(node, invitation)
    later = write_invitation(desk.home, desk.roster, "zone-noord", out=tmp_path / "later.toml")
    assert read_invitation(later).roster == {"hospital-zas": node.key.fingerprint}
    with pytest.raises(Misuse, match="exists"):
        write_invitation(desk.home, desk.roster, "zone-zuid", out=later)
    assert [guest.name for guest in desk.roster.invited()] == ["zone-noord"]  # no invitation without its file


def test_the_access_file(desk, tmp_path):
    path = write_access(desk.home, desk.roster, "an-peeters", tmp_path / "access.toml")
    access = read_access(path)
    assert path.stat().st_mode & 0o777 == 0o600 and access.token not in repr(access)
    assert desk.roster.researcher(access.token) == "an-peeters"
    with pytest.raises(Misuse, match="not an invitation"):
        read_invitation(path)


def test_an_expired_invitation_does_not_leave_the_node(desk, node, invitation):
    text = invitation.read_text()
    year = str(datetime.now(UTC).year)
    lines = [line.replace(year, "2020") if line.startswith("expires") else line for line in text.splitlines()]
    invitation.write_text("\n".join(lines))
    with pytest.raises(Misuse, match="expired at 2020"):
        join(node, invitation)  # nobody serves: nothing was sent


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('format = "ahh-invitation/1"', 'format = "ahh-invitation/2"', "is not an invitation"),
        ('format = "ahh-invitation/1"', "format", "is not an invitation"),
        ('partner = "hospital-zas"', "", "partner is missing"),
        ('partner = "hospital-zas"', 'partner = "../zas"', "not a name"),
        ("localhost:", "localhost", "HOST:PORT"),
        ("BEGIN CERTIFICATE", "BEGIN NOTHING", "certificate authority in the file"),
        ("[roster]", "more = 1\n[roster]", "more is not a known key"),
        ("+00:00", "", "time with its zone"),
    ],
)
def test_an_invitation_that_was_edited(node, invitation, old, new, message):
    text = invitation.read_text()
    assert old in text
    invitation.write_text(text.replace(old, new))
    with pytest.raises(Misuse, match=message):
        join(node, invitation)


@pytest.mark.parametrize("content", [b"", b"\xff", b"x" * 300_000, b"a = [" * 10_000])
def test_what_is_no_invitation(node, tmp_path, content):
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    with pytest.raises(Misuse, match="is not an invitation"):
        join(node, path)
    with pytest.raises(Misuse, match="cannot be read"):
        join(node, tmp_path / "absent.toml")


def refused(desk, node, invitation, message):
    with pytest.raises(Unreachable, match=message) as raised:
        join(node, invitation)
    assert desk.home.address in str(raised.value) and node.consortia() == {} and desk.admitted == []
    assert desk.roster.partners() == []


def test_another_authority(desk, node, invitation, tmp_path):
    """Somebody else answers at the address, with a sound certificate for the very host name, of another authority."""
    for name in ("ca.pem", "ca.key", "server.pem", "server.key"):
        (desk.home.path / name).rename(tmp_path / name)
    authority.found("antwerp", desk.home.ca, desk.home.ca_key)
    desk.home.renew()
    with serving(desk):
        refused(desk, node, invitation, "signed by somebody else: do not go on")


def test_an_expired_certificate(desk, node, invitation):
    start = datetime.now(UTC) - timedelta(days=399)
    authority.issue("localhost", desk.home.ca, desk.home.ca_key, desk.home.certificate, desk.home.key, start=start)
    with serving(desk):
        refused(desk, node, invitation, "has an expired certificate: .*renew")


def test_a_certificate_from_the_future(desk, node, invitation):
    start = datetime.now(UTC) + timedelta(days=2)
    authority.issue("localhost", desk.home.ca, desk.home.ca_key, desk.home.certificate, desk.home.key, start=start)
    with serving(desk):
        refused(desk, node, invitation, "clock")


def test_a_certificate_for_another_host(desk, node, invitation):
    authority.issue("example.org", desk.home.ca, desk.home.ca_key, desk.home.certificate, desk.home.key)
    with serving(desk):
        refused(desk, node, invitation, "for another host")


def test_nobody_there(desk, node, invitation):
    refused(desk, node, invitation, "does not answer: check the address")


@contextmanager
def listening(port, answer):
    """A bare TCP server that treats every caller alike."""
    with closing(socket.create_server(("127.0.0.1", port))) as door:
        door.settimeout(20)

        def take() -> None:
            try:
                while True:
                    caller, _ = door.accept()
                    with caller:
                        answer(caller)
            except OSError:
                pass

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield
        door.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_no_tls_at_all(desk, node, invitation):
    with listening(split_address(desk.home.address)[1], lambda caller: caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n{}")):
        refused(desk, node, invitation, "does not speak TLS")


def test_a_caller_is_hung_up_on(desk, node, invitation):
    with listening(split_address(desk.home.address)[1], lambda caller: None):
        refused(desk, node, invitation, "does not")


def test_a_server_that_never_says_a_word(desk, node, invitation, monkeypatch):
    monkeypatch.setattr(https, "_TIMES", https.httpx.Timeout(0.2))
    over = threading.Event()
    with listening(split_address(desk.home.address)[1], lambda caller: over.wait(20)):
        refused(desk, node, invitation, "did not answer in time")
        over.set()


@contextmanager
def tls_server(desk, answer, newest=ssl.TLSVersion.MAXIMUM_SUPPORTED):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(desk.home.certificate, desk.home.key)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest

    def take(caller: socket.socket) -> None:
        with context.wrap_socket(caller, server_side=True) as secure:
            heard = b""
            while not (b"\r\n\r\n" in heard and heard.endswith(b"}")):  # the whole request: a reset could overtake the answer
                heard += secure.recv(65_536)
            secure.sendall(answer)

    with listening(split_address(desk.home.address)[1], take):
        yield


def spoken(status, body, *headers):
    return (
        "\r\n".join([f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]).encode()
        + body
    )


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_an_old_tls_is_refused(desk, node, invitation):
    with tls_server(desk, spoken(200, b"{}"), ssl.TLSVersion.TLSv1_1):
        refused(desk, node, invitation, "TLS")


ROSTER = {"consortium": "antwerp", "partner": "hospital-zas", "roster": {"hospital-zas": "SHA256:other"}}


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (spoken(200, b"<html>"), Breach, "does not answer as a coordinator"),
        (spoken(200, b"[" * 100_000), Breach, "does not answer as a coordinator"),
        (spoken(200, b"{}"), Breach, "texts consortium, partner"),
        (spoken(200, json.dumps({**ROSTER, "partner": "zone-noord"}).encode()), Breach, "another consortium or partner"),
        (spoken(200, json.dumps({**ROSTER, "consortium": "aalst"}).encode()), Breach, "another consortium or partner"),
        (spoken(200, json.dumps({**ROSTER, "roster": {"x": 1}}).encode()), Breach, "texts x"),
        (spoken(200, json.dumps(ROSTER).encode()), Breach, "another key than this node's"),
        (spoken(302, b"", "Location: https://localhost/"), Misuse, "status 302"),
        (spoken(403, b""), Misuse, "status 403"),
        (spoken(403, b'{"error": "\x1b]0;owned\x07\\u001b[2Jno\\nyes"}'), Misuse, "refuses"),
        (spoken(403, json.dumps({"error": "a\x1b[2Jb\nc" + "x" * 9000}).encode()), Misuse, r"a \[2Jb cx{500,600}$"),
        (spoken(500, b"Traceback"), Unreachable, "cannot answer now"),
        (spoken(200, b"{}", "ahh-version: 99.0.0"), Misuse, "within one minor version"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Unreachable, "does not answer"),
        (spoken(200, b"{")[:-1], Unreachable, "does not answer"),  # cut short
    ],
)
def test_strange_answers(desk, node, invitation, answer, error, message):
    with tls_server(desk, answer), pytest.raises(error, match=message) as raised:
        join(node, invitation)
    assert node.consortia() == {} and str(raised.value).isprintable() and len(str(raised.value)) < 1000


def test_an_answer_without_end(desk, node, invitation, monkeypatch):
    monkeypatch.setattr(https, "_LARGEST", 1000)
    with tls_server(desk, spoken(200, b'"' + b"x" * 5000 + b'"')), pytest.raises(Breach, match="larger than 1000"):
        join(node, invitation)


def test_proxies_and_certificates_of_the_environment_are_not_used(desk, node, invitation, monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with serving(desk):
        join(node, invitation)
    assert "antwerp" in node.consortia()


def test_only_the_pinned_authority_is_trusted(desk):
    context = https.tls(desk.home.ca.read_text())
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    for bad in ("", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"):
        with pytest.raises(Misuse, match="not a certificate"):
            https.tls(bad)


def test_an_address_that_is_none(desk):
    with pytest.raises((Misuse, Unreachable)):
        Peer("local host:x", desk.home.ca.read_text()).get("/about")
