"""The coordinator's own certificate authority: partners and researchers trust it and nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ahh_federated.errors import Misuse
from ahh_federated.identity import Key

AUTHORITY_DAYS = 3653  # ten years
SERVER_DAYS = 398
_CLOCKS = timedelta(hours=1)  # a partner's clock may be late


def found(name: str, certificate: Path, key: Path, *, start: datetime | None = None) -> None:
    """Make the authority of the consortium `name`: a self-signed certificate for ten years, and its key (mode 0600)."""
    private = Key.create(key).private
    subject = _named(f"{name} coordinator authority")
    builder = _builder(subject, subject, private, start, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    _write(certificate, builder.sign(private, hashes.SHA256()))


def issue(host: str, ca: Path, ca_key: Path, certificate: Path, key: Path, *, start: datetime | None = None) -> None:
    """Make the server's key (mode 0600) and its certificate for `host`, a DNS name or an IP address, for 398 days.

    Both files are replaced.  Raises Misuse when the authority's files cannot be read.
    """
    authority, signer = _read(ca), Key.load(ca_key).private
    draft = key.with_name(f".{key.name}.new")
    draft.unlink(missing_ok=True)
    private = Key.create(draft).private
    builder = _builder(_named(host), authority.subject, private, start, SERVER_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
    signer_id = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer_id)
    signed = builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256())
    os.replace(draft, key)
    _write(certificate, signed)


def expires(certificate: Path) -> datetime:
    """Until when a certificate holds, in UTC."""
    return _read(certificate).not_valid_after_utc


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: datetime | None, days: int
) -> x509.CertificateBuilder:
    first = start or datetime.now(UTC)
    public = key.public_key()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(first - _CLOCKS).not_valid_after(first + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): put the file back from your backup") from None
    except ValueError:
        raise Misuse(f"{path} is not a certificate: put the file back from your backup") from None


def _write(path: Path, certificate: x509.Certificate) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    os.replace(draft, path)
