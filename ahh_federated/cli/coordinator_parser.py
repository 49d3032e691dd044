"""The verbs of whoever operates a coordinator: `ahh coordinator ...`."""

from __future__ import annotations

import argparse
from pathlib import Path

Verbs = argparse._SubParsersAction  # what `add_subparsers` gives


def add(verb: Verbs[argparse.ArgumentParser]) -> None:
    """Add `coordinator` with its verbs."""
    top = verb.add_parser("coordinator", help="operate the coordinator of a consortium")
    part = top.add_subparsers(required=True, metavar="VERB")
    _init(part)
    _people(part)
    _verb(part, "roster", "who has joined, who is invited, who is revoked, and the researchers")
    _verb(part, "status", "the studies in the queue")
    _verb(part, "serve", "serve partners and researchers, in the foreground")
    _verb(part, "renew", "a new server key and certificate from the same authority")
    _audit(part)
    one = part.add_parser("service", help="print a hardened systemd unit")
    one.set_defaults(verb="service", module="coordinator_verbs")


def _init(part: Verbs[argparse.ArgumentParser]) -> None:
    one = _verb(part, "init", "make a coordinator: its own certificate authority, server certificate and database")
    one.add_argument("--name", required=True, metavar="NAME", help="of the coordinator, as partners and researchers know it")
    one.add_argument("--address", required=True, metavar="HOST:PORT", help="where partners and researchers reach it")
    one.add_argument("--listen", default=None, metavar="HOST:PORT", help="where it listens (default: 0.0.0.0, the same port)")


def _people(part: Verbs[argparse.ArgumentParser]) -> None:
    one = _verb(part, "invite", "write an invitation for a partner, which admits one node, once")
    one.add_argument("partner", metavar="PARTNER")
    one.add_argument("--hours", type=float, default=72.0, metavar="H", help="how long it holds (default 72)")
    one.add_argument("--out", type=Path, default=None, metavar="FILE", help="default: PARTNER.invitation.toml")

    one = _verb(part, "revoke", "end a partner's membership; its key never comes back")
    one.add_argument("partner", metavar="PARTNER")

    one = _verb(part, "welcome", "write an access file for a researcher; an earlier one ends")
    one.add_argument("researcher", metavar="RESEARCHER")
    one.add_argument("--out", type=Path, default=None, metavar="FILE", help="default: RESEARCHER.access.toml")

    one = _verb(part, "dismiss", "end a researcher's access")
    one.add_argument("researcher", metavar="RESEARCHER")


def _audit(part: Verbs[argparse.ArgumentParser]) -> None:
    one = part.add_parser("audit", help="the audit log: who did what, when")
    each = one.add_subparsers(required=True, metavar="show|verify")
    _verb(each, "show", "every event", function="audit_show")
    _verb(each, "verify", "walk the hash chain", function="audit_verify")


def _verb(part: Verbs[argparse.ArgumentParser], name: str, what: str, function: str | None = None) -> argparse.ArgumentParser:
    one = part.add_parser(name, help=what)
    one.add_argument(
        "--home", type=Path, default=None, metavar="DIR", help="default: $AHH_COORDINATOR_HOME or ~/.ahh/coordinator"
    )
    one.set_defaults(verb=function or name, module="coordinator_verbs")
    return one
