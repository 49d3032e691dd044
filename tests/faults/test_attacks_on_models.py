"""What a coordinator who chooses every number may not gain, where models are trained, judged and chosen.

Each of these was once a hole.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ahh_federated.analyses.counts import CellCounts
from ahh_federated.analyses.design import GRID, Design, Scale
from ahh_federated.analyses.logistic import Logistic
from ahh_federated.analyses.scores import Scores
from ahh_federated.analyses.terms import PRODUCT_LIMIT
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import SAMPLED, Budget, Event, Spent
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.programs import LARGEST
from ahh_federated.core.queries import Rows
from ahh_federated.core.releases import Release
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.core.sums import integer_sum
from ahh_federated.errors import Misuse, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.policy import Policy
from ahh_federated.study import parse_study
from tests.laws.cohorts import plausible_cohort
from tests.laws.registry import COMPLETE_CASES, CROSSED, CURVED, INDICATORS
from tests.study.samples import content

BUDGET = Budget(3.0, 1e-5)
ROW = 1 << 20


# Numbers of a request against the exactness of products


@pytest.mark.parametrize("design", [COMPLETE_CASES, INDICATORS, CROSSED, CURVED], ids=["plain", "indicators", "products", "hats"])
@pytest.mark.parametrize("centre", [LARGEST, -LARGEST, 5.0, -5.0, 1.0, 0.0])
@pytest.mark.parametrize("spread", [1e-3, 0.3, LARGEST])
def test_x_keeps_its_limit_whatever_centre_and_spread_are_sent(design: Design, centre: float, spread: float) -> None:
    """Exact products (`Scale.predictor`, neural/exact.py), and with them the law of core/bounds.py, rest on this limit."""
    terms = design.width - 1
    x = Scale((centre,) * terms, (spread,) * terms, 1.0).standardised(design, plausible_cohort(50, 1))
    assert np.nanmax(np.abs(x)) <= PRODUCT_LIMIT * GRID


def test_one_patient_moves_an_evaluation_by_its_own_row_whatever_is_sent() -> None:
    """Terms that cancel, of a size that rounds: an edge between the roundings lays the last patients of a batch elsewhere."""
    columns = tuple(Numeric(f"x{j}", 0.0, 10.0, "units") for j in range(6))
    model = Logistic(Design(columns), Levels("case", ("no", "yes")))
    rng = np.random.default_rng(1)
    cohort = Cohort.of({**{column.name: rng.uniform(0, 10, 204) for column in columns}, "case": np.zeros(204)})
    for _ in range(20):
        beta = rng.integers(-190_000, 190_000, 6).astype(np.float64)
        beta[-1] -= beta.sum()
        sent = {"centre": [987654.3217] * 6, "spread": [0.00137] * 6, "beta": [0.0, *beta.tolist()]}
        seen = model.predictor(sent).linear(cohort)
        edge = float(seen.min() + seen.max()) / 2
        query = Scores(model, (0.1,)).query("scores/2", {**sent, "edges": [edge] * 10})
        assert isinstance(query, Rows)
        for size in range(200, 205):
            moved = np.subtract(integer_sum(query, cohort.part(0, size)), integer_sum(query, cohort.part(1, size)))
            assert int((moved**2).sum()) <= ROW**2


# A ledger that was copied between a debit and its release


class _Copied:
    """A node whose ledger was copied while a request was debited and not yet released; then both copies go on."""

    def __init__(self, folder: Path, order: Order, paid_before: list[Order]) -> None:
        self.order, self.cohort = order, Cohort.of({}, 1000)
        key = Key.create(folder / "node.key")
        with self._open(folder / "ledger") as ledger:
            for each in paid_before:
                release(CellCounts(()), self.cohort, where=None, order=each, books=ledger, entropy=Entropy.system())
            event, ceiling = order.event, order.ceiling
            ledger.debit(request=order.request, study=order.study, ask=order.ask, query="count/1", event=event, ceiling=ceiling)
        shutil.copy(folder / "ledger", folder / "copy")
        with self._open(folder / "ledger") as ledger:
            self.first = self._released(ledger)
            newest = checkpoint(ledger, Policy(BUDGET), key)
        self.copy, memory = self._open(folder / "copy"), Memory(folder / "witness.json", key)
        with pytest.raises(Refusal):
            memory.require(self.copy, [newest])
        memory.recover(self.copy)
        memory.require(self.copy, [newest])

    @staticmethod
    def _open(path: Path) -> Ledger:
        return Ledger.open(path, dataset="children", budget=BUDGET)

    def _released(self, ledger: Ledger) -> Release:
        return release(CellCounts(()), self.cohort, where=None, order=self.order, books=ledger, entropy=Entropy.system())

    def again(self) -> Release | None:
        """The same request at the copy: None when it is refused."""
        try:
            return self._released(self.copy)
        except Refusal:
            return None


PLAN = Event(ROW, 2 * ROW, 1, SAMPLED, RATE_ONE // 10, 2)
OPEN = {
    "a plain release": (Order("r", "growth", "sizes:0", Event(ROW, 1 << 24, 1), BUDGET), []),
    "the last message of a plan": (
        Order("b", "growth", "net:1", replace(PLAN, place=1), BUDGET),
        [Order("a", "growth", "net:0", PLAN, BUDGET)],
    ),
}


@pytest.mark.parametrize("what", OPEN)
def test_what_two_copies_draw_for_one_debit_is_paid_twice(tmp_path: Path, what: str) -> None:
    order, before = OPEN[what]
    copied = _Copied(tmp_path, order, before)
    again = copied.again()
    times = 1 if again is None or again.to_bytes() == copied.first.to_bytes() else 2
    with copied.copy as ledger:
        assert ledger.spent().mu_squared >= times * Spent.of([order.event.first]).mu_squared


# A study that only costs time


def test_a_selection_of_selections_is_refused_when_a_study_is_read() -> None:
    common = {"analysis": "logistic", "outcome": "heavy", "share": 0.2}
    asks = [{"id": "a", "features": ["weight"], **common}, {"id": "b", "features": ["sex"], **common}]
    for name, candidates in (("c", ["a", "b"]), ("d", ["c", "b"])):
        asks.append({"id": name, "analysis": "select", "select": candidates, "share": 0.1})
    with pytest.raises(Misuse):
        parse_study({**content(), "ask": asks})
