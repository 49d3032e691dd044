"""What each verb of `ahh` does; all of it is the library's own words plus printing."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ahh_federated.cli import tables
from ahh_federated.coordinator.transcript import TRANSCRIPT
from ahh_federated.core.costs import Budget, Spent
from ahh_federated.errors import Breach, Misuse
from ahh_federated.lab.quoting import SIZES
from ahh_federated.lab.quoting import quote as quote_study
from ahh_federated.lab.report import write_report
from ahh_federated.lab.studies import REPORT, RESULTS, StudyResults
from ahh_federated.lab.studies import replay as replay_study
from ahh_federated.lab.studies import run as run_study
from ahh_federated.lab.watching import Live
from ahh_federated.node.ledger import Ledger
from ahh_federated.runtimes.nodes import ledger_files
from ahh_federated.study import open_study

REPLAY_TOLERANCE = 1e-9


def quote(asked: argparse.Namespace) -> int:
    """The bill, as a table an ask."""
    study = open_study(asked.study)
    console = Console()
    with console.status("simulating the study at each size"):
        bill = quote_study(study, asked.patients or SIZES, partners=asked.partners)
    tables.bill(console, bill)
    return 0


def run(asked: argparse.Namespace) -> int:
    """Run, show progress and the main numbers, write the outputs."""
    if asked.coordinator is not None:
        return _run_there(asked)
    console = Console()
    errors = Console(stderr=True)
    study = open_study(asked.study)
    told: dict[str, None] = {}
    with Live(console) as live:
        results = run_study(
            study,
            asked.partners,
            out=asked.out,
            engine=asked.engine,
            seed=asked.seed,
            exact=asked.exact,
            watcher=live,
            tell=lambda message: told.setdefault(message),
        )
    for message in told:
        errors.print(f"[yellow]refused[/] {escape(message)}", highlight=False)
    show(console, results, asked.out)
    return 0 if any(ask["status"] == "released" for ask in results.data["asks"]) else 3


def _run_there(asked: argparse.Namespace) -> int:
    from ahh_federated.cli import researcher_verbs

    if asked.seed is not None or asked.exact or asked.engine != "local":
        raise Misuse("--seed, --exact and --engine are for tables on this machine: leave them out with --coordinator")
    return researcher_verbs.run(asked)


def show(console: Console, results: StudyResults, out: Path) -> None:
    """The numbers a researcher looks at first."""
    data = results.data
    if data["stamp"]:
        console.print(f"[bold red]{data['stamp']}[/]")
    tables.answers(console, data)
    for ask in data["asks"]:
        if ask["status"] != "released":
            console.print(f"{ask['id']}: [yellow]{ask['status']}[/] {escape(ask['reason'])}", highlight=False)
    spent = [partner for partner in data["partners"] if partner["epsilon_dataset"] is not None]
    if spent:
        most = max(spent, key=lambda partner: float(partner["epsilon_dataset"]))
        so_far = f"epsilon {most['epsilon_dataset']:.3g} of {most['epsilon_limit']:g} at delta {most['delta_limit']:g}"
        console.print(f"\nSpent over all studies, by the partner that spent most: {so_far}", highlight=False)
    models = sorted([*out.glob("model*.json"), *out.glob("model*.safetensors")])
    ours = [*(out / name for name in (REPORT, RESULTS, TRANSCRIPT)), *models]
    written = ", ".join(path.name for path in ours if path.exists())
    console.print(f"Written to {out}: {written}", highlight=False)
    console.print(f"Look at {out / REPORT}", highlight=False)


def replay(asked: argparse.Namespace) -> int:
    """Recompute from the transcript alone and hold every number against results.json."""
    recomputed = replay_study(asked.out).data
    stored = _results(asked.out)
    compared = _compare(stored, recomputed, "results")
    print(f"{compared} numbers recomputed from the transcript; all equal results.json to {REPLAY_TOLERANCE:g}")
    return 0


def report(asked: argparse.Namespace) -> int:
    write_report(_results(asked.out), asked.out / REPORT)
    print(asked.out / REPORT)
    return 0


def ledger_show(asked: argparse.Namespace) -> int:
    console = Console()
    for path in _ledgers(asked.partners):
        with Ledger.inspect(path) as ledger:
            console.print(_entries(path.name, ledger))
    return 0


def ledger_verify(asked: argparse.Namespace) -> int:
    whole = True
    for path in _ledgers(asked.partners):
        with Ledger.inspect(path) as ledger:
            verdict = ledger.verify()
        whole &= verdict.ok
        where = f" at entry {verdict.first_bad}" if verdict.first_bad else ""
        print(f"{path.name}: {'whole' if verdict.ok else f'BROKEN{where}'}: {verdict.why}")
    return 0 if whole else 3


def _ledgers(place: Path) -> list[Path]:
    found = [place] if place.is_file() else list(ledger_files(place))
    if not found:
        raise Misuse(f"{place} holds no ledger: give the folder of the tables after a first run, or a ledger file")
    return found


def _entries(name: str, ledger: Ledger) -> Table:
    table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("entry", "time (UTC)", "study", "ask:step", "query", "epsilon alone"):
        table.add_column(heading, no_wrap=True)
    budget: Budget | None = None
    for entry in ledger.entries():
        if entry.kind == "release":  # follows its debit
            continue
        if entry.kind == "budget" and entry.epsilon and entry.delta:
            budget = Budget(entry.epsilon, entry.delta)
        cost = ""
        if entry.event is not None and budget is not None:
            cost = f"{Spent.of([entry.event]).epsilon(budget.delta):.3g}"
        elif entry.kind == "budget":
            cost = f"limit {entry.epsilon:g}"
        table.add_row(
            str(entry.seq),
            entry.time[5:16].replace("T", " "),
            (entry.study or "")[:8],
            entry.ask or entry.kind,
            entry.query or "",
            cost,
        )
    if budget is not None:
        spent = ledger.spent().epsilon(budget.delta)
        table.caption = f"spent epsilon {spent:.4g} of {budget.epsilon:g} at delta {budget.delta:g}"
    return table


def _results(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"{out / RESULTS} cannot be read ({error.strerror}): give the folder that `ahh run --out` wrote") from None
    except ValueError:
        raise Breach(f"{out / RESULTS} is not JSON") from None
    if not isinstance(content, dict):
        raise Breach(f"{out / RESULTS} is not a table of results")
    return content


def _compare(stored: Any, recomputed: Any, where: str) -> int:
    """How many numbers agree; Breach at the first that does not."""
    if isinstance(stored, dict) and isinstance(recomputed, dict) and stored.keys() == recomputed.keys():
        return sum(_compare(stored[key], recomputed[key], f"{where}.{key}") for key in stored)
    if isinstance(stored, list) and isinstance(recomputed, list) and len(stored) == len(recomputed):
        return sum(_compare(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(stored, recomputed, strict=True)))
    numbers = isinstance(stored, int | float) and isinstance(recomputed, int | float) and not isinstance(stored, bool)
    if numbers and math.isclose(stored, recomputed, rel_tol=REPLAY_TOLERANCE, abs_tol=REPLAY_TOLERANCE):
        return 1
    if stored != recomputed:
        raise Breach(f"{where} does not follow from the transcript: one of the two files was changed")
    return 0
