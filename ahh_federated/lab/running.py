"""Running a study on tables that lie on this machine: a folder, or data frames."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TextIO

import pandas as pd

from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Link, Outcome, Session, Watcher
from ahh_federated.coordinator.transcript import (
    Exchange,
    Header,
    Spending,
    dump_exchange,
    dump_header,
    dump_spending,
    read_transcript,
)
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.entropy import Entropy
from ahh_federated.errors import Misuse
from ahh_federated.lab.watching import Silent
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy, read_policy
from ahh_federated.node.tables import find_tables, load_cohort, read_table
from ahh_federated.runtimes.local import ExactLink, LocalLink
from ahh_federated.runtimes.replay import ReplayLink
from ahh_federated.study import Study
from ahh_federated.version import VERSION

TRANSCRIPT = "transcript.jsonl"
Partners = Path | str | Mapping[str, pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Mode:
    """How a run is made.  A seed and an exact run are for data declared synthetic or public only."""

    engine: str = "local"
    seed: int | None = None
    exact: bool = False

    def check(self, study: Study) -> None:
        if self.engine not in ("local", "flower"):
            raise Misuse(f"engine {self.engine!r} is not known: choose local or flower")
        for name, used in (("--seed", self.seed is not None), ("--exact", self.exact)):
            if used and not study.open_data:
                raise Misuse(
                    f'{name} works only where the study says data = "synthetic" or "public", and {study.id} says '
                    f'"{study.data}": whoever knows a seed sees through the noise; leave {name} out'
                )

    @property
    def stamp(self) -> str:
        if self.exact:
            return "NOT PRIVATE: exact run without noise"
        return "" if self.seed is None else "NOT PRIVATE: fixed seed"

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
        partners: a folder with one CSV or Parquet file per partner, whose ledgers live in its `.ahh`; or data frames by
            partner, whose ledgers live in memory and end with the call.
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
    cohorts = _cohorts(study, partners)
    if len(cohorts) < study.minimum_partners:
        needed = study.minimum_partners
        raise Misuse(f"{len(cohorts)} partners are there, the study needs {needed}: add tables or lower study.minimum_partners")
    header = Header(study, tuple(sorted(cohorts)), mode.stamp, mode.run, mode.exact)
    with contextlib.ExitStack() as stack:
        ledgers = {} if mode.exact else _ledgers(stack, partners, cohorts)
        record, exchanges, file = _recorder(stack, out, header)
        session_of = _sessions(study, mode, record, watcher)
        if mode.exact:
            outcomes = session_of(ExactLink(study, cohorts)).outcomes()
        else:
            desks = _desks(study, mode, cohorts, ledgers, tell or (lambda message: None))
            outcomes = _over(mode, desks, session_of)
        spending = {name: _spending(ledger, policy) for name, (ledger, policy) in ledgers.items()}
        if file is not None:
            file.write(dump_spending(spending))
    return Results(header, outcomes, exchanges, spending, VERSION)


def replay(folder: Path | str, watcher: Watcher | None = None) -> Results:
    """Recompute every number of an earlier run from its transcript alone."""
    header, exchanges, spending = read_transcript(Path(folder) / TRANSCRIPT)
    link = ReplayLink(header, exchanges)
    session = Session(header.study, link, lambda exchange: None, watcher or Silent(), header.run, header.exact)
    return Results(header, session.outcomes(), exchanges, spending, VERSION)


def _cohorts(study: Study, partners: Partners) -> dict[str, Cohort]:
    if isinstance(partners, Mapping):
        return {name: load_cohort(frame, study, name) for name, frame in partners.items()}
    tables = find_tables(Path(partners))
    return {name: load_cohort(read_table(path), study, path.name) for name, path in tables.items()}


def _ledgers(stack: contextlib.ExitStack, partners: Partners, cohorts: Mapping[str, Cohort]) -> dict[str, tuple[Ledger, Policy]]:
    ledgers = {}
    home = None if isinstance(partners, Mapping) else Path(partners) / ".ahh"
    policy = Policy() if home is None else read_policy(home / "policy.toml")
    for name in sorted(cohorts):
        if home is None:
            ledger = Ledger.in_memory(dataset=name, budget=policy.budget)
        else:
            ledger = Ledger.open(home / f"{name}.ledger", dataset=name, budget=policy.budget)
        ledgers[name] = (stack.enter_context(ledger), policy)
    return ledgers


def _desks(
    study: Study,
    mode: Mode,
    cohorts: Mapping[str, Cohort],
    ledgers: Mapping[str, tuple[Ledger, Policy]],
    tell: Callable[[str], None],
) -> dict[str, Desk]:
    entropy = mode.entropy()
    return {name: Desk(name, study, cohorts[name], *ledgers[name], entropy, mode.run, tell) for name in sorted(cohorts)}


def _over(mode: Mode, desks: Mapping[str, Desk], session_of: Callable[[Link], Session]) -> list[Outcome]:
    today = date.today()
    if mode.engine == "local":
        return list(session_of(LocalLink(desks, today)).outcomes())
    from ahh_federated.runtimes.flower.inprocess import run_in_process

    outcomes: list[Outcome] = []
    run_in_process(desks, today, lambda link: outcomes.extend(session_of(link).outcomes()))
    return outcomes


def _sessions(study: Study, mode: Mode, record: Callable[[Exchange], None], watcher: Watcher | None) -> Callable[[Link], Session]:
    def session(link: Link) -> Session:
        return Session(study, link, record, watcher or Silent(), mode.run, mode.exact)

    return session


def _recorder(
    stack: contextlib.ExitStack, out: Path | str | None, header: Header
) -> tuple[Callable[[Exchange], None], list[Exchange], TextIO | None]:
    exchanges: list[Exchange] = []
    file: TextIO | None = None
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        file = stack.enter_context((Path(out) / TRANSCRIPT).open("w", encoding="utf-8"))
        file.write(dump_header(header))

    def record(exchange: Exchange) -> None:
        exchanges.append(exchange)
        if file is not None:
            file.write(dump_exchange(exchange))
            file.flush()

    return record, exchanges, file


def _spending(ledger: Ledger, policy: Policy) -> Spending:
    budget = policy.budget
    return Spending(ledger.spent().epsilon(budget.delta), budget.epsilon, budget.delta)


def ledger_files(folder: Path) -> Iterator[Path]:
    """The ledgers that lie with the tables of a folder."""
    yield from sorted((folder / ".ahh").glob("*.ledger"))
