"""The desk: an approved study, its announced steps in the announced form, once each, and not a word more."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahh_federated.analyses.counts import CellCounts
from ahh_federated.core import gate
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.releases import Status
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.study import Study
from ahh_federated.wire import Reply, Request
from tests.study.samples import BUDGET, TODAY, answer, cohort, debits, desk, fitting, releases, request, scale, small

STUDY = small()


@pytest.fixture
def asked() -> Desk:
    return desk(STUDY)


def refused(asked: Desk, what: Request, reason: Reason, today: date = TODAY) -> None:
    before = debits(asked.ledger)
    reply = answer(asked, what, today)
    assert (reply.status, reply.reason) == (Status.REFUSED, str(reason))
    assert (reply.cells, reply.exact, reply.sigma) == (None, None, 0)
    assert reply.request == what.id
    assert debits(asked.ledger) == before


def test_answers_what_the_study_asks(asked: Desk) -> None:
    reply = answer(asked, request(STUDY, "children"))
    line = STUDY.ask("children").analysis.schedule()[0]
    assert reply.status is Status.RELEASED
    assert reply.cells is not None
    assert len(reply.cells) == 8 * line.width
    assert reply.sigma == STUDY.event(STUDY.ask("children"), line).sigma
    assert (debits(asked.ledger), releases(asked.ledger)) == (1, 1)


NEWER = small(("version = 1", "version = 2"))


@pytest.mark.parametrize("other", ["", "0" * 64, STUDY.digest.upper(), STUDY.digest[:-1], NEWER.digest])
def test_another_study_is_refused(asked: Desk, other: str) -> None:
    refused(asked, request(STUDY, "children", study=other), Reason.STUDY)


def test_another_run_is_refused(asked: Desk) -> None:
    refused(asked, request(STUDY, "children", run="+seed1"), Reason.STUDY)
    refused(desk(STUDY, run="+seed1", seed=1), request(STUDY, "children"), Reason.STUDY)


def test_the_day_it_expires_is_the_last(asked: Desk) -> None:
    refused(asked, request(STUDY, "children"), Reason.STUDY, today=date(2031, 1, 1))
    assert answer(asked, request(STUDY, "children"), date(2030, 12, 31)).status is Status.RELEASED


def test_after_expiry_not_even_stored_bytes_are_given(asked: Desk) -> None:
    assert answer(asked, request(STUDY, "children")).status is Status.RELEASED
    refused(asked, request(STUDY, "children"), Reason.STUDY, today=date(2031, 1, 1))


@pytest.mark.parametrize("ask", ["", "childs", "children ", "CHILDREN", "children:0", "no such"])
def test_an_unknown_ask_is_refused(asked: Desk, ask: str) -> None:
    refused(asked, dataclasses.replace(request(STUDY, "children"), ask=ask), Reason.SCHEDULE)


@pytest.mark.parametrize("step", [1, 2, 10_000])
def test_a_step_beyond_the_schedule_is_refused(asked: Desk, step: int) -> None:
    refused(asked, dataclasses.replace(request(STUDY, "children"), step=step), Reason.SCHEDULE)


@pytest.mark.parametrize("kind", ["", "count", "count/2", "moments/1", "glm.information/2", "__class__"])
def test_another_kind_is_refused(asked: Desk, kind: str) -> None:
    refused(asked, request(STUDY, "children", kind=kind), Reason.SCHEDULE)


def test_a_step_of_the_model_asked_as_another_is_refused(asked: Desk) -> None:
    lines = STUDY.ask("model").analysis.schedule()
    for step, line in enumerate(lines):
        for other in {each.kind for each in lines} - {line.kind}:
            refused(asked, request(STUDY, "model", step, scale(STUDY), kind=other), Reason.SCHEDULE)


@pytest.mark.parametrize("name", ["centre", "spread", "radius", "beta"])
@pytest.mark.parametrize(
    "change",
    [lambda values: values[1:], lambda values: [*values, 0.5], lambda values: [], lambda values: [1e300] * len(values)],
    ids=["one fewer", "one more", "none", "huge"],
)
def test_parameters_that_do_not_fit_are_refused(asked: Desk, name: str, change: Callable[[list[float]], list[float]]) -> None:
    fits = scale(STUDY)
    refused(asked, request(STUDY, "model", 2, {**fits, name: change(fits[name])}), Reason.QUERY)


@pytest.mark.parametrize("name", ["centre", "spread", "radius", "beta"])
def test_a_lacking_parameter_is_refused(asked: Desk, name: str) -> None:
    fits = {key: values for key, values in scale(STUDY).items() if key != name}
    refused(asked, request(STUDY, "model", 2, fits), Reason.QUERY)


def test_a_score_table_with_edges_out_of_order_is_refused() -> None:
    fits = fitting(STUDY, "evaluation", 0)
    assert answer(desk(STUDY, minimum=1), request(STUDY, "evaluation", 0, fits)).status is Status.RELEASED
    refused(desk(STUDY), request(STUDY, "evaluation", 0, {**fits, "edges": fits["edges"][::-1]}), Reason.QUERY)
    refused(desk(STUDY), request(STUDY, "evaluation", 0, {**fits, "edges": fits["edges"][:-1]}), Reason.QUERY)


@pytest.mark.parametrize("ask", ["children", "model", "evaluation"])
def test_numbers_that_no_query_needs_are_refused(asked: Desk, ask: str) -> None:
    """They would make a new request of an old one."""
    for name in ("beta2", "", "radius" if ask != "model" else "edges"):
        step = 2 if ask == "model" else 0
        refused(asked, request(STUDY, ask, step, {**fitting(STUDY, ask, step), name: [1.0]}), Reason.QUERY)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"0.2"', "1", "true", "null", "[0.2]", "{}"])
def test_a_parameter_that_is_no_finite_number_is_refused_without_an_id(asked: Desk, value: str) -> None:
    data = request(STUDY, "model", 2, scale(STUDY)).to_bytes().replace(b'"radius":[2.5]', b'"radius":[' + value.encode() + b"]")
    reply = Reply.from_bytes(asked.answer(data, TODAY))
    assert (reply.status, reply.reason, reply.request) == (Status.REFUSED, "query", "")
    assert debits(asked.ledger) == 0


def test_a_wider_query_than_announced_is_refused(asked: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    what = request(STUDY, "children")
    monkeypatch.setattr(type(STUDY.ask("children").analysis), "query", lambda self, kind, parameters: CellCounts(()))
    refused(asked, what, Reason.SCHEDULE)


def test_repeated_requests_get_the_same_bytes_and_one_debit(asked: Desk) -> None:
    what = request(STUDY, "model", 2, scale(STUDY)).to_bytes()
    first = asked.answer(what, TODAY)
    assert [asked.answer(what, TODAY) for _ in range(5)] == [first] * 5
    assert (debits(asked.ledger), releases(asked.ledger)) == (1, 1)


def test_two_desks_add_different_noise() -> None:
    what = request(STUDY, "children")
    held = cohort(STUDY)
    assert answer(desk(STUDY, held), what).cells != answer(desk(STUDY, held), what).cells


def test_an_answered_step_is_not_answered_with_other_numbers(asked: Desk) -> None:
    assert answer(asked, request(STUDY, "model", 2, scale(STUDY))).status is Status.RELEASED
    refused(asked, request(STUDY, "model", 2, scale(STUDY, beta=[0.3] * 5)), Reason.SCHEDULE)
    assert answer(asked, request(STUDY, "model", 3, scale(STUDY, beta=[0.3] * 5))).status is Status.RELEASED


def test_nor_after_the_node_was_restarted(tmp_path: Path) -> None:
    path = tmp_path / "north.ledger"
    with Ledger.open(path, dataset="north", budget=BUDGET) as ledger:
        first = desk(STUDY, ledger=ledger).answer(request(STUDY, "model", 2, scale(STUDY)).to_bytes(), TODAY)
    with Ledger.open(path, dataset="north", budget=BUDGET) as ledger:
        again = desk(STUDY, ledger=ledger)
        refused(again, request(STUDY, "model", 2, scale(STUDY, radius=[2.0])), Reason.SCHEDULE)
        assert again.answer(request(STUDY, "model", 2, scale(STUDY)).to_bytes(), TODAY) == first
        assert debits(ledger) == 1
        assert answer(desk(NEWER, ledger=ledger), request(NEWER, "model", 2, scale(NEWER))).status is Status.RELEASED


@pytest.mark.parametrize("seeded", [True, False])
def test_a_fixed_seed_or_a_named_run_is_refused_for_real_data(seeded: bool) -> None:
    real = small(('data = "synthetic"', 'data = "real"'))
    with pytest.raises(Refusal) as caught:
        desk(real, seed=7 if seeded else None, run="" if seeded else "+seed7")
    assert caught.value.reason is Reason.SEED
    assert "a fixed seed would undo its noise" in str(caught.value)


@pytest.mark.parametrize("seeded", [True, False])
def test_nor_where_the_node_says_that_its_data_are_real(seeded: bool) -> None:
    """A study is written elsewhere: what the data are is for their node to say."""
    with pytest.raises(Refusal) as caught:
        desk(STUDY, seed=7 if seeded else None, run="" if seeded else "+seed7", data="real")
    assert caught.value.reason is Reason.SEED


def test_data_are_real_unless_the_study_says_otherwise() -> None:
    silent = small(('data = "synthetic"\n', ""))
    assert silent.data == "real"
    with pytest.raises(Refusal):
        desk(silent, seed=7)


def test_a_seeded_desk_repeats_itself_and_differs_by_partner_and_seed() -> None:
    what = request(STUDY, "children", run="+seed7")
    held = cohort(STUDY)

    def cells(name: str, seed: int) -> bytes | None:
        return answer(desk(STUDY, held, seed=seed, run="+seed7", name=name), what).cells

    assert cells("north", 7) == cells("north", 7)
    assert len({cells("north", 7), cells("south", 7), cells("north", 8)}) == 3


def noised(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that brings the first cell of every release to `total` patients, the others to zero."""

    def draw(sigma: int, width: int, entropy: Entropy) -> Any:
        cells = np.zeros(width, dtype=np.int64)
        cells[0] = total << 20
        return cells - truth

    truth = np.zeros(1, dtype=np.int64)

    def remember(query: Any, held: Cohort, where: Any = None, **rest: Any) -> Any:
        nonlocal truth
        truth = original(query, held, where, **rest)
        return truth

    original = gate.integer_sum
    monkeypatch.setattr(gate, "integer_sum", remember)  # the last sum before the noise is the patients' own
    monkeypatch.setattr(gate, "discrete_gaussian", draw)


