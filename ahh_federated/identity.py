"""Who somebody is: a key of its own on the curve P-256, and what it signed.

A partner is its public key.  The same key signs a node's receipts here and authenticates the node to Flower, which wants
a NIST curve; a domain in front of everything signed keeps the two uses apart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ahh_federated.errors import Breach, Misuse

_HASH = ec.ECDSA(hashes.SHA256())
_KIND = "ecdsa-sha2-nistp256"


@dataclass(frozen=True, slots=True)
class Key:
    """A private key.  `public` is its OpenSSH line, without a comment."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    public: str

    @classmethod
    def create(cls, path: Path) -> Key:
        """Make a key and write it to `path` in PEM, for its owner alone.  Raises Misuse when there is a file already."""
        private = ec.generate_private_key(ec.SECP256R1())
        text = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise Misuse(f"{path} exists: a key is never written over; move it away to start a new identity") from None
        except OSError as error:
            raise Misuse(f"{path} cannot be written ({error.strerror}): give a folder that is yours") from None
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(handle)
        return cls.of(private)

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> Key:
        return cls(private, _line(private.public_key()))

    @classmethod
    def load(cls, path: Path) -> Key:
        """Raises Misuse when the file is absent, open to others, or holds no key of this kind."""
        try:
            if path.stat().st_mode & 0o077:
                raise Misuse(f"{path} can be read by others: chmod 600 {path}")
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise Misuse(f"{path} cannot be read ({error.strerror}): put the key back, with its owner and mode 600") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Misuse(f"{path} holds no private key: put the key back from your backup") from None
        if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
            raise Misuse(f"{path} is not a key on the curve P-256: put the key back that this software made")
        return cls.of(private)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.public)

    def sign(self, domain: str, data: bytes) -> str:
        """ECDSA with SHA-256 over the domain and the data, as base64."""
        return base64.b64encode(self.private.sign(_message(domain, data), _HASH)).decode()


def fingerprint(public: str) -> str:
    """SHA-256 of a public key, as `ssh-keygen -lf` shows it.  Raises Breach when the line is no key."""
    try:
        blob = base64.b64decode(_line(_public(public)).split()[1], validate=True)
    except (IndexError, binascii.Error):
        raise Breach("a public key is one OpenSSH line") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def verify(public: str, domain: str, data: bytes, signature: str) -> None:
    """Raises Breach unless the owner of `public` signed exactly this."""
    try:
        _public(public).verify(base64.b64decode(signature, validate=True), _message(domain, data), _HASH)
    except (InvalidSignature, ValueError, TypeError):
        raise Breach("a signature is not the one of the key it is said to be of") from None


def pem(public: str) -> bytes:
    """The public key as SubjectPublicKeyInfo in PEM."""
    return _public(public).public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public(line: str) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm, UnicodeError):
        raise Breach(f"a public key is one OpenSSH line that begins with {_KIND}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Breach(f"a public key is of the kind {_KIND}")
    return key


def _line(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _message(domain: str, data: bytes) -> bytes:
    return domain.encode() + b"\0" + data
