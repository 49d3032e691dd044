"""The systemd unit of a serving node: it may read its table, write its folder, talk to its coordinators, and nothing else."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import make_url

from ahh_federated.errors import Misuse
from ahh_federated.node.doctor import host_of
from ahh_federated.node.home import VARIABLE, NodeHome
from ahh_federated.node.sources import CREDENTIAL, Source

USER = "ahh"
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome hides

_UNIT = """\
# {place}
# Written by `ahh node service`: write it anew after `ahh node join` or `ahh node connect`, and after an upgrade of Python.
[Unit]
Description=ahh_federated node {name}
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target

[Service]
ExecStart={python} -m ahh_federated node serve --home {home}
Environment={variable}={home}
User={user}
Group={user}
Restart=always
RestartSec=10
TimeoutStopSec=60

# Files: the system is read-only; the node's folder can be written{and_table}.
ProtectSystem=strict
{paths}
PrivateTmp=yes
PrivateDevices=yes
UMask=0077
{credential}
# Network: out to the addresses below and nowhere else; nothing may listen.
# An address that is a name is looked up now, so write this unit anew when a coordinator moves.  Where DNS is not answered on
# this machine (127.0.0.53), add a line IPAddressAllow= with your DNS server.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
IPAddressDeny=any
{addresses}
SocketBindDeny=any

# Nothing else: no privileges, no other processes, no kernel settings, no core dump with patients in it.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateUsers=yes
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
LimitCORE=0
DevicePolicy=closed

[Install]
WantedBy=multi-user.target
"""


def unit(home: NodeHome, user: str = USER) -> str:
    """The unit for this node as it is joined and connected now.

    Raises:
        Misuse: when a path or the user's name cannot stand in a unit, or no table is connected.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
        raise Misuse(f"{user!r} is no name of a system user: small letters, digits, - and _")
    source = home.source
    return _UNIT.format(
        place="/etc/systemd/system/ahh-node.service",
        name=home.name,
        python=_path(Path(sys.executable)),
        home=_path(home.path),
        variable=VARIABLE,
        user=user,
        and_table=", the table can be read" if source.path else "",
        paths="\n".join(_paths(home, source)),
        credential="\n".join(_credential(source)),
        addresses="\n".join(_addresses(home, source)),
    )


def _paths(home: NodeHome, source: Source) -> list[str]:
    software = [Path(sys.prefix), Path(sys.base_prefix)]
    readable = [*software, *([source.path] if source.path else [])]
    hidden = [path for path in readable if _is_hidden(path)]
    lines = ["ProtectHome=tmpfs" if hidden or _is_hidden(home.path) else "ProtectHome=yes"]
    lines += [f"BindReadOnlyPaths={_path(path)}" for path in dict.fromkeys(hidden)]
    lines.append(f"{'BindPaths' if _is_hidden(home.path) else 'ReadWritePaths'}={_path(home.path)}")
    if source.path is not None and not _is_hidden(source.path):
        lines.append(f"ReadOnlyPaths={_path(source.path)}")
    return lines


def _credential(source: Source) -> list[str]:
    if source.password_file is not None:
        return [
            "",
            "# The database's password reaches this service alone.  To keep it encrypted on the disk too, see systemd-creds(1)",
            "# and LoadCredentialEncrypted=.",
            f"LoadCredential={CREDENTIAL}:{_path(source.password_file)}",
            "",
        ]
    if source.password_env:
        fix = "connect again with --password-file, which can be handed over as a credential"
        return ["", f"# The variable {source.password_env} is not set here, where others could read it: {fix}.", ""]
    return [""]


def _addresses(home: NodeHome, source: Source) -> list[str]:
    hosts = {each.name: host_of(each.address) for each in home.consortia().values()}
    if source.url and (database := make_url(source.url).host):
        hosts["the database"] = database
    lines = ["IPAddressAllow=localhost"]
    for what, host in hosts.items():
        found = sorted(_resolved(host))
        lines.append(f"# {what}: {host}{'' if found else ', which could not be looked up: add its address'}")
        lines += [f"IPAddressAllow={address}" for address in found]
    return lines


def _resolved(host: str) -> Iterable[str]:
    try:
        return {str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(each) for each in _HIDDEN)


def _path(path: Path) -> str:
    text = str(path)
    if not text.isprintable() or any(mark in text for mark in " \t\"'\\:"):
        raise Misuse(f"{text!r} cannot stand in a systemd unit: use a path without spaces, quotes and colons")
    return text.replace("%", "%%")
