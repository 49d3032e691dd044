"""Whether a node can do its work: one line for each thing that may be wrong, with how to mend it.

Nothing that it says depends on a patient but the number of rows of the table, which stays on this machine.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ahh_federated.audit import verify_audit
from ahh_federated.errands import compatible
from ahh_federated.errors import AhhError, Misuse, Unreachable
from ahh_federated.node.home import Consortium, NodeHome
from ahh_federated.node.memory import Memory
from ahh_federated.node.reading import read
from ahh_federated.version import VERSION

LEAST_DISK = 1 << 30  # bytes
MOST_SKEW = 3.0  # seconds; Flower refuses what is signed more than 5 seconds ahead of its own clock
_TIMEOUT = 10.0
_SOON = 30  # days
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p")
_ABOUT = "/ahh/v1/about"


@dataclass(frozen=True, slots=True)
class Line:
    """What was looked at, whether it is well, and what was found or how to mend it."""

    what: str
    ok: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'MEND':<5}{self.what:<13}{self.text}"


def examine(home: NodeHome, knock: Callable[[Consortium], str] | None = None) -> Iterator[Line]:
    """Look at everything, in the order in which things depend on each other; one fault is told once.

    Args:
        home: the node.
        knock: calls a coordinator with the node's own key, and says how it was received; raises AhhError when it was turned
            away.  Without it nobody is asked whether the node is still a member.
    """
    looks: list[tuple[str, Callable[[NodeHome], str]]] = [
        ("versions", lambda home: versions_line()),
        ("permissions", _permissions),
        ("key", _key),
        ("disk", _disk),
        ("policy", _policy),
        ("ledger", _ledger),
        ("audit", _audit),
        ("table", _table),
        ("consortia", _consortia),
    ]
    told: set[str] = set()
    for what, look in looks:
        line = _line(what, partial(look, home))
        if line.ok or line.text not in told:
            yield line
        told.add(line.text)
    try:
        known = home.consortia().values()
    except Misuse:
        return
    for consortium in known:
        yield from _coordinator(consortium, knock)


def versions() -> dict[str, str]:
    """Of this software and of what decides how it behaves on the network."""
    found = {"ahh-federated": VERSION, "python": platform.python_version(), "openssl": ssl.OPENSSL_VERSION}
    for name in ("flwr", "cryptography", "numpy", "pandas", "pyarrow", "sqlalchemy", "httpx"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def versions_line() -> str:
    found = versions()
    absent = [name for name, number in found.items() if number == "not installed"]
    if absent:
        raise Misuse(f"{', '.join(absent)} cannot be found: install ahh-federated again, in an environment of its own")
    return ", ".join(f"{name} {found[name]}" for name in ("ahh-federated", "flwr", "python"))


def _line(what: str, look: Callable[[], str]) -> Line:
    try:
        return Line(what, True, look())
    except AhhError as error:
        return Line(what, False, str(error))
    except OSError as error:
        return Line(what, False, f"{error.filename or 'a file'} cannot be read ({error.strerror}): check its owner and rights")


def _permissions(home: NodeHome) -> str:
    secret = [home.path, home.key_path, home.ledger_path, home.audit_path, home.config_path, home.studies, home.consortia_folder]
    for path in [*secret, home.optout_path, home.witness_path, *home.consortia_folder.glob("*.toml")]:
        if not path.exists():
            continue
        state = path.stat()
        if state.st_uid != os.geteuid():
            raise Misuse(f"{path} belongs to another user than runs this: run as the node's own user, or chown it")
        if stat.S_IMODE(state.st_mode) & 0o077:
            raise Misuse(f"{path} can be read by others: chmod {'700' if path.is_dir() else '600'} {path}")
    if stat.S_IMODE(home.policy_path.stat().st_mode) & 0o022:
        raise Misuse(f"{home.policy_path} can be changed by others: chmod 644 {home.policy_path}")
    return f"{home.path} is this user's alone"


def _key(home: NodeHome) -> str:
    key = home.key
    if home.public_path.read_text(encoding="utf-8").split()[:2] != key.public.split()[:2]:
        raise Misuse(f"{home.public_path} is not the public half of {home.key_path}: put both back from one backup")
    return key.fingerprint


def _disk(home: NodeHome) -> str:
    kind = _filesystem(home.path)
    if kind in _REMOTE:
        raise Misuse(f"{home.path} lies on a network disk ({kind}), which breaks the ledger's locks: move it to a local disk")
    free = shutil.disk_usage(home.path).free
    if free < LEAST_DISK:
        raise Misuse(f"{free / 1e6:.0f} MB are free: free some space; a full disk stops every release")
    return f"{free / 1e9:.0f} GB are free"


def _filesystem(path: Path) -> str:
    """The kind of file system that holds `path`; empty where the system does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    above = [(Path(point.encode().decode("unicode_escape")), kind) for _, point, kind, *_ in mounts]
    holding = [(point, kind) for point, kind in above if path.resolve().is_relative_to(point)]
    return max(holding, key=lambda each: len(each[0].parts), default=(Path(), ""))[1]


def _policy(home: NodeHome) -> str:
    policy = home.policy
    if policy.columns is not None and not policy.columns:
        raise Misuse("no column is allowed yet, so every study is refused: `ahh node connect TABLE --allow all`, or list them")
    columns = "all columns" if policy.columns is None else f"{len(policy.columns)} columns"
    return f"epsilon {policy.budget.epsilon:g} at delta {policy.budget.delta:g}, {columns}, cohorts from {policy.minimum_cohort}"


