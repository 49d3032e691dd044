"""Patients made up from a study's declarations alone; nothing is looked at.

A measured value is normal around the middle of its range with a tenth of the range as standard deviation, which is
how far clinical values mostly spread in ranges wide enough to hold everybody; levels are equally likely; nothing is
missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
from scipy.special import ndtri

from ahh_federated.coordinator.session import Outcome, Session, Silent
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.entropy import Entropy
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.runtimes.local import LocalLink
from ahh_federated.study import Study
from ahh_federated.study.declarations import FOLD, Folds

_SPREAD = 0.1  # of the range
_SEED = 20_260  # of the made-up patients; the noise is fresh


def simulate(study: Study, patients: int, partners: int) -> list[Outcome]:
    """Run a study through the true gate on `partners` made-up partners of `patients` patients each."""
    entropy = Entropy.seeded(_SEED)
    policy = Policy(budget=study.budget, minimum_cohort=1)
    desks = {}
    for k in range(partners):
        name = f"partner-{k + 1}"
        cohort = _cohort(study, patients, entropy.derive(name.encode()))
        desks[name] = Desk(name, study, cohort, Ledger.in_memory(dataset=name, budget=study.budget), policy, Entropy.system())
    link = LocalLink(desks, min(date.today(), study.expires))
    return Session(study, link, lambda exchange: None, Silent()).outcomes()


def _cohort(study: Study, n: int, entropy: Entropy) -> Cohort:
    columns = {}
    for name, column in study.columns.items():
        u = _uniform(n, entropy)
        if isinstance(column, Numeric):
            spread = _SPREAD * (column.high - column.low)
            columns[name] = np.clip((column.low + column.high) / 2 + spread * ndtri(u), column.low, column.high)
        else:
            columns[name] = np.floor(u * len(column.levels))
    cohort = Cohort.of(columns, n)
    derived = {name: case.when.case(cohort) for name, case in study.cases.items()}
    if study.fold is not None:
        folds = study.patient.folds
        shares = folds.shares if isinstance(folds, Folds) else _even(len(study.fold.levels))
        derived[FOLD] = np.searchsorted(np.cumsum(shares)[:-1], _uniform(n, entropy), side="right").astype(np.float64)
    return Cohort.of({**columns, **derived}, n)


def _even(count: int) -> Sequence[float]:
    return [1 / count] * count


def _uniform(n: int, entropy: Entropy) -> F64:
    """Numbers strictly between 0 and 1, shape (n,)."""
    return np.asarray(((entropy.words(n) >> np.uint64(12)) + 0.5) * 2.0**-52)
