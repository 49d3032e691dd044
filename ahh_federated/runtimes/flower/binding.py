"""What binds a node's request to one coordinator, one call and one body.

Flower's own header signs the time alone, with a key that a node uses at every coordinator: one of them could act as the node at
another.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

HEADER = "ahh-fleet-signature"
DOMAIN = "ahh-fleet/1"


def mark(ca: bytes) -> bytes:
    """The SHA-256 of a coordinator's authority, given in PEM: who is meant."""
    return x509.load_pem_x509_certificate(ca).fingerprint(SHA256())


def spelled(authority: bytes, path: bytes, time: bytes, body: bytes) -> bytes:
    """What is signed; no part can run into the next."""
    return b"\0".join([authority.hex().encode(), path, time, hashlib.sha256(body).hexdigest().encode()])