@pytest.mark.parametrize(("patients", "count"), [(300, 9), (300, -50), (0, 0), (9, 9), (11, 9)])
def test_below_the_threshold_by_the_noised_count(patients: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = desk(STUDY, patients, minimum=10)
    noised(count, monkeypatch)
    reply = answer(asked, request(STUDY, "children"))
    assert (reply.status, reply.cells, reply.sigma, reply.reason) == (Status.BELOW, None, 0, "")
    assert debits(asked.ledger) == 1


@pytest.mark.parametrize("patients", [0, 1, 9, 300])
def test_at_the_threshold_by_the_noised_count(patients: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = desk(STUDY, patients, minimum=10)
    noised(10, monkeypatch)
    assert answer(asked, request(STUDY, "children")).status is Status.RELEASED


def test_zero_patients_and_too_few_reply_alike() -> None:
    what = request(STUDY, "children")
    replies = {desk(STUDY, patients, minimum=10**6).answer(what.to_bytes(), TODAY) for patients in (0, 5)}
    assert len(replies) == 1


HOSTILE = [
    ("radius", 1e300),
    ("radius", 1e6),
    ("beta", 1e308),
    ("beta", 0.0),
    ("beta", 5e-324),
    ("spread", 1e308),
    ("centre", -1e308),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE)
def test_a_hostile_number_fails_for_no_cohort_or_for_every_cohort(name: str, value: float) -> None:
    """A status that depends on whether anybody passes the filter would be an exact answer without a price."""
    fits = scale(STUDY)
    what = request(STUDY, "model", 2, {**fits, name: [value] * len(fits[name])})
    assert answer(desk(STUDY, 0), what).status is answer(desk(STUDY, 300), what).status


class Broken(Exception):
    pass


def with_patients(monkeypatch: pytest.MonkeyPatch, fail: Callable[[CellCounts, Cohort], Any]) -> None:
    """Counts that fail, though only with real patients: a rehearsal goes well."""
    plain = CellCounts.rows
    monkeypatch.setattr(CellCounts, "rows", lambda self, held: fail(self, held) if len(held) > 2 else plain(self, held))


def test_an_unexpected_error_is_failed_without_a_word(asked: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CellCounts, held: Cohort) -> Any:
        raise Broken(f"weight {held['weight'][0]} of Mary")

    with_patients(monkeypatch, fail)
    what = request(STUDY, "children")
    data = asked.answer(what.to_bytes(), TODAY)
    assert data == Reply(what.id, Status.FAILED).to_bytes()
    assert b"Mary" not in data
    assert (debits(asked.ledger), releases(asked.ledger)) == (1, 0)


def test_a_failed_request_is_paid_once_when_repeated(asked: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    what = request(STUDY, "children")
    with monkeypatch.context() as patch:
        with_patients(patch, lambda self, held: 1 / 0)
        assert answer(asked, what).status is Status.FAILED
    assert answer(asked, what).status is Status.RELEASED
    assert (debits(asked.ledger), releases(asked.ledger)) == (1, 1)


def test_a_failed_step_is_not_open_to_other_numbers(asked: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gate, "discrete_gaussian", lambda *arguments: 1 / 0)
        assert answer(asked, request(STUDY, "model", 2, scale(STUDY))).status is Status.FAILED
    refused(asked, request(STUDY, "model", 2, scale(STUDY, radius=[2.0])), Reason.SCHEDULE)


def test_a_query_that_cannot_be_computed_is_refused_before_it_is_paid(asked: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CellCounts, "rows", lambda self, held: 1 / 0)
    refused(asked, request(STUDY, "children"), Reason.QUERY)


def test_an_exhausted_budget_is_refused_and_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    asked = desk(STUDY, ledger=Ledger.in_memory(dataset="north", budget=Budget(0.1, 1e-6)), tell=told.append)
    looked: list[int] = []
    with_patients(monkeypatch, lambda self, held: looked.append(len(held)))
    refused(asked, request(STUDY, "children"), Reason.BUDGET)
    assert looked == []
    assert len(told) == 1
    assert "data set 'north': epsilon 0 of 0.1" in told[0]


def test_the_whole_schedule_fits_the_ceiling_of_the_study_and_no_more() -> None:
    asked = desk(STUDY)
    for ask in STUDY.asks:
        for step in range(len(ask.analysis.schedule())):
            what = request(STUDY, ask.id, step, fitting(STUDY, ask.id, step))
            assert answer(asked, what).status in (Status.RELEASED, Status.BELOW)
    spent = asked.ledger.spent(STUDY.digest)
    assert spent.within(STUDY.budget)
    assert spent.epsilon(STUDY.budget.delta) == pytest.approx(STUDY.budget.epsilon, rel=1e-3)


def test_two_studies_share_the_budget_of_the_data_set() -> None:
    ledger = Ledger.in_memory(dataset="north", budget=Budget(1.5, 1e-6))
    first, second = STUDY, NEWER

    def reasons(study: Study) -> list[str]:
        requests = [request(study, "model", step, fitting(study, "model", step)) for step in range(4)]
        return [answer(desk(study, ledger=ledger), what).reason for what in requests]

    assert reasons(first) == [""] * 4
    assert "budget" in reasons(second)
    assert ledger.spent().within(Budget(1.5, 1e-6))


def test_nothing_of_a_desk_shows_its_patients(asked: Desk) -> None:
    shown = repr(asked)
    assert "Cohort" not in shown
    assert "Entropy" not in shown
    assert json.loads(asked.answer(b"", TODAY))["status"] == "refused"


def test_policy_has_no_say_in_what_is_computed() -> None:
    held, what = cohort(STUDY), request(STUDY, "children", run="r")
    replies = [answer(desk(STUDY, held, minimum=least, seed=1, run="r"), what) for least in (1, 100)]
    assert replies[0].cells == replies[1].cells
