"""Who is answered at the reception of a real node: always with a signed receipt, and nothing is spent that is not allowed."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.audit import verify_audit
from ahh_federated.core.releases import Status
from ahh_federated.errands import Standing
from ahh_federated.errors import Reason
from ahh_federated.node import desk as desk_module
from ahh_federated.node import stewardship
from ahh_federated.node.home import NodeHome
from ahh_federated.node.reception import Reception
from ahh_federated.node.stewardship import decide, propose
from ahh_federated.wire import Reply
from tests.node.nodes import (
    CONSORTIUM,
    STUDY,
    approve,
    asking,
    last_event,
    node,
    proposing,
    receipt,
    reception,
    reply,
    rule,
    spelled,
    spent,
    standing,
)
from tests.node.receptions import refused, watched
from tests.study.samples import QUIET, TODAY, fitting, rows, small


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return watched(monkeypatch)


def test_an_approved_study_is_answered(home: NodeHome) -> None:
    approve(home)
    asked = reception(home)
    assert standing(asked, home, proposing()) == ("approved", "")
    found = receipt(asked, home, asking())
    answer = Reply.from_bytes(found.body)
    assert (answer.status, answer.sigma) == (Status.RELEASED, STUDY.event(STUDY.ask("children"), line("children")).sigma)
    assert found.checkpoint is not None
    found.checkpoint.check()
    assert found.checkpoint.node == home.key.fingerprint
    assert found.checkpoint.mu_squared > 0
    assert spent(home)[1:] == (1, 1)
    event = last_event(home)
    assert (event["event"], event["decision"], event["ask"]) == ("ask", "released", "children:0")
    assert verify_audit(home.audit_path)[0]


def line(ask: str) -> Any:
    return STUDY.ask(ask).analysis.schedule()[0]


def test_a_proposed_study_waits_for_the_steward(home: NodeHome, reached: list[str]) -> None:
    asked = reception(home)
    assert standing(asked, home, proposing()) == ("pending", "")
    refused(asked, home, asking(), Reason.APPROVAL, reached)
    approve(home)
    assert standing(asked, home, proposing()) == ("approved", "")


def test_a_study_nobody_proposed_is_refused(home: NodeHome, reached: list[str]) -> None:
    refused(reception(home), home, asking(), Reason.APPROVAL, reached)


@pytest.mark.parametrize("verdict", ["refused", "revoked"])
def test_a_steward_who_says_no_is_obeyed_from_the_next_call_on(home: NodeHome, verdict: Any, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    assert standing(asked, home, proposing()) == ("approved", "")
    decide(home, STUDY.digest, verdict, by="the steward", today=TODAY)
    assert standing(asked, home, proposing()) == ("refused", "approval")
    refused(asked, home, asking(), Reason.APPROVAL, reached)


def on(home: NodeHome, day: date) -> Reception:
    return Reception(home, lambda message: None, clock=lambda: day)


def test_the_day_a_study_expires_is_the_last(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    after = on(home, STUDY.expires + timedelta(days=1))
    assert standing(after, home, proposing()) == ("refused", "expired")
    refused(after, home, asking(), Reason.EXPIRED, reached)
    assert standing(on(home, STUDY.expires), home, proposing()) == ("approved", "")


def test_the_day_an_approval_ends_is_the_last(home: NodeHome, reached: list[str]) -> None:
    propose(home, spelled(), CONSORTIUM)
    last = TODAY + timedelta(days=7)
    decide(home, STUDY.digest, "approved", expires=last, by="the steward", today=TODAY)
    after = on(home, last + timedelta(days=1))
    assert standing(after, home, proposing()) == ("refused", "expired")
    refused(after, home, asking(), Reason.EXPIRED, reached)
    assert standing(on(home, last), home, proposing()) == ("approved", "")


def test_a_paused_node_answers_nothing(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    home.pause()
    assert standing(asked, home, proposing()) == ("pending", "paused")
    refused(asked, home, asking(), Reason.PAUSED, reached)
    home.resume()
    assert standing(asked, home, proposing()) == ("approved", "")


def test_a_call_that_names_another_consortium_is_refused(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    refused(asked, home, asking(consortium="haven"), Reason.STUDY, reached)
    assert standing(asked, home, proposing(consortium="haven")) == ("refused", "study")


def test_a_study_of_one_consortium_is_not_answered_in_another(home: NodeHome, reached: list[str]) -> None:
    """Nor is it told there that the study was approved: the answer is the same as before."""
    found = []
    for _ in range(2):
        asked = reception(home)
        reply_there = Reply.from_bytes(receipt(asked, home, asking(consortium="haven"), "haven").body)
        standing_there = Standing.from_bytes(receipt(asked, home, proposing(consortium="haven"), "haven").body)
        found.append((reply_there.to_json(), standing_there))
        assert (reply_there.status, reply_there.reason) == (Status.REFUSED, "approval")
        assert (standing_there.standing, standing_there.reason) == ("refused", "study")
        approve(home)
    assert found[0] == found[1]
    assert (reached, spent(home)[1:]) == ([], (0, 0))


def test_a_study_that_comes_through_another_consortium_first_still_comes_through_its_own(
    home: NodeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's coordinator may know the study: it is kept for nobody, and takes nobody's place."""
    monkeypatch.setattr(stewardship, "MOST_WAITING", 1)
    asked = reception(home)
    for _ in range(3):
        body = receipt(asked, home, proposing(consortium="haven"), "haven").body
        assert Standing.from_bytes(body) == Standing(STUDY.digest, "refused", "study")
    assert list(home.studies.iterdir()) == []
    assert standing(asked, home, proposing()) == ("pending", "")
    assert stewardship.proposals(home)[0].consortium == CONSORTIUM
    decide(home, STUDY.digest, "approved", by="the steward", today=TODAY)
    assert standing(asked, home, proposing()) == ("approved", "")
    assert reply(asked, home, asking()).status is Status.RELEASED


