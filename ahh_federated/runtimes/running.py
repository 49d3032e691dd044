"""Running a study on tables that lie on this machine, over either engine, and replaying one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Link, Outcome, Session, Silent, Watcher
from ahh_federated.coordinator.transcript import TRANSCRIPT, Header, Recorder, read_transcript
from ahh_federated.core.entropy import Entropy
from ahh_federated.errors import Misuse
from ahh_federated.node.desk import Desk
from ahh_federated.runtimes.local import ExactLink, LocalLink
from ahh_federated.runtimes.nodes import Partners, open_nodes
from ahh_federated.runtimes.replay import ReplayLink
from ahh_federated.study import Study
from ahh_federated.version import VERSION


@dataclass(frozen=True, slots=True)
class Mode:
    """How a run is made.  A seed and an exact run are for data declared synthetic or public only."""

    engine: str = "local"
    seed: int | None = None
    exact: bool = False

    @property
    def unprivate(self) -> str | None:
        """What gives the promise up, if anything does."""
        if self.exact:
            return "an exact run"
        return None if self.seed is None else "a fixed seed"

    def check(self, study: Study) -> None:
        if self.engine not in ("local", "flower"):
            raise Misuse(f"engine {self.engine!r} is not known: choose local or flower")
        if self.unprivate and not study.open_data:
            raise Misuse(
                f'{self.unprivate} works only where the study says data = "synthetic" or "public", and {study.id} says '
                f'"{study.data}": leave it out, since the answers would not be private'
            )

    @property
    def run(self) -> str:
        return "" if self.seed is None else f"+seed{self.seed}"

    def entropy(self) -> Entropy:
        return Entropy.system() if self.seed is None else Entropy.seeded(self.seed)


def run(
    study: Study,
    partners: Partners,
    *,
    out: Path | str | None = None,
    mode: Mode | None = None,
    watcher: Watcher | None = None,
    tell: Callable[[str], None] | None = None,
) -> Results:
    """Run a study on one machine.

    Args:
        study: an opened study.
        partners: a folder of tables, or data frames by partner; see `open_nodes`.
        out: where the transcript is written, step by step.
        mode: engine, seed, exact.
        watcher: told of progress.
        tell: given the reason of every refusal, as the node's own operator would read it.

    Raises:
        Misuse: when the study or the mode cannot work.
        Refusal: when a table or a ledger cannot be used; nothing has been spent then.
    """
    mode = mode or Mode()
    mode.check(study)
    nodes = open_nodes(study, partners)
    if mode.unprivate:
        nodes.refuse_if_real(mode.unprivate)
    header = Header(study, tuple(sorted(nodes.cohorts)), mode.run, mode.exact)
    with ExitStack() as stack:
        ledgers = {} if mode.exact else nodes.ledgers(stack, study, mode.run)
        recorder = stack.enter_context(Recorder(header, out))

        def outcomes(link: Link) -> list[Outcome]:
            return Session(study, link, recorder.record, watcher or Silent(), mode.run, mode.exact).outcomes()

        if mode.exact:
            found = outcomes(ExactLink(study, nodes.cohorts))
        else:
            desks = nodes.desks(study, ledgers, mode.entropy(), mode.run, tell or _nobody)
            found = _over_flower(desks, outcomes) if mode.engine == "flower" else outcomes(LocalLink(desks, date.today()))
        spending = nodes.spending(ledgers)
        recorder.finish(spending)
    return Results(header, found, recorder.exchanges, spending, VERSION)


def replay(folder: Path | str, watcher: Watcher | None = None) -> Results:
    """Recompute every number of an earlier run from its transcript alone."""
    header, exchanges, spending = read_transcript(Path(folder) / TRANSCRIPT)
    link = ReplayLink(header, exchanges)
    session = Session(header.study, link, lambda exchange: None, watcher or Silent(), header.run, header.exact, strict=True)
    return Results(header, session.outcomes(), exchanges, spending, VERSION)


def _over_flower(desks: dict[str, Desk], outcomes: Callable[[Link], list[Outcome]]) -> list[Outcome]:
    from ahh_federated.runtimes.flower.inprocess import run_in_process  # half a second to import

    found: list[Outcome] = []
    run_in_process(desks, date.today(), lambda link: found.extend(outcomes(link)))
    return found


def _nobody(message: str) -> None:
    """Nobody to tell."""
