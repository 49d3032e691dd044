"""The verbs of a researcher who works with a coordinator."""

from __future__ import annotations

import argparse
from pathlib import Path

Verbs = argparse._SubParsersAction  # what `add_subparsers` gives
_STUDY = "the study's file, its id, or the beginning of its digest"


def add(verb: Verbs[argparse.ArgumentParser]) -> None:
    """Add login, submit, status, wait, fetch and cancel."""
    one = verb.add_parser("login", help="keep the access file that a coordinator's operator sent")
    one.add_argument("file", type=Path, metavar="FILE")
    one.set_defaults(verb="login", module="researcher_verbs")

    one = _verb(verb, "submit", "hand a study in at a coordinator")
    one.add_argument("study", type=Path, metavar="STUDY.toml")

    one = _verb(verb, "status", "which partner is at which step, or every study of a coordinator")
    one.add_argument("study", nargs="?", metavar="STUDY", help=_STUDY)

    one = _verb(verb, "wait", "follow a study until it is done")
    one.add_argument("study", metavar="STUDY", help=_STUDY)

    one = _verb(verb, "fetch", "download a study that is done, compute every number, write the report")
    one.add_argument("study", metavar="STUDY", help=_STUDY)
    one.add_argument("--out", type=Path, required=True, metavar="OUT", help="where report, results, model and transcript go")

    one = _verb(verb, "cancel", "stop a study of one's own")
    one.add_argument("study", metavar="STUDY", help=_STUDY)


def _verb(verb: Verbs[argparse.ArgumentParser], name: str, what: str) -> argparse.ArgumentParser:
    one = verb.add_parser(name, help=what)
    one.add_argument("--coordinator", default=None, metavar="NAME", help="may be left out when only one is known")
    one.set_defaults(verb=name, module="researcher_verbs")
    return one
