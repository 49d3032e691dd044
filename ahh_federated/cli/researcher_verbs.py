"""What the verbs of a researcher who works with a coordinator do."""

from __future__ import annotations

import argparse
import sys

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ahh_federated.coordinator.queue import State
from ahh_federated.lab import remote
from ahh_federated.lab.following import Following
from ahh_federated.lab.remote import Coordinator, StudyStatus
from ahh_federated.lab.studies import StudyResults


def login(asked: argparse.Namespace) -> int:
    access = remote.login(asked.file).access
    print(f"{access.researcher} has access to the coordinator {access.coordinator} at {access.address}")
    print(f"The secret is kept now; delete {asked.file}")
    return 0


def submit(asked: argparse.Namespace) -> int:
    status = _coordinator(asked).submit(asked.study)
    print(f"{status} (digest {status.digest[:12]})")
    print(f"Follow it with `ahh wait {status.digest[:12]}`")
    return 0


def status(asked: argparse.Namespace) -> int:
    console = Console()
    coordinator = _coordinator(asked)
    if asked.study is None:
        console.print(_studies(coordinator))
    else:
        _show(console, coordinator.status(asked.study))
    return 0


def wait(asked: argparse.Namespace) -> int:
    """Status 0 when the study has answers, 3 when it has none, failed, or was cancelled."""
    console = Console()
    over = _follow(console, _coordinator(asked), asked.study)
    console.print(escape(str(over)), highlight=False)
    return 0 if over.state is State.DONE and not over.reason else 3


def fetch(asked: argparse.Namespace) -> int:
    return _kept(asked, _coordinator(asked).fetch(asked.study, asked.out))


def cancel(asked: argparse.Namespace) -> int:
    print(f"{_coordinator(asked).cancel(asked.study)}; what partners have released and paid stays so")
    return 0


def run(asked: argparse.Namespace) -> int:
    """`ahh run STUDY --coordinator NAME --out OUT`: submit, follow, fetch."""
    console = Console()
    coordinator = _coordinator(asked)
    digest = coordinator.submit(asked.study).digest
    over = _follow(console, coordinator, digest)
    if over.state is not State.DONE:
        print(f"ahh: {over}", file=sys.stderr)
        return 3
    return _kept(asked, coordinator.fetch(digest, asked.out))


def _coordinator(asked: argparse.Namespace) -> Coordinator:
    return remote.connect(asked.coordinator)


def _follow(console: Console, coordinator: Coordinator, study: str) -> StudyStatus:
    try:
        with Following(console) as watcher:
            return coordinator.wait(study, watcher)
    except KeyboardInterrupt:
        print("ahh: no longer following; the study goes on at the coordinator, until `ahh cancel`", file=sys.stderr)
        raise


def _kept(asked: argparse.Namespace, results: StudyResults) -> int:
    from ahh_federated.cli.verbs import show

    show(Console(), results, asked.out)
    return 0 if any(ask["status"] == "released" for ask in results.data["asks"]) else 3


def _studies(coordinator: Coordinator) -> Table:
    table = Table(title=f"Studies at {coordinator.access.coordinator}", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("study", "digest", "yours", "state", "submitted (UTC)"):
        table.add_column(heading, no_wrap=True)
    for each in coordinator.status():
        state = f"{each.state}, place {each.position}" if each.position else str(each.state)
        submitted = each.submitted[:16].replace("T", " ")
        table.add_row(escape(each.id), escape(each.digest[:12]), "yes" if each.mine else "", state, escape(submitted))
    return table


def _show(console: Console, status: StudyStatus) -> None:
    console.print(escape(str(status)), highlight=False)
    if not status.partners:
        return
    table = Table(title=escape(status.step) or None, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("partner", no_wrap=True)
    table.add_column("said last")
    for name, what in status.partners.items():
        table.add_row(escape(name), escape(what))
    console.print(table)
