"""An attacker audits plans of sampled sums, as test_audit.py does plain releases, with the best statistic there is.

The attacker knows everybody but the target, asks for sums in which the target stands alone in one cell, and adds up the
log likelihood ratios of a sampled target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ahh_federated.analyses.counts import CellCounts
from ahh_federated.core import gate
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.columns import Levels
from ahh_federated.core.costs import SAMPLED, Budget, Event, Spent
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.noise import discrete_gaussian
from ahh_federated.core.sampling import RATE_ONE
from tests.statistics.test_audit import DELTA, Books, least_epsilon

ROW = 1 << 20
SEX = Levels("sex", ("boy", "girl"))
RATE, SUMS, NOISE, RUNS = 0.5, 20, 1.25, 1500
CUTS = (0.0, 1.5, 3.0)  # in the log likelihood ratio, fixed beforehand


def audit() -> tuple[float, float]:
    """The epsilon that the books claim of a plan at DELTA, and the least that an attack shows."""
    paid = [Event(ROW, round(NOISE * ROW), 3, SAMPLED, round(RATE * RATE_ONE), SUMS, place) for place in range(SUMS)]
    ratios = {}
    for present in (True, False):
        cohort = Cohort.of({"sex": np.array([0.0, 0.0, *([1.0] if present else [])])})
        values = np.array([run(cohort, paid, 2 * number + present) for number in range(RUNS)])
        ratios[present] = np.log(1 - RATE + RATE * np.exp((values - 0.5) / NOISE**2)).sum(axis=1)
    shown = [
        least_epsilon(int((sign * ratios[one] > sign * cut).sum()), int((sign * ratios[not one] > sign * cut).sum()), RUNS)
        for cut in CUTS
        for one, sign in ((True, 1), (False, -1))
    ]
    return Spent.of(paid).epsilon(DELTA), max(shown)


def run(cohort: Cohort, paid: list[Event], seed: int) -> list[float]:
    """The target's cell in each sum of one plan."""
    entropy = Entropy.seeded(seed)
    orders = [Order(f"request {event.place}", "study", f"ask:{event.place}", event, Budget(1.0, 1e-6)) for event in paid]
    return [
        float(release(CellCounts((SEX,)), cohort, where=None, order=order, books=Books(), entropy=entropy).values[1])
        for order in orders
    ]


@pytest.mark.slow
def test_no_attack_on_a_plan_shows_more_than_the_ledger_claims() -> None:
    claimed, shown = audit()
    assert 0.3 * claimed < shown <= claimed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bug"),
    [("_coins", lambda paid, entropy: None), ("discrete_gaussian", lambda s, n, entropy: discrete_gaussian(s // 2, n, entropy))],
    ids=["no sample", "noise halved"],
)
def test_the_auditor_catches(name: str, bug: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, name, bug)
    claimed, shown = audit()
    assert shown > claimed
