"""Plans in the books: paid whole by the first message, once for each place, never on another plan's account."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import Exchange, Header
from ahh_federated.core.costs import SAMPLED, Budget, Event, Spent
from ahh_federated.core.releases import Status
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node import chain
from ahh_federated.node.chain import Kind
from ahh_federated.node.ledger import Head, Ledger, Receipt
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.policy import Policy
from ahh_federated.runtimes.local import ExactLink, LocalLink
from ahh_federated.study import Study
from ahh_federated.study import study as study_module
from ahh_federated.wire import Request
from tests.node.planned import ROW, Pulls, planned
from tests.study.samples import TODAY, answer, cohort, desk

BUDGET = Budget(3.0, 1e-5)
FIRST = Event(ROW, 2 * ROW, 3, SAMPLED, RATE_ONE // 10, 4)
PLAIN_EVENT = Event(ROW, 1 << 24, 3)
VECTOR = Path(__file__).parents[1] / "vectors" / "ledger-format-1.sql"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "children.ledger"


def opened(path: Path) -> Ledger:
    return Ledger.open(path, dataset="children", budget=BUDGET)


def pay(
    ledger: Ledger, place: int, *, event: Event = FIRST, ask: str = "net", study: str = "growth", step: int | None = None
) -> Receipt:
    """One message of a plan, as step `place` of its ask unless told otherwise."""
    name = f"{ask}:{place if step is None else step}"
    return ledger.debit(
        request=f"{study} {name}", study=study, ask=name, query="pull/1", event=replace(event, place=place), ceiling=BUDGET
    )


def refused(act: Callable[[], object], reason: Reason = Reason.SCHEDULE) -> str:
    with pytest.raises(Refusal) as caught:
        act()
    assert caught.value.reason is reason
    return str(caught.value)


def test_the_first_message_pays_and_the_others_cost_nothing(path: Path) -> None:
    with opened(path) as ledger:
        for place in range(4):
            ledger.store(pay(ledger, place), b"released")
            assert ledger.spent() == ledger.spent("growth") == Spent.of([FIRST])
        assert ledger.verify().ok
    with opened(path) as again:
        assert again.spent() == Spent.of([FIRST])
        assert [entry.event for entry in again.entries() if entry.kind == Kind.DEBIT] == [
            replace(FIRST, place=place) for place in range(4)
        ]


@pytest.mark.parametrize("place", [1, 3])
def test_a_later_message_before_the_first_is_refused(path: Path, place: int) -> None:
    with opened(path) as ledger:
        assert "begin with its first" in refused(lambda: pay(ledger, place))
        assert ledger.head().seq == 1
        pay(ledger, 0)
        pay(ledger, place)


OTHERS = {
    "sigma": replace(FIRST, sigma=FIRST.sigma - 1),
    "more noise": replace(FIRST, sigma=FIRST.sigma + 1),
    "rate": replace(FIRST, rate=FIRST.rate + 1),
    "count": replace(FIRST, count=5),
    "width": replace(FIRST, width=4),
    "sensitivity": replace(FIRST, sensitivity=ROW - 1),
    "steps": replace(FIRST, steps=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_plan_pays_for_no_other_plan(path: Path, name: str) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)
        refused(lambda: pay(ledger, 1, event=OTHERS[name]))
        refused(lambda: pay(ledger, 1, ask="other"))
        refused(lambda: pay(ledger, 1, study="diet"))
        pay(ledger, 1)
        assert ledger.spent() == Spent.of([FIRST])


def test_each_place_is_asked_once(path: Path) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)
        pay(ledger, 1)
        assert pay(ledger, 1) == pay(ledger, 1)  # the same request, after a crash: it is the same debit
        assert "was not paid" in refused(lambda: pay(ledger, 1, step=7))
        pay(ledger, 2)


def test_a_second_plan_of_the_same_ask_pays_again(path: Path) -> None:
    with opened(path) as ledger:
        for place in range(4):
            pay(ledger, place)
        refused(lambda: pay(ledger, 1, step=11))
        pay(ledger, 0, step=10)
        assert ledger.spent() == Spent.of([FIRST, FIRST])
        for place in (1, 2, 3):
            pay(ledger, place, step=10 + place)
            refused(lambda place=place: pay(ledger, place, step=20 + place))


def test_a_plan_that_does_not_fit_is_refused_whole(path: Path) -> None:
    dear = replace(FIRST, sigma=ROW // 2)
    with opened(path) as ledger:
        refused(lambda: pay(ledger, 0, event=dear), Reason.BUDGET)
        refused(lambda: pay(ledger, 1, event=dear))
        assert ledger.spent() == Spent()


def test_a_paid_plan_goes_on_when_the_budget_is_used_up(path: Path) -> None:
    small = Budget(0.2, 1e-5)
    with opened(path) as ledger:
        pay(ledger, 0)
    with Ledger.open(path, dataset="children", budget=small) as ledger:
        pay(ledger, 1)
        refused(lambda: pay(ledger, 0, ask="other"), Reason.BUDGET)


def test_a_burn_ends_every_plan(path: Path) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)
        ledger.burn(Head(9, "ab" * 32), Event(1, 1 << 30, 1))
        refused(lambda: pay(ledger, 1))
        pay(ledger, 0, step=5)
        pay(ledger, 1, step=6)
        assert ledger.verify().ok


def test_a_chain_with_a_plan_that_nobody_paid_for_stops_everything(path: Path) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)
        head = ledger.head()
        last = list(ledger.entries())[-1]
        forged = chain.chained(replace(last, request="x", ask="other:1", place=1), head, last.time)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            marks = ", ".join("?" * len(chain.COLUMNS))
            values = [getattr(forged, name) for name in chain.COLUMNS]
            db.execute(f"INSERT INTO entries ({', '.join(chain.COLUMNS)}) VALUES ({marks})", values)
        assert "was not paid for" in refused(ledger.spent, Reason.LEDGER)


def test_where_the_accountant_is_not_installed_the_ledger_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(path) as ledger:
        pay(ledger, 0)

    def lacking(self: Event) -> Fraction:
        raise Misuse("pip install it")

    with opened(path) as ledger:
        pass
    monkeypatch.setattr(Event, "mu_squared", property(lacking))
    with Ledger.inspect(path) as ledger:
        assert "pip install it" in refused(ledger.spent, Reason.LEDGER)
        assert ledger.verify().ok


# A copy that is older, or lived on by itself


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "node.key")


def recovered(folder: Path, key: Key, before: int, lost: int, since: int) -> tuple[Spent, Spent, Ledger]:
    """What was burned and is spent, when `lost` messages of a plan went on in another copy, and `since` in this one."""
    with opened(folder / "ledger") as ledger:
        for place in range(before):
            pay(ledger, place)
    shutil.copy(folder / "ledger", folder / "backup")
    with opened(folder / "ledger") as ledger:
        for place in range(before, before + lost):
            pay(ledger, place)
        newest = checkpoint(ledger, Policy(BUDGET), key)
    ledger = opened(folder / "backup")
    for place in range(before, before + since):
        pay(ledger, place)
    memory = Memory(folder / "witness.json", key)
    refused(lambda: memory.require(ledger, [newest]), Reason.WITNESS)
    return memory.recover(ledger), ledger.spent(), ledger


@pytest.mark.parametrize("since", [0, 2])
def test_a_plan_that_two_copies_had_begun_is_burned_whole(tmp_path: Path, key: Key, since: int) -> None:
    burned, spent, ledger = recovered(tmp_path, key, before=1, lost=2, since=since)
    price = Spent.of([FIRST])
    assert price.mu_squared <= burned.mu_squared <= price.mu_squared * (1 + Fraction(1, 10**6))
    assert price.slack <= burned.slack <= price.slack * (1 + Fraction(1, 10**3))
    assert spent.mu_squared >= 2 * price.mu_squared
    refused(lambda: pay(ledger, 3))


def test_a_plan_that_was_lost_is_burned_once(tmp_path: Path, key: Key) -> None:
    burned, _, ledger = recovered(tmp_path, key, before=0, lost=3, since=0)
    price = Spent.of([FIRST]).mu_squared
    assert price <= burned.mu_squared <= price * (1 + Fraction(1, 10**6))
    refused(lambda: pay(ledger, 1))


def test_a_finished_plan_is_not_burned(tmp_path: Path, key: Key) -> None:
    with opened(tmp_path / "ledger") as ledger:
        for place in range(4):
            ledger.store(pay(ledger, place), b"released")
        assert ledger.unfinished_at(ledger.head().seq) == Spent()
        assert ledger.unfinished_at(ledger.head().seq - 1) == Spent.of([FIRST])  # its last message was not drawn then
        assert ledger.unfinished_at(1) == Spent()
        local = replace(FIRST, steps=2)
        ledger.store(pay(ledger, 0, event=local, ask="local"), b"released")
        assert ledger.unfinished_at(10**6) == Spent.of([local])
        last = pay(ledger, 1, event=local, ask="local")
        assert ledger.unfinished_at(10**6) == Spent.of([local])
        ledger.store(last, b"released")
        assert ledger.unfinished_at(10**6) == Spent()


def test_a_debit_whose_release_was_not_drawn_counts_as_open(tmp_path: Path) -> None:
    plain = Event(1 << 20, 1 << 22, 3)
    with opened(tmp_path / "ledger") as ledger:
        paid = ledger.debit(request="r", study="growth", ask="count:0", query="count/1", event=plain, ceiling=BUDGET)
        assert ledger.unfinished_at(10**6) == Spent.of([plain])
        ledger.store(paid, b"released")
        assert ledger.unfinished_at(10**6) == Spent()


# A study with a plan


def run(study: Study) -> tuple[Session, LocalLink, list[Exchange]]:
    held, recorded = cohort(study, 400), list[Exchange]()
    desks = {name: desk(study, held, seed=3, run="+seed3", name=name, minimum=1) for name in ("east", "west")}
    link = LocalLink(desks, TODAY)
    return Session(study, link, recorded.append, Silent(), "+seed3"), link, recorded


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_spent_is_what_was_quoted(steps: int) -> None:
    study = planned(steps=steps)
    session, link, recorded = run(study)
    outcomes = session.outcomes()
    assert {outcome.status for outcome in outcomes} == {Status.RELEASED}
    assert study.cost.within(study.budget)
    assert study.cost == Spent.of(study.event(ask, line) for ask in study.asks for line in ask.analysis.schedule())
    for held in link.desks.values():
        assert held.ledger.spent() == study.cost
    results = Results(Header(study, link.partners, "+seed3", False), outcomes, recorded, {}, "")
    assert results._spent("east") == study.cost


def test_a_plan_has_the_share_of_its_first_line() -> None:
    study = planned()
    ask = study.ask("net")
    count, *plan = study.events(ask)
    assert [event.place for event in plan] == [0, 1, 2, 3]
    assert {event.first for event in plan} == {plan[0]}
    assert plan == [study.event(ask, line) for line in ask.analysis.schedule()[1:]]
    share = float(plan[0].mu_squared) / float(study.budget.mu_squared)
    assert 0.97 * 0.8 * 0.7 < share <= 0.8 * 0.7
    assert count.mu_squared < plan[0].mu_squared


def asking(study: Study, step: int, guess: list[float] | None = None) -> Request:
    line = study.ask("net").analysis.schedule()[step]
    return Request(study.digest, "", "net", step, line.kind, {"guess": guess or [0.5, 0.5]} if step else {})


@pytest.mark.parametrize("steps", [1, 3])
def test_a_desk_wants_the_first_message_first(steps: int) -> None:
    study = planned(steps=steps)
    asked = desk(study, 300)
    late = answer(asked, asking(study, 3))
    assert (late.status, late.reason) == (Status.REFUSED, str(Reason.SCHEDULE))
    assert answer(asked, asking(study, 1)).status is Status.RELEASED
    paid = asked.ledger.spent()
    sigma = study.events(study.ask("net"))[1].sigma
    for step in (3, 2, 4):
        reply = answer(asked, asking(study, step))
        assert (reply.status, reply.sigma) == (Status.RELEASED, sigma)
    assert asked.ledger.spent() == paid
    again = answer(asked, asking(study, 2, [0.4, 0.4]))
    assert (again.status, again.reason) == (Status.REFUSED, str(Reason.SCHEDULE))


def test_another_version_with_other_noise_pays_its_own_plan() -> None:
    first, other = planned(), planned(rate=RATE_ONE)
    asked = desk(first, 300)
    assert answer(asked, asking(first, 1)).status is Status.RELEASED
    changed = desk(other, 300, ledger=asked.ledger)
    assert answer(changed, asking(other, 2)).reason == str(Reason.SCHEDULE)


@pytest.mark.parametrize("steps", [1, 3])
def test_an_exact_run_takes_the_rate_of_everybody(steps: int) -> None:
    study = planned(steps=steps)
    held = cohort(study, 300)
    link = ExactLink(study, {"north": held})
    found = link.exchange(asking(study, 1), ["north"])["north"].exact
    analysis = study.ask("net").analysis
    assert isinstance(analysis, Pulls)
    guess = np.array([0.5, 0.5])
    for _ in range(steps):
        total = 0.25 * Pulls()._query(guess).rows(held).sum(axis=0)
        guess = guess + 0.001 * total
    assert found == pytest.approx(total if steps == 1 else guess - 0.5, rel=1e-9)


def test_a_study_with_too_many_plans_is_refused_before_any_is_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    study = planned()
    many = replace(study, asks=tuple(replace(study.ask("net"), id=f"net{k}", share=0.01) for k in range(50)))
    monkeypatch.setattr(study_module, "plan_sigma", lambda *arguments: pytest.fail("priced"))
    with pytest.raises(Misuse, match="at most 40"):
        study_module._check_affordable(many)


def test_a_plan_whose_tail_passes_the_delta_is_refused() -> None:
    study = planned()
    study_module._check_affordable(study)
    with pytest.raises(Misuse, match="fewer rounds on samples"):
        study_module._check_affordable(replace(study, budget=Budget(2.0, 1e-11)))
