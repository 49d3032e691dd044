"""Who takes part: partners, each its public key, and researchers, each a personal token.

Tokens are 256 random bits; only their SHA-256 is kept.  An invitation admits one key, once.  A key that was revoked never
comes back, and no key is two partners.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, final

from ahh_federated.coordinator.database import Database, now
from ahh_federated.errors import Misuse
from ahh_federated.identity import fingerprint
from ahh_federated.study.fields import checked_name

MOST_HOURS = 24 * 30
JOIN = "ahh-join/1"  # the domain in which a joining key signs its token
_LONGEST_TOKEN = 200

_SCHEMA = """
CREATE TABLE IF NOT EXISTS partners (
    fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, public TEXT NOT NULL UNIQUE, joined TEXT NOT NULL, revoked TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS one_key ON partners (name) WHERE revoked IS NULL;
CREATE TABLE IF NOT EXISTS invitations (
    token TEXT PRIMARY KEY, partner TEXT NOT NULL, created TEXT NOT NULL, expires TEXT NOT NULL,
    fingerprint TEXT, withdrawn TEXT);
CREATE TABLE IF NOT EXISTS researchers (name TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, since TEXT NOT NULL)
"""
_PARTNER = "SELECT name, public, fingerprint, joined, revoked IS NOT NULL FROM partners"


@dataclass(frozen=True, slots=True)
class Partner:
    """A partner that has joined: its key, and whether it may still take part."""

    name: str
    public: str
    fingerprint: str
    joined: str
    revoked: bool


@dataclass(frozen=True, slots=True)
class Invited:
    """A partner that has not joined yet."""

    name: str
    expires: str

    @property
    def expired(self) -> bool:
        return self.expires <= now()


@dataclass(frozen=True, slots=True)
class Researcher:
    name: str
    since: str


@final
class Roster:
    """The partners and researchers in the database `path`."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def invite(self, partner: str, hours: float = 72) -> str:
        """A token with which one key may join as `partner`.  An earlier invitation of the same partner ends.

        Raises:
            Misuse: when it has joined already, or the hours are out of bounds.
        """
        checked_name(partner, "partner")
        if not 0 < hours <= MOST_HOURS:
            raise Misuse(f"an invitation holds for more than 0 and up to {MOST_HOURS} hours: {hours:g} is outside")
        token = secrets.token_urlsafe(32)
        expires = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="milliseconds")
        with self._db.change() as db:
            if _active(db, partner):
                raise Misuse(f"{partner} has joined already: revoke it first if its node has a new key")
            _withdraw(db, partner)
            values = (_hash(token), partner, now(), expires)
            db.execute("INSERT INTO invitations (token, partner, created, expires) VALUES (?, ?, ?, ?)", values)
        return token

    def enrol(self, token: str, public: str) -> Partner:
        """Admit the key `public`, whose possession the caller has checked, as the partner that the token invites.

        The same key may present its token again, in case the answer was lost; to any other key the token is spent.

        Raises:
            Misuse: when the token is unknown, used, withdrawn or expired, or the key is revoked or another partner's.
            Breach: when `public` is no key.
        """
        mark = fingerprint(public)
        with self._db.change() as db:
            rows = db.execute("SELECT token, partner, expires, fingerprint, withdrawn FROM invitations").fetchall()
            found = _match(rows, token)
            name = _usable(found, mark)
            known = db.execute(f"{_PARTNER} WHERE fingerprint = ?", (mark,)).fetchone()
            if known is None:
                if _active(db, name):
                    raise Misuse(f"{name} has joined with another key: ask the coordinator to revoke that one first")
                line = " ".join(public.split()[:2])
                insert = "INSERT INTO partners (fingerprint, name, public, joined) VALUES (?, ?, ?, ?)"
                db.execute(insert, (mark, name, line, now()))
                db.execute("UPDATE invitations SET fingerprint = ? WHERE token = ?", (mark, found[0]))
                known = db.execute(f"{_PARTNER} WHERE fingerprint = ?", (mark,)).fetchone()
            partner = _partner(known)
            if partner.revoked:
                raise Misuse("this key was revoked and cannot join again: start a node with a new key")
            if partner.name != name:
                raise Misuse(f"this key has joined as {partner.name}: a node has one name in a consortium")
        return partner

    def partners(self) -> list[Partner]:
        """Every partner that ever joined, the revoked ones too, by name."""
        return [_partner(row) for row in self._db.rows(f"{_PARTNER} ORDER BY name, joined")]

    def partner_of(self, mark: str) -> Partner | None:
        """The partner with this fingerprint, which may be revoked."""
        rows = self._db.rows(f"{_PARTNER} WHERE fingerprint = ?", (mark,))
        return _partner(rows[0]) if rows else None

    def invited(self) -> list[Invited]:
        """Invitations that nobody has used, expired ones too, by name."""
        unused = "SELECT partner, expires FROM invitations WHERE fingerprint IS NULL AND withdrawn IS NULL ORDER BY partner"
        return [Invited(*row) for row in self._db.rows(unused)]

    def revoke(self, name: str) -> Partner | None:
        """End a partner's membership and withdraw its invitation; the partner, or None when it had only been invited.

        Raises:
            Misuse: when there is neither.
        """
        with self._db.change() as db:
            withdrawn = _withdraw(db, name)
            row = db.execute(f"{_PARTNER} WHERE name = ? AND revoked IS NULL", (name,)).fetchone()
            if row is None and not withdrawn:
                raise Misuse(f"{name!r} is neither a partner nor invited: look at the roster")
            db.execute("UPDATE partners SET revoked = ? WHERE name = ? AND revoked IS NULL", (now(), name))
        return None if row is None else _partner((*row[:-1], True))

    def welcome(self, researcher: str) -> str:
        """A personal token for a researcher; one given before ends."""
        checked_name(researcher, "researcher")
        token = secrets.token_urlsafe(32)
        with self._db.change() as db:
            db.execute("INSERT OR REPLACE INTO researchers VALUES (?, ?, ?)", (researcher, _hash(token), now()))
        return token

    def researcher(self, token: str) -> str | None:
        """Whose token this is."""
        found = _match(self._db.rows("SELECT token, name FROM researchers"), token)
        return None if found is None else str(found[1])

    def researchers(self) -> list[Researcher]:
        return [Researcher(*row) for row in self._db.rows("SELECT name, since FROM researchers ORDER BY name")]

    def dismiss(self, researcher: str) -> None:
        """End a researcher's token.  Raises Misuse when there is none."""
        with self._db.change() as db:
            if db.execute("DELETE FROM researchers WHERE name = ?", (researcher,)).rowcount == 0:
                raise Misuse(f"{researcher!r} is not a researcher here: look at the roster")

    def close(self) -> None:
        self._db.close()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _match(rows: Iterable[Any], token: str) -> Any:
    """The row whose first field is the token's hash.  All rows are compared, each in constant time."""
    mark = _hash(token[:_LONGEST_TOKEN])
    found = None
    for row in rows:
        if hmac.compare_digest(row[0], mark):
            found = row
    return found


def _usable(found: Any, mark: str) -> str:
    """The partner that an invitation admits this key as."""
    again = "ask the coordinator for a new invitation"
    if found is None:
        raise Misuse(f"this invitation is not known: {again}")
    _, name, expires, used, withdrawn = found
    if withdrawn is not None:
        raise Misuse(f"this invitation was withdrawn: {again}")
    if used not in (None, mark):
        raise Misuse(f"this invitation was used by another key: if that was not you, tell the coordinator at once; {again}")
    if expires <= now():
        raise Misuse(f"this invitation expired at {expires}: {again}")
    return str(name)


def _active(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM partners WHERE name = ? AND revoked IS NULL", (name,)).fetchone() is not None


def _withdraw(db: sqlite3.Connection, name: str) -> int:
    unused = "partner = ? AND fingerprint IS NULL AND withdrawn IS NULL"
    return db.execute(f"UPDATE invitations SET withdrawn = ? WHERE {unused}", (now(), name)).rowcount


def _partner(row: Any) -> Partner:
    name, public, mark, joined, revoked = row
    return Partner(name, public, mark, joined, bool(revoked))
