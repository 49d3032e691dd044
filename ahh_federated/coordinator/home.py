"""The coordinator's folder: its name and address, its authority, its database and its runs."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from ahh_federated.audit import Audit
from ahh_federated.coordinator import authority
from ahh_federated.coordinator.queue import Queue
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.transcript import TRANSCRIPT
from ahh_federated.coordinator.witness import Witness
from ahh_federated.errors import Misuse
from ahh_federated.study.fields import Table, checked_name

VARIABLE = "AHH_COORDINATOR_HOME"
_CONFIG = "coordinator.toml"
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

_TEMPLATE = """\
# The coordinator of a consortium.  Partners and researchers know it by this name.
name = "{name}"

# Where partners and researchers reach it: HOST:PORT.  The server's certificate is for this host; after a change run
# `ahh coordinator renew`, and send partners and researchers the new address.
address = "{address}"

# Where it listens on this machine.  One TCP port, inbound; nothing else needs to be open.
listen = "{listen}"
"""


@dataclass(frozen=True, slots=True)
class CoordinatorHome:
    """An open coordinator's folder.  `address` is as partners reach it, `listen` where it listens, both HOST:PORT."""

    path: Path
    name: str
    address: str
    listen: str

    @property
    def ca(self) -> Path:
        return self.path / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.path / "ca.key"

    @property
    def certificate(self) -> Path:
        return self.path / "server.pem"

    @property
    def key(self) -> Path:
        return self.path / "server.key"

    @property
    def database(self) -> Path:
        """Roster, queue and checkpoints."""
        return self.path / "coordinator.db"

    @property
    def flower(self) -> Path:
        """Flower's own state."""
        return self.path / "flower.db"

    @property
    def audit(self) -> Audit:
        return Audit(self.path / "audit.jsonl")

    def run(self, digest: str) -> Path:
        """The folder of a study's run, which may not be there yet."""
        if not _DIGEST.fullmatch(digest):
            raise Misuse(f"{digest!r} is not the digest of a study: 64 hexadecimal digits")
        return self.path / "runs" / digest

    def transcript(self, digest: str) -> Path:
        return self.run(digest) / TRANSCRIPT

    def renew(self) -> None:
        """A new server key and certificate for the address, from the same authority.  A running server keeps its old ones."""
        authority.issue(split_address(self.address)[0], self.ca, self.ca_key, self.certificate, self.key)


def default_home() -> Path:
    """What the environment variable AHH_COORDINATOR_HOME says, or ~/.ahh/coordinator."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path.home() / ".ahh" / "coordinator"


def create_home(path: Path, name: str, address: str, listen: str | None = None) -> CoordinatorHome:
    """Make a coordinator's folder, mode 0700: all of it or nothing.

    Args:
        path: a folder that is not there, or is empty.
        name: the coordinator's name.
        address: HOST:PORT as partners and researchers reach it.
        listen: HOST:PORT on this machine; by default the same port on every interface.

    Raises:
        Misuse: when the name or an address cannot work, or the folder holds something.
    """
    checked_name(name, "name")
    host, port = split_address(address)
    if host in ("0.0.0.0", "::"):
        raise Misuse(f"{address} is every machine and none: give the name or the IP address that partners reach")
    listen = listen or f"0.0.0.0:{port}"
    split_address(listen)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Misuse(f"{path} holds something already: use another folder, or the coordinator that is there")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))  # mode 0700
    except OSError as error:
        raise Misuse(f"{path} cannot be made ({error.strerror}): give a folder that is yours") from None
    try:
        home = CoordinatorHome(draft, name, address, listen)
        authority.found(name, home.ca, home.ca_key)
        home.renew()
        for store in (Roster, Queue, Witness):
            store(home.database).close()
        home.audit.write("init", name=name, address=address)
        (draft / _CONFIG).write_text(_TEMPLATE.format(name=name, address=address, listen=listen), encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise Misuse(f"{path} cannot be made ({error.strerror}): give a folder that is yours") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return open_home(path)


def open_home(path: Path | None = None) -> CoordinatorHome:
    """Raises Misuse when there is no coordinator, its file cannot work, or others can read its keys."""
    path = path or default_home()
    file = path / _CONFIG
    try:
        content = Table(tomllib.loads(file.read_text(encoding="utf-8-sig")), "")
        home = CoordinatorHome(path, content.name("name"), content.text("address"), content.text("listen"))
        content.done()
        split_address(home.address)
        split_address(home.listen)
    except FileNotFoundError:
        raise Misuse(
            f"{path} holds no coordinator: make one with `ahh coordinator init`, or name its folder with --home or {VARIABLE}"
        ) from None
    except OSError as error:
        raise Misuse(f"{file} cannot be read ({error.strerror}): use the coordinator's own account") from None
    except (ValueError, RecursionError):
        raise Misuse(f"{file} is not valid TOML: mend it") from None
    except Misuse as error:
        raise Misuse(f"{file}: {error}") from None
    for key in (home.ca_key, home.key):
        if key.exists() and key.stat().st_mode & 0o077:
            raise Misuse(f"{key} can be read by others: chmod 600 {key}")
    return home


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an IPv6 address stands in brackets.

    Raises:
        Misuse: when it is not of this form.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535 or not _is_host(host, bracketed):
        raise Misuse(f"{address!r} is not an address: write HOST:PORT, for example coordinator.example.org:8443")
    return host, int(port)


def _is_host(host: str, bracketed: bool) -> bool:
    try:
        return (ip_address(host).version == 6) is bracketed and "%" not in host
    except ValueError:
        labels = host.split(".")
        named = all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()
        return named and not bracketed and len(host) <= 253
