"""The private authority and the server's certificate, as OpenSSL and strict verifiers see them."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ahh_federated.coordinator import authority
from ahh_federated.errors import Misuse


@pytest.fixture
def files(tmp_path):
    names = ("ca.pem", "ca.key", "server.pem", "server.key")
    ca, ca_key, certificate, key = (tmp_path / name for name in names)
    authority.found("antwerp", ca, ca_key)
    return ca, ca_key, certificate, key


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_authority_signs_servers_and_no_further_authority(files):
    ca = load(files[0])
    ca.verify_directly_issued_by(ca)
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert basic.critical and basic.value == x509.BasicConstraints(True, 0)
    assert usage.key_cert_sign and not usage.digital_signature
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    assert 3650 <= (ca.not_valid_after_utc - datetime.now(UTC)).days <= 3653
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("host", "subject"),
    [
        ("coordinator.example.org", x509.DNSName("coordinator.example.org")),
        ("127.0.0.1", x509.IPAddress(ip_address("127.0.0.1"))),
        ("::1", x509.IPAddress(ip_address("::1"))),
    ],
)
def test_a_server_certificate_holds_for_its_host_alone(files, host, subject):
    ca, ca_key, certificate, key = files
    authority.issue(host, ca, ca_key, certificate, key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    signed = load(certificate)
    signed.verify_directly_issued_by(load(ca))
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [subject]
    assert 397 <= (authority.expires(certificate) - datetime.now(UTC)).days <= 398
    store = PolicyBuilder().store(Store([load(ca)]))
    store.build_server_verifier(subject).verify(signed, [])  # the rules of the web, stricter than OpenSSL's
    with pytest.raises(VerificationError):
        store.build_server_verifier(x509.DNSName("elsewhere.example.org")).verify(signed, [])
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


def test_renewing_changes_key_and_certificate_and_not_the_authority(files):
    ca, ca_key, certificate, key = files
    authority.issue("localhost", ca, ca_key, certificate, key)
    before = [path.read_bytes() for path in files]
    authority.issue("localhost", ca, ca_key, certificate, key)
    after = [path.read_bytes() for path in files]
    assert before[:2] == after[:2] and before[2] != after[2] and before[3] != after[3]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    assert sorted(path.name for path in ca.parent.iterdir()) == ["ca.key", "ca.pem", "server.key", "server.pem"]


def test_a_start_in_the_past_gives_an_expired_certificate(files):
    ca, ca_key, certificate, key = files
    authority.issue("localhost", ca, ca_key, certificate, key, start=datetime.now(UTC) - timedelta(days=399))
    assert authority.expires(certificate) < datetime.now(UTC)


def test_an_authority_is_never_written_over(files):
    before = files[1].read_bytes()
    with pytest.raises(Misuse, match="exists"):
        authority.found("antwerp", files[0], files[1])
    assert files[1].read_bytes() == before


def test_files_that_are_gone_or_broken(files):
    ca, ca_key, certificate, key = files
    with pytest.raises(Misuse, match="cannot be read"):
        authority.expires(certificate)
    ca.write_text("nothing")
    with pytest.raises(Misuse, match="not a certificate"):
        authority.issue("localhost", ca, ca_key, certificate, key)
    assert not key.exists()
