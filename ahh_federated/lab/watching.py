"""Watching a run as live progress in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ahh_federated.coordinator.session import Outcome
from ahh_federated.core.releases import Status
from ahh_federated.study import Ask
from ahh_federated.wire import Reply


def lines(console: Console) -> Progress:
    """One line for each thing that goes on, with its steps and a `note`."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


class Live:
    """One line an ask: its steps, and how many partners answered the last one."""

    def __init__(self, console: Console) -> None:
        self._progress = lines(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def began(self, ask: Ask, steps: int) -> None:
        self._tasks[ask.id] = self._progress.add_task(ask.id, total=steps, note="asking")

    def stepped(self, ask: Ask, number: int, replies: Mapping[str, Reply]) -> None:
        released = sum(reply.status is Status.RELEASED for reply in replies.values())
        self._progress.update(self._tasks[ask.id], completed=number + 1, note=f"{released} of {len(replies)} partners")

    def ended(self, outcome: Outcome) -> None:
        task = self._tasks.get(outcome.ask.id)
        if task is None:
            task = self._progress.add_task(outcome.ask.id, total=1, note="")
        self._progress.update(task, note=str(outcome.status))
