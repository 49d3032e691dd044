"""The nodes of all partners whose tables lie on this machine: their cohorts, policies, ledgers and desks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ahh_federated.coordinator.transcript import Spending
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Spent
from ahh_federated.core.entropy import Entropy
from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import OPEN, Policy, read_policy
from ahh_federated.node.tables import Frame, find_tables, load_cohort, read_table
from ahh_federated.study import Study

Partners = Path | str | Mapping[str, Frame]
HOME = ".ahh"
POLICY = "policy.toml"
_SUFFIX = ".ledger"


@dataclass(frozen=True, slots=True)
class Nodes:
    """Cohorts by partner, and the one policy of their folder.  Data frames have no home: their ledgers end with the call."""

    cohorts: Mapping[str, Cohort]
    policy: Policy
    home: Path | None

    def refuse_if_real(self, what: str) -> None:
        """Raises Misuse when the partners' own policy says that the data are real."""
        if self.policy.data not in OPEN:
            where = HOME if self.home is None else self.home / POLICY
            raise Misuse(f'{what} is refused by {where}, which says data = "{self.policy.data}": leave it out')

    def ledgers(self, stack: ExitStack, study: Study, run: str) -> dict[str, Ledger]:
        """Open every partner's ledger until the stack closes.

        Raises:
            Refusal: when one is not whole, or has too little left for what the study still costs; nothing was asked then.
        """
        opened = {name: stack.enter_context(self._ledger(name)) for name in sorted(self.cohorts)}
        for name, ledger in opened.items():
            verdict = ledger.verify()
            if not verdict.ok:
                raise Refusal(Reason.LEDGER, f"the ledger of {name} is broken: {verdict.why}; put an undamaged copy back")
            self._check_budget(name, ledger, study, run)
        return opened

    def _check_budget(self, name: str, ledger: Ledger, study: Study, run: str) -> None:
        whole, paid, asked = ledger.spent(), ledger.spent(study.digest + run), study.cost
        after = Spent(whole.mu_squared + asked.mu_squared - paid.mu_squared, whole.slack + asked.slack - paid.slack)
        budget = self.policy.budget
        if not after.within(budget) and after.mu_squared > whole.mu_squared:
            now, then = whole.epsilon(budget.delta), after.epsilon(budget.delta)
            spent = f"{name} has spent epsilon {now:.3g} of {budget.epsilon:g} at delta {budget.delta:g}"
            fix = f"lower the study's epsilon, or let the data steward raise the budget in {HOME}/{POLICY}"
            raise Refusal(Reason.BUDGET, f"{spent}, and with this study it would be {then:.3g}: {fix}")

    def _ledger(self, name: str) -> Ledger:
        if self.home is None:
            return Ledger.in_memory(dataset=name, budget=self.policy.budget)
        return Ledger.open(self.home / f"{name}{_SUFFIX}", dataset=name, budget=self.policy.budget)

    def desks(
        self, study: Study, ledgers: Mapping[str, Ledger], entropy: Entropy, run: str, tell: Callable[[str], None]
    ) -> dict[str, Desk]:
        desks = {}
        for name, ledger in ledgers.items():
            desks[name] = Desk(name, study, self.cohorts[name], ledger, self.policy, entropy, run, tell)
        return desks

    def spending(self, ledgers: Mapping[str, Ledger]) -> dict[str, Spending]:
        """What each data set has spent over all studies; nothing to say where no ledger is kept."""
        if self.home is None:
            return {}
        epsilon, delta = self.policy.budget.epsilon, self.policy.budget.delta
        return {name: Spending(ledger.spent().epsilon(delta), epsilon, delta) for name, ledger in ledgers.items()}


def open_nodes(study: Study, partners: Partners) -> Nodes:
    """Load every partner's table as the study declares it.

    Args:
        study: an opened study.
        partners: a folder with one CSV or Parquet file per partner, whose policy and ledgers live in its `.ahh`; or data
            frames by partner.

    Raises:
        Misuse: when there are fewer partners than the study needs.
        Refusal: when a table cannot be used; nothing has been spent then.
    """
    if isinstance(partners, Mapping):
        for name, frame in partners.items():
            if not hasattr(frame, "columns"):
                fix = "give the folder of the tables itself, or data frames by partner"
                raise Misuse(f"partners[{name!r}] is a {type(frame).__name__}, not a data frame: {fix}")
        cohorts = {name: load_cohort(frame, study, name) for name, frame in partners.items()}
        home, policy = None, Policy(data=study.data)
    else:
        tables = find_tables(Path(partners))
        cohorts = {name: load_cohort(read_table(path), study, path.name) for name, path in tables.items()}
        home = Path(partners) / HOME
    if len(cohorts) < study.minimum_partners:
        needed = study.minimum_partners
        raise Misuse(f"{len(cohorts)} partners are there, the study needs {needed}: add tables or lower study.minimum_partners")
    if home is not None:
        _check_names(home, cohorts)
        policy = read_policy(home / POLICY, study.data)
    return Nodes(cohorts, policy, home)


def ledger_files(folder: Path) -> Iterator[Path]:
    """The ledgers that lie with the tables of a folder."""
    yield from sorted((folder / HOME).glob(f"*{_SUFFIX}"))


def _check_names(home: Path, cohorts: Mapping[str, Cohort]) -> None:
    """A renamed table would start with a fresh budget."""
    for path in ledger_files(home.parent):
        if path.name.removesuffix(_SUFFIX) not in cohorts:
            raise Refusal(
                Reason.LEDGER,
                f"{HOME}/{path.name} has no table: give the table its old name back; if the partner has left for good, move "
                f"the ledger to {HOME}/retired/",
            )
