"""The two files a coordinator hands out, each with a secret: an invitation for a partner, an access file for a researcher."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ahh_federated.coordinator.home import CoordinatorHome, split_address
from ahh_federated.coordinator.roster import Roster
from ahh_federated.errors import Misuse
from ahh_federated.runtimes.https import Peer, tls
from ahh_federated.study.fields import Table, checked_name

INVITATION, ACCESS = "ahh-invitation/1", "ahh-access/1"
_LARGEST = 1 << 18  # bytes

_INVITES = """\
# An invitation to join the consortium {consortium} as {partner}: `ahh node join` with this file.
# It holds a secret that admits one node, once.  Send it as you would a password; it is worth nothing once used.
"""
_ADMITS = """\
# Access of the researcher {researcher} to the coordinator {coordinator}: `ahh login` with this file.
# It holds a personal secret.  Send it as you would a password.
"""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a node needs to join: the consortium, its own name there, the address, the authority (PEM) and a token."""

    consortium: str
    partner: str
    address: str
    ca: str
    expires: datetime
    roster: Mapping[str, str]
    token: str = field(repr=False)

    @property
    def peer(self) -> Peer:
        return Peer(self.address, self.ca)


@dataclass(frozen=True, slots=True)
class Access:
    """What a researcher needs to reach a coordinator."""

    coordinator: str
    researcher: str
    address: str
    ca: str
    token: str = field(repr=False)

    @property
    def peer(self) -> Peer:
        return Peer(self.address, self.ca, self.token)


def write_invitation(home: CoordinatorHome, roster: Roster, partner: str, hours: float = 72, out: Path | None = None) -> Path:
    """Invite a partner and write the file for it, `PARTNER.invitation.toml` unless `out` says otherwise, mode 0600.

    Raises:
        Misuse: when the partner cannot be invited, or there is a file already.
    """
    path = _free(out or Path(f"{checked_name(partner, 'partner')}.invitation.toml"))
    token = roster.invite(partner, hours)
    expires = (datetime.now(UTC) + timedelta(hours=hours)).replace(microsecond=0)
    content = {"format": INVITATION, "consortium": home.name, "partner": partner, "address": home.address, "token": token}
    members = {each.name: each.fingerprint for each in roster.partners() if not each.revoked}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in content.items()]
    lines += [
        f"expires = {expires.isoformat()}\n",
        _pem(home),
        "\n# Who has joined so far, each by the fingerprint of its key.\n",
    ]
    lines += ["[roster]\n", *(f"{name} = {json.dumps(mark)}\n" for name, mark in members.items())]
    _write(path, _INVITES.format(consortium=home.name, partner=partner) + "".join(lines))
    home.audit.write("invite", partner=partner, expires=expires.isoformat())
    return path


def write_access(home: CoordinatorHome, roster: Roster, researcher: str, out: Path | None = None) -> Path:
    """Give a researcher a token and write the file for it, `RESEARCHER.access.toml` unless `out` says otherwise, mode 0600.

    Raises:
        Misuse: when the name cannot work, or there is a file already.
    """
    path = _free(out or Path(f"{checked_name(researcher, 'researcher')}.access.toml"))
    token = roster.welcome(researcher)
    content = {"format": ACCESS, "coordinator": home.name, "researcher": researcher, "address": home.address, "token": token}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in content.items()]
    _write(path, _ADMITS.format(coordinator=home.name, researcher=researcher) + "".join(lines) + _pem(home))
    home.audit.write("welcome", researcher=researcher)
    return path


def read_invitation(path: Path) -> Invitation:
    """Raises Misuse when the file is no invitation, or has expired."""
    content = _read(path, INVITATION, "an invitation: give the file that the coordinator sent")
    try:
        roster = content.table("roster")
        members = {name: roster.text(name) for name in roster.names()}
        invitation = Invitation(
            consortium=content.name("consortium"),
            partner=content.name("partner"),
            address=content.text("address"),
            ca=content.text("ca"),
            expires=_moment(content.raw("expires")),
            roster=members,
            token=content.text("token"),
        )
        content.done()
        _check(invitation.address, invitation.ca)
    except Misuse as error:
        raise Misuse(f"{path.name}: {error}") from None
    if invitation.expires <= datetime.now(UTC):
        raise Misuse(f"{path.name} expired at {invitation.expires:%Y-%m-%d %H:%M} UTC: ask the coordinator for a new invitation")
    return invitation


def read_access(path: Path) -> Access:
    """Raises Misuse when the file is no access file."""
    content = _read(path, ACCESS, "an access file: give the file that the coordinator's operator sent")
    try:
        names = (content.name("coordinator"), content.name("researcher"))
        access = Access(*names, content.text("address"), content.text("ca"), content.text("token"))
        content.done()
        _check(access.address, access.ca)
    except Misuse as error:
        raise Misuse(f"{path.name}: {error}") from None
    return access


def _check(address: str, ca: str) -> None:
    split_address(address)
    tls(ca)


def _read(path: Path, form: str, what: str) -> Table:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError
        content = Table(tomllib.loads(path.read_text(encoding="utf-8-sig")), "")
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): give the path of the file you were sent") from None
    except (ValueError, RecursionError):
        raise Misuse(f"{path} is not {what}") from None
    if content.raw("format", default="") != form:
        raise Misuse(f"{path} is not {what}")
    return content


def _moment(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise Misuse("expires is not a time with its zone: leave the file as it was sent")
    return value


def _pem(home: CoordinatorHome) -> str:
    return f'ca = """\n{home.ca.read_text(encoding="ascii")}"""\n'


def _free(path: Path) -> Path:
    if path.exists():
        raise Misuse(f"{path} exists: move it away, or give another file with --out")
    return path


def _write(path: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Misuse(f"{path} cannot be written ({error.strerror}): give another file with --out") from None
