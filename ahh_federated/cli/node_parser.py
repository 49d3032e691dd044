"""The verbs `ahh node ...`: what a partner's IT department and data steward type."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

Verbs = argparse._SubParsersAction


def add(verb: Verbs[argparse.ArgumentParser]) -> None:
    """Add `node` and everything below it; `module` says where the functions that `verb` names are."""
    node = verb.add_parser("node", help="what a partner does: set up a node, decide on studies, serve")
    part = node.add_subparsers(required=True, metavar="VERB")
    _setup(part)
    _looking(part)
    _serving(part)
    _deciding(part)
    _ledger(part)
    _keeping(part)


def _one(part: Verbs[argparse.ArgumentParser], name: str, function: str, what: str) -> argparse.ArgumentParser:
    one = part.add_parser(name, help=what)
    one.add_argument("--home", type=Path, default=None, metavar="DIR", help="the node's folder ($AHH_NODE_HOME or ~/.ahh/node)")
    one.set_defaults(verb=function, module="node_verbs")
    return one


def _setup(part: Verbs[argparse.ArgumentParser]) -> None:
    one = _one(part, "init", "init", "make a node: key, commented settings, rules that allow nothing yet, an empty ledger")
    one.add_argument("--name", default="", metavar="NAME", help="of the data set (default: this machine's name)")
    one = _one(part, "join", "join", "join a consortium with the file that its coordinator sent")
    one.add_argument("invitation", type=Path, metavar="INVITATION")
    one = _one(part, "leave", "leave", "leave a consortium; ledger, decisions and audit log stay")
    one.add_argument("consortium", metavar="CONSORTIUM")
    one = _one(part, "connect", "connect", "point at the patients' table, and read it once")
    one.add_argument("table", type=Path, nargs="?", default=None, metavar="TABLE", help="a CSV or Parquet file")
    one.add_argument("--sql", default="", metavar="URL", help="a database instead, without a password in it")
    one.add_argument("--query-file", type=Path, default=None, metavar="FILE", help="the SELECT that gives the table")
    one.add_argument("--password-file", type=Path, default=None, metavar="FILE", help="where the database's password is")
    one.add_argument("--password-env", default="", metavar="NAME", help="which environment variable has the password")
    one.add_argument("--allow", default="", metavar="all|COL,COL", help="columns that studies may touch, into policy.toml")


def _looking(part: Verbs[argparse.ArgumentParser]) -> None:
    one = _one(part, "check", "check", "hold the table against a study's columns; nothing leaves")
    one.add_argument("study", nargs="?", default="", metavar="STUDY", help="id, digest or file (default: all proposed)")
    _one(part, "doctor", "doctor", "look at everything a node needs, one line each")


def _serving(part: Verbs[argparse.ArgumentParser]) -> None:
    _one(part, "serve", "serve", "answer approved studies, in the foreground, until stopped")
    one = _one(part, "service", "service", "print a hardened systemd unit for `serve`")
    one.add_argument("--user", default="ahh", metavar="NAME", help="the system user that the node belongs to (default ahh)")
    _one(part, "pause", "pause", "answer nothing from now on, also while serving")
    _one(part, "resume", "resume", "answer again")


def _deciding(part: Verbs[argparse.ArgumentParser]) -> None:
    _one(part, "studies", "studies", "every study that was proposed, and what was decided")
    one = _one(part, "inspect", "inspect", "a study in plain words: who, why, which columns, what leaves, at what cost")
    one.add_argument("study", metavar="STUDY")
    one = _one(part, "approve", "approve", "let a study be answered, up to a ceiling and a day")
    one.add_argument("study", metavar="STUDY")
    one.add_argument("--ceiling", type=float, default=None, metavar="EPS", help="the most it may spend (default: its epsilon)")
    one.add_argument("--until", type=_day, default=None, metavar="DATE", help="the last day (default: the study's own)")
    _by(one)
    one = _one(part, "refuse", "refuse", "say no to a study")
    one.add_argument("study", metavar="STUDY")
    _by(one)
    one = _one(part, "revoke", "revoke", "take an approval back, from the next message on")
    one.add_argument("study", metavar="STUDY")
    _by(one)
    one = _one(part, "optout", "optout", "leave patients out of everything from the next question on")
    one.add_argument("file", type=Path, metavar="FILE", help="one pseudonym a line")


def _by(one: argparse.ArgumentParser) -> None:
    one.add_argument("--by", default="", metavar="NAME", help="who decides, for the record (default: the user's name)")


def _ledger(part: Verbs[argparse.ArgumentParser]) -> None:
    ledger = part.add_parser("ledger", help="what has been spent: show, verify, export, recover")
    inner = ledger.add_subparsers(required=True, metavar="show|verify|export|recover")
    _one(inner, "show", "ledger_show", "every payment and what is left")
    _one(inner, "verify", "ledger_verify", "walk the hash chain")
    one = _one(inner, "export", "ledger_export", "every entry, without the bytes that were released")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("--csv", action="store_true", help="as CSV instead of JSON lines")
    _one(inner, "recover", "ledger_recover", "after a restored backup: pay for what the backup forgot, and go on")


def _keeping(part: Verbs[argparse.ArgumentParser]) -> None:
    one = _one(part, "incident", "incident", "pack logs, costs and settings into one file, without a patient in it")
    one.add_argument("--out", type=Path, default=None, metavar="FILE", help="the zip to write (default: a name with the time)")
    audit = part.add_parser("audit", help="the node's audit log: show, verify")
    inner = audit.add_subparsers(required=True, metavar="show|verify")
    _one(inner, "show", "audit_show", "every event, oldest first")
    _one(inner, "verify", "audit_verify", "walk the hash chain")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day like 2027-12-31") from None
