"""A hardened systemd unit for the coordinator."""

from __future__ import annotations

import sys
from pathlib import Path

ACCOUNT = "ahh-coordinator"
HOME = f"/var/lib/{ACCOUNT}"

_UNIT = """\
# The coordinator of a consortium, as the account {account}, which may write below {home} and nowhere else.
# Save it as /etc/systemd/system/{account}.service; docs/coordinator.md says how.

[Unit]
Description=Coordinator of an ahh_federated consortium
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={python} -m ahh_federated coordinator serve --home {home}/home
User={account}
Group={account}
StateDirectory={account}
StateDirectoryMode=0700
Restart=on-failure
RestartSec=5
# What was answered is in the transcript, so a coordinator may be stopped at any moment.
TimeoutStopSec=20

UMask=0077
LimitCORE=0
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={see_home}
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
PrivateIPC=yes
ProtectHostname=yes
ProtectClock=yes
ProtectProc=invisible
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
LimitNOFILE=65536
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit(python: str = sys.executable) -> str:
    """The unit's text.  `python` is the interpreter that has ahh_federated."""
    at_home = Path(python).parts[1:2] in [("home",), ("root",), ("run",)]  # what ProtectHome hides
    return _UNIT.format(account=ACCOUNT, home=HOME, python=python, see_home="read-only" if at_home else "yes")