def _ledger(home: NodeHome) -> str:
    with home.ledger() as ledger:
        verdict = ledger.verify()
        if not verdict.ok:
            where = f" at entry {verdict.first_bad}" if verdict.first_bad else ""
            raise Misuse(f"broken{where}: {verdict.why}; put a copy back that is no older than the last release")
        Memory(home.witness_path, home.key).require(ledger, ())
        budget = home.policy.budget
        spent = ledger.spent().epsilon(budget.delta)
    return f"{verdict.entries} entries are sound; epsilon {spent:.3g} of {budget.epsilon:g} is spent"


def _audit(home: NodeHome) -> str:
    sound, entries, why = verify_audit(home.audit_path)
    if not sound:
        raise Misuse(f"{home.audit_path.name}: {why}; keep the file, and find out who changed it")
    return f"{entries} events are sound"


def _table(home: NodeHome) -> str:
    source, faults = home.source, list[str]()
    frame = read(source, faults)
    if faults:
        raise Misuse("; ".join(faults))
    without = f", {count} opted out" if (count := len(home.optouts)) else ""
    return f"{source.shown}: {len(frame)} rows, {len(frame.columns)} columns{without}"


def _consortia(home: NodeHome) -> str:
    known = home.consortia()
    if not known:
        raise Misuse("none joined: ask the coordinator for an invitation, then `ahh node join INVITATION`")
    return ", ".join(f"{name} (as {each.partner})" for name, each in known.items()) + ("; PAUSED" if home.paused else "")


def _coordinator(consortium: Consortium, knock: Callable[[Consortium], str] | None) -> Iterator[Line]:
    """Network, TLS, clock, version and membership, as far as each is reached."""
    try:
        raw = _connected(consortium.address)
    except (AhhError, OSError) as error:
        yield Line("network", False, _unreachable(consortium, error))
        return
    yield Line("network", True, f"{consortium.name} answers at {consortium.address}")
    try:
        context = _trusting(consortium.ca)
    except (ssl.SSLError, ValueError):
        raw.close()
        yield Line("tls", False, f"{consortium.name}.ca.pem is no certificate: leave, and join again with a new invitation")
        return
    try:
        with raw, context.wrap_socket(raw, server_hostname=host_of(consortium.address)) as line:
            yield _line("tls", lambda: _certificate(line))
            about, date = _about(line, consortium.address)
    except ssl.SSLCertVerificationError as error:
        fix = "if its operator has set it up anew, ask for a new invitation; otherwise somebody else answers there"
        yield Line("tls", False, f"{consortium.name} shows no certificate that is trusted ({error.verify_message}): {fix}")
        return
    except (ssl.SSLError, OSError, http.client.HTTPException, ValueError) as error:
        fix = "check that the address is the coordinator's, and that no proxy opens TLS on the way"
        yield Line("tls", False, f"{consortium.name} does not speak as a coordinator ({type(error).__name__}): {fix}")
        return
    yield _line("clock", lambda: _clock(date))
    yield _line("coordinator", lambda: _version(about))
    if knock is not None:
        yield _line("membership", lambda: knock(consortium))


def _connected(address: str) -> socket.socket:
    host, port = host_of(address), address.rpartition(":")[2]
    if not host or not port.isdigit():
        raise Misuse(f"{address!r} is not HOST:PORT: join again with a new invitation")
    return socket.create_connection((host, int(port)), timeout=_TIMEOUT)


def host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _unreachable(consortium: Consortium, error: Exception) -> str:
    if isinstance(error, AhhError):
        return str(error)
    what = f"{consortium.name} cannot be reached at {consortium.address}"
    if isinstance(error, socket.gaierror):
        return f"{what}: the name is not known; check DNS"
    if isinstance(error, ConnectionRefusedError):
        return f"{what}: nothing listens there; ask whether the coordinator serves"
    return f"{what}: let the firewall pass outbound TCP to this one address and port"


def _trusting(ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca)
    return context


def _certificate(line: ssl.SSLSocket) -> str:
    certificate = line.getpeercert() or {}
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    days = (end - datetime.now(UTC)).days
    if days < _SOON:
        raise Misuse(f"the coordinator's certificate ends on {end:%Y-%m-%d}: tell its operator to run `ahh coordinator renew`")
    return f"{line.version()}, certificate until {end:%Y-%m-%d}"


def _about(line: ssl.SSLSocket, address: str) -> tuple[object, str]:
    line.sendall(f"GET {_ABOUT} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
    answer = http.client.HTTPResponse(line)
    answer.begin()
    content = json.loads(answer.read(1 << 16))
    if answer.status != 200 or not isinstance(content, dict):
        raise ValueError("no coordinator")
    return content.get("version"), answer.headers.get("date", "")


def _clock(date: str) -> str:
    try:
        skew = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds() - 0.5  # the header drops the fraction
    except (ValueError, TypeError):
        raise Unreachable("the coordinator does not tell its time: compare this clock with another by hand") from None
    if abs(skew) > MOST_SKEW:
        where = "ahead of" if skew > 0 else "behind"
        raise Misuse(f"this clock is {abs(skew):.0f} s {where} the coordinator's: let both follow NTP (timedatectl set-ntp true)")
    return "within a few seconds of the coordinator's"


def _version(theirs: object) -> str:
    if not isinstance(theirs, str) or not compatible(theirs):
        shown = str(theirs)[:20] if str(theirs)[:20].isprintable() else "unknown"
        raise Misuse(f"it has version {shown}, this node {VERSION}: bring both within one minor version of each other")
    return f"version {theirs}"