def test_a_consortium_whose_studies_wait_does_not_block_another(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stewardship, "MOST_WAITING", 2)
    asked, haven = reception(home), ('consortium = "harbour"', 'consortium = "haven"')
    for version in range(1, 5):
        study = small(*QUIET, haven, ("version = 1", f"version = {version}"))
        body = receipt(asked, home, proposing(study, consortium="haven"), "haven").body
        assert Standing.from_bytes(body).standing == ("pending" if version <= 2 else "refused")
    assert standing(asked, home, proposing()) == ("pending", "")


def test_a_study_handed_over_as_a_file_is_asked_through_the_consortium_that_it_names(home: NodeHome) -> None:
    propose(home, spelled(), "")
    decide(home, STUDY.digest, "approved", by="the steward", today=TODAY)
    asked = reception(home)
    refusal = Reply.from_bytes(receipt(asked, home, asking(consortium="haven"), "haven").body)
    assert (refusal.status, refusal.reason) == (Status.REFUSED, "approval")
    assert reply(asked, home, asking()).status is Status.RELEASED


def test_a_column_that_the_policy_does_not_name_is_refused(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    rule(home, '"bmi", ', "")
    assert standing(asked, home, proposing()) == ("refused", "column")
    refused(asked, home, asking(), Reason.COLUMN, reached)


def test_an_organisation_that_may_not_ask_is_refused(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    rule(home, "organisations = []", 'organisations = ["Another university"]')
    assert standing(asked, home, proposing()) == ("refused", "approval")
    refused(asked, home, asking(), Reason.APPROVAL, reached)


def test_a_node_without_rules_answers_nothing(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    home.policy_path.unlink()
    found = receipt(asked, home, asking())
    assert (Reply.from_bytes(found.body).status, found.checkpoint, reached) == (Status.REFUSED, None, [])


@pytest.mark.parametrize("version", ["0.3.0", "1.1.0", "", "x", "0.\n", "0.9" * 60])
def test_a_version_too_far_away_is_refused(home: NodeHome, version: str, reached: list[str]) -> None:
    approve(home)
    asked = reception(home)
    refused(asked, home, asking(version=version), Reason.VERSION, reached)
    assert standing(asked, home, proposing(version=version)) == ("refused", "version")


@pytest.mark.parametrize("version", ["0.0.9", "0.2.7"])
def test_the_next_minor_version_is_answered(home: NodeHome, version: str) -> None:
    approve(home)
    assert reply(reception(home), home, asking(version=version)).status is Status.RELEASED


def test_the_stewards_ceiling_holds_below_what_the_study_asks(home: NodeHome) -> None:
    approve(home, ceiling=2.5)
    asked = reception(home)
    found = []
    for ask in STUDY.asks:
        for step in range(len(ask.analysis.schedule())):
            found.append(reply(asked, home, asking(ask.id, step, fitting(STUDY, ask.id, step))).reason)
    assert {"", "budget"} <= set(found)
    with home.ledger() as ledger:
        assert ledger.spent(STUDY.digest).epsilon(STUDY.budget.delta) <= 2.5
        assert {entry.epsilon for entry in ledger.entries() if entry.kind == "debit"} == {2.5}


def test_a_ceiling_lowered_later_holds_from_the_next_call_on(home: NodeHome) -> None:
    approve(home)
    asked = reception(home)
    assert reply(asked, home, asking("size")).status is Status.RELEASED
    decide(home, STUDY.digest, "approved", ceiling=0.01, by="the steward", today=TODAY)
    assert reply(asked, home, asking("bins")).reason == "budget"


def test_a_patient_who_has_opted_out_is_out_from_the_next_call_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = rows(300)
    home = node(tmp_path, table=table)
    approve(home)
    counted: list[int] = []
    original = desk_module.release
    monkeypatch.setattr(desk_module, "release", lambda *of, **named: (counted.append(len(of[1])), original(*of, **named))[1])
    asked = reception(home)
    assert reply(asked, home, asking("children")).status is Status.RELEASED
    home.add_optouts(list(table["child"][:40]))
    assert reply(asked, home, asking("size")).status is Status.RELEASED
    assert counted == [300, 260]
