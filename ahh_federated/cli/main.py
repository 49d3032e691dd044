"""The command `ahh`: every verb, and how errors are told."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ahh_federated.cli import coordinator_parser, node_parser, predict_verb, researcher_parser
from ahh_federated.errors import AhhError, Refusal
from ahh_federated.version import VERSION

MISUSE, REFUSED = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status is 0, 2 for a misuse or a broken file, 3 for a refusal."""
    parsed = parser().parse_args(arguments)
    try:
        module = import_module(f"ahh_federated.cli.{parsed.module}")  # what a verb needs is loaded for that verb only
        return int(getattr(module, parsed.verb)(parsed))
    except Refusal as error:
        print(f"ahh: refused: {error}", file=sys.stderr)
        return REFUSED
    except AhhError as error:
        print(f"ahh: {error}", file=sys.stderr)
        return MISUSE
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ahh: stopped; what was released is in the ledger, and the same command goes on from there", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All verbs and options; tests hold the manual against it."""
    top = argparse.ArgumentParser(prog="ahh", description="Federated statistics and risk models under differential privacy.")
    top.add_argument("--version", action="version", version=f"ahh {VERSION}")
    top.set_defaults(module="verbs")
    verb = top.add_subparsers(required=True, metavar="VERB")
    _quote(verb)
    _run(verb)
    _replay(verb)
    _report(verb)
    _ledger(verb)
    predict_verb.add(verb)
    researcher_parser.add(verb)
    node_parser.add(verb)
    coordinator_parser.add(verb)
    return top


def _quote(verb: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = verb.add_parser("quote", help="what a study costs, and how precise its numbers will be, before anything is asked")
    one.add_argument("study", type=Path, metavar="STUDY.toml")
    one.add_argument("--patients", type=_sizes, default=None, metavar="N,N", help="patients per partner (default 500,2000,20000)")
    one.add_argument("--partners", type=int, default=None, metavar="K", help="partners (default: the study's minimum)")
    one.set_defaults(verb="quote")


def _run(verb: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = verb.add_parser("run", help="run a study on tables that lie on this machine, or at a coordinator")
    one.add_argument("study", type=Path, metavar="STUDY.toml")
    where = one.add_mutually_exclusive_group(required=True)
    where.add_argument("--partners", type=Path, metavar="DIR", help="a folder with one CSV or Parquet table per partner")
    where.add_argument("--coordinator", metavar="NAME", help="submit it there, follow it, and fetch the answers")
    one.add_argument("--out", type=Path, required=True, metavar="OUT", help="where report, results, model and transcript go")
    one.add_argument("--engine", choices=("local", "flower"), default="local", help="direct calls, or Flower's messages")
    one.add_argument("--seed", type=int, default=None, metavar="N", help="fixed noise; synthetic or public data only")
    one.add_argument("--exact", action="store_true", help="no noise at all; synthetic or public data only")
    one.set_defaults(verb="run")


def _replay(verb: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = verb.add_parser("replay", help="recompute every number of a run from its transcript and compare")
    one.add_argument("out", type=Path, metavar="OUT")
    one.set_defaults(verb="replay")


def _report(verb: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = verb.add_parser("report", help="write the report of a run again from its results")
    one.add_argument("out", type=Path, metavar="OUT")
    one.set_defaults(verb="report")


def _ledger(verb: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = verb.add_parser("ledger", help="what has been spent, and whether the record is whole")
    part = one.add_subparsers(required=True, metavar="show|verify")
    for name, function, what in (
        ("show", "ledger_show", "every entry and what is left"),
        ("verify", "ledger_verify", "walk the hash chain"),
    ):
        each = part.add_parser(name, help=what)
        each.add_argument("partners", type=Path, metavar="DIR", help="the folder of the tables, or one ledger file")
        each.set_defaults(verb=function)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 500,2000,20000") from None
    if not all(1 <= size <= 1_000_000 for size in sizes):
        raise argparse.ArgumentTypeError("a size is from 1 to 1000000 patients")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
