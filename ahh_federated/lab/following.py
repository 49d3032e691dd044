"""Following a study at a coordinator as live progress in a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from ahh_federated.coordinator.queue import State
from ahh_federated.errors import Unreachable
from ahh_federated.lab.remote import StudyStatus
from ahh_federated.lab.watching import lines
from ahh_federated.runtimes.https import plain


class Following:
    """One line for the queue, one for the approvals, and one an ask: its steps, and how many partners answered the last one."""

    def __init__(self, console: Console) -> None:
        self._progress = lines(console)
        self._lines: dict[str, TaskID] = {}
        self._lost = False
        self._told = ""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def moved(self, status: StudyStatus) -> None:
        if self._lost:
            self._say("[green]the coordinator answers again")
        self._lost = False
        log = not self._progress.console.is_terminal  # which has no lines that change
        if log and not status.state.over and str(status) != self._told:
            self._told = str(status)
            self._say(escape(self._told))
        partners = status.partners
        if status.state is State.QUEUED and status.position:
            self._line("queue", 0, 1, f"place {status.position}")
        elif status.state is State.WAITING:
            self._end("queue")
            approved = sum(what == "approved" for what in partners.values())
            open_ = [name for name, what in partners.items() if what.partition(":")[0] not in ("approved", "refused")]
            self._line("approvals", approved, len(partners), f"to come: {', '.join(open_)}" if open_ else "")
        elif status.state in (State.RUNNING, State.DONE):
            self._asks(status.progress, partners, done=status.state is State.DONE)

    def lost(self, error: Unreachable) -> None:
        if not self._lost:
            self._say(f"[yellow]{escape(str(error))}; the study goes on without you, and this waits for the coordinator")
        self._lost = True

    def _asks(self, progress: Any, partners: dict[str, str], *, done: bool) -> None:
        """All asks before the one that is asked now have ended."""
        told, ask, step, of = (progress.get(name) for name in ("asks", "ask", "step", "of"))
        asks = [plain(str(each)) for each in told] if isinstance(told, list) else []
        here = asks.index(ask) if ask in asks else -1
        for name in ("queue", "approvals", *(asks if done else asks[: max(here, 0)])):
            self._end(name, create=name in asks)
        if not done and here >= 0 and isinstance(step, int) and isinstance(of, int):
            released = sum(what == "released" for what in partners.values())
            self._line(asks[here], step, of, f"{released} of {len(partners)} partners" if step else "asking")

    def _line(self, name: str, completed: int, total: int, note: str) -> None:
        if name not in self._lines:
            self._lines[name] = self._progress.add_task(escape(name), total=total, note="")
        self._progress.update(self._lines[name], completed=completed, total=total, note=escape(note))

    def _end(self, name: str, *, create: bool = False) -> None:
        if name not in self._lines and create:
            self._line(name, 0, 1, "")
        line = self._lines.get(name)
        if line is not None:
            total = next(task.total for task in self._progress.tasks if task.id == line)
            self._progress.update(line, completed=total or 1, note="")

    def _say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)
