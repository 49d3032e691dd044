"""Keys: made once, for their owner alone; and signatures that hold for one key, one domain and one text."""

from __future__ import annotations

import base64
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ahh_federated.errors import Breach, Misuse
from ahh_federated.identity import Key, fingerprint, pem, verify

DOMAIN, DATA = "ahh-test/1", b"what is said"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "node.key")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "other.key")


def test_a_key_is_its_owners_alone_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    made = Key.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    loaded = Key.load(path)
    assert (loaded.public, loaded.fingerprint) == (made.public, made.fingerprint)
    verify(made.public, DOMAIN, DATA, loaded.sign(DOMAIN, DATA))


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    Key.create(path)
    before = path.read_bytes()
    with pytest.raises(Misuse, match="never written over"):
        Key.create(path)
    assert path.read_bytes() == before


def test_nor_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "node.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misuse):
        Key.create(tmp_path / "node.key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601, 0o610])
def test_a_key_that_others_can_reach_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    Key.create(path)
    path.chmod(mode)
    with pytest.raises(Misuse, match="chmod 600"):
        Key.load(path)


def private(made: object) -> bytes:
    return made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


OTHER_KINDS = {
    "another curve": lambda: private(ec.generate_private_key(ec.SECP384R1())),
    "Bitcoin's curve": lambda: private(ec.generate_private_key(ec.SECP256K1())),
    "Edwards": lambda: private(ed25519.Ed25519PrivateKey.generate()),
    "RSA": lambda: private(rsa.generate_private_key(65537, 2048)),
    "nothing": lambda: b"",
    "junk": lambda: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_file_without_a_key_of_this_kind_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(OTHER_KINDS[kind]())
    path.chmod(0o600)
    with pytest.raises(Misuse) as caught:
        Key.load(path)
    assert "AAAA" not in str(caught.value)


def test_an_absent_file_and_an_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(Misuse):
        Key.load(tmp_path / "node.key")
    with pytest.raises(Misuse):
        Key.create(tmp_path / "none" / "node.key")


def test_nothing_shows_a_private_key(key: Key) -> None:
    secret = key.private.private_numbers().private_value
    assert str(secret) not in repr(key)
    assert f"{secret:x}" not in repr(key).lower()
    assert "private" not in repr(key)


def test_a_signature_holds_for_one_key_one_domain_and_one_text(key: Key, other: Key) -> None:
    signature = key.sign(DOMAIN, DATA)
    verify(key.public, DOMAIN, DATA, signature)
    for public, domain, data in [
        (other.public, DOMAIN, DATA),
        (key.public, "ahh-test/2", DATA),
        (key.public, "", DATA),
        (key.public, DOMAIN, DATA + b" "),
        (key.public, DOMAIN, b""),
        (key.public, "", DOMAIN.encode() + b"\0" + DATA),
    ]:
        with pytest.raises(Breach):
            verify(public, domain, data, signature)


def test_a_bare_signature_of_the_same_key_is_none_of_ours(key: Key) -> None:
    """Flower has the same key sign a time; that must never pass as a receipt."""
    bare = base64.b64encode(key.private.sign(DATA, ec.ECDSA(hashes.SHA256()))).decode()
    with pytest.raises(Breach):
        verify(key.public, DOMAIN, DATA, bare)


def test_every_changed_byte_of_a_signature_is_found(key: Key) -> None:
    raw = base64.b64decode(key.sign(DOMAIN, DATA))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 + place % 255
        with pytest.raises(Breach):
            verify(key.public, DOMAIN, DATA, base64.b64encode(changed).decode())


@pytest.mark.parametrize("signature", ["", "x", "====", "AAAA", "é", "\ud800", "A" * 100_000, " ", "MAYCAQACAQA="])
def test_what_is_no_signature_is_refused(key: Key, signature: str) -> None:
    with pytest.raises(Breach):
        verify(key.public, DOMAIN, DATA, signature)


@pytest.mark.parametrize(
    "line", ["", "ssh", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256 AAAA", "é", "\ud800 \ud800", "\0", "x" * 10_000]
)
def test_what_is_no_public_key_is_refused(line: str) -> None:
    for use in (fingerprint, pem, lambda public: verify(public, DOMAIN, DATA, "AAAA")):
        with pytest.raises(Breach):
            use(line)


def test_public_keys_of_other_kinds_are_refused() -> None:
    for made in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        line = made.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        with pytest.raises(Breach):
            fingerprint(line)


def test_a_comment_does_not_make_another_node(key: Key) -> None:
    assert fingerprint(f"{key.public} somebody@somewhere") == key.fingerprint


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")
def test_a_fingerprint_is_the_one_that_ssh_shows(tmp_path: Path, key: Key) -> None:
    path = tmp_path / "node.pub"
    path.write_text(key.public + "\n")
    said = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True).stdout
    assert said.split()[1] == key.fingerprint


def test_pem_is_the_same_key(key: Key) -> None:
    loaded = serialization.load_pem_public_key(pem(key.public))
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert loaded.public_numbers() == key.private.public_key().public_numbers()
