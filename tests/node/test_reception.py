"""The reception of a real node: whatever comes, a signed receipt goes, and nothing is computed or spent that is not allowed."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import os
import random
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ahh_federated.audit import Audit, verify_audit
from ahh_federated.core.releases import Status
from ahh_federated.encoding import dump
from ahh_federated.errands import ASK, Call, Receipt, Standing
from ahh_federated.errors import Breach, Misuse, Reason
from ahh_federated.node import desk as desk_module
from ahh_federated.node import reception as reception_module
from ahh_federated.node import stewardship
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.quota import Quota
from ahh_federated.node.reception import Reception
from ahh_federated.node.sources import file_source
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
from tests.study.samples import QUIET, TODAY, fitting, request, rows, scale, small

WORD = "Zq7canary"


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What got as far as the patients: the gate or the table."""
    seen: list[str] = []

    def raising(name: str) -> Callable[..., Any]:
        def fail(*arguments: object, **named: object) -> Any:
            seen.append(name)
            raise AssertionError(name)

        return fail

    monkeypatch.setattr(desk_module, "release", raising("gate"))
    original = reception_module.load_cohort
    monkeypatch.setattr(reception_module, "load_cohort", lambda *of, **named: (seen.append("table"), original(*of, **named))[1])
    return seen


def refused(asked: Reception, home: NodeHome, call: Call, reason: Reason, reached: list[str]) -> None:
    """Refused for this reason alone, with nothing computed and nothing spent, and it is in the log."""
    before, already = spent(home), list(reached)
    found = reply(asked, home, call)
    assert found.to_json() == Reply(found.request, Status.REFUSED, reason=str(reason)).to_json()
    assert reached == already
    assert spent(home) == before
    event = last_event(home)
    assert {key: event[key] for key in ("event", "action", "reason", "study")} == {
        "event": "refused",
        "action": ASK,
        "reason": reason,
        "study": call.study,
    }


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


def test_after_a_revocation_not_even_stored_bytes_are_given(home: NodeHome) -> None:
    approve(home)
    asked, call = reception(home), asking()
    assert reply(asked, home, call).status is Status.RELEASED
    decide(home, STUDY.digest, "revoked", by="the steward", today=TODAY)
    found = reply(asked, home, call)
    assert (found.status, found.cells) == (Status.REFUSED, None)


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


def test_a_study_changed_by_one_byte_is_another_that_nobody_approved(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked, content = reception(home), spelled()
    for place in range(0, len(content), 5):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        assert standing(asked, home, proposing(body=changed)) == ("refused", "study")
        digest = hashlib.sha256(changed).hexdigest()
        assert standing(asked, home, proposing(body=changed, study=digest))[0] in ("refused", "pending")
        body = request(STUDY, "children", study=digest).to_bytes()
        assert reply(asked, home, asking(study=digest, body=body)).status is Status.REFUSED
        (home.studies / f"{digest}.json").unlink(missing_ok=True)
    assert (reached, spent(home)[1:]) == ([], (0, 0))
    assert standing(asked, home, proposing()) == ("approved", "")


def test_a_kept_study_changed_by_one_byte_is_refused(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    asked, content, path = reception(home), spelled(), home.studies / f"{STUDY.digest}.json"
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        refused(asked, home, asking(), Reason.STUDY, reached)
    path.write_bytes(content)
    assert standing(asked, home, proposing()) == ("approved", "")


def test_a_decision_that_the_steward_did_not_sign_is_refused(home: NodeHome, reached: list[str], tmp_path: Path) -> None:
    propose(home, spelled(), CONSORTIUM)
    decide(home, STUDY.digest, "approved", ceiling=1.0, by="the steward", today=TODAY)
    asked, path = reception(home), home.studies / f"{STUDY.digest}.decision.json"
    made = path.read_bytes()
    stranger = node(tmp_path, "stranger")
    approve(stranger)
    other = approve(home, small(*QUIET, ("version = 1", "version = 2")))
    forged = [
        (stranger.studies / path.name).read_bytes(),
        (home.studies / f"{other.digest}.decision.json").read_bytes(),
        *(
            made.replace(old, new)
            for old, new in [(b"1.0", b"9.0"), (b"2030", b"2031"), (b"approved", b"refused"), (b"{", b" {")]
        ),
        b"",
        b"{}",
        b"[" * 100_000,
    ]
    for each in forged:
        assert each != made
        path.write_bytes(each)
        if each == b" " + made:
            continue
        refused(asked, home, asking(), Reason.APPROVAL, reached)
        assert standing(asked, home, proposing()) == ("refused", "approval")
    path.write_bytes(made)
    assert standing(asked, home, proposing()) == ("approved", "")


def test_the_stewards_ceiling_holds_below_what_the_study_asks(home: NodeHome) -> None:
    approve(home, ceiling=1.0)
    asked = reception(home)
    found = []
    for ask in STUDY.asks:
        for step in range(len(ask.analysis.schedule())):
            found.append(reply(asked, home, asking(ask.id, step, fitting(STUDY, ask.id, step))).reason)
    assert "budget" in found
    with home.ledger() as ledger:
        assert ledger.spent(STUDY.digest).epsilon(STUDY.budget.delta) <= 1.0
        assert {entry.epsilon for entry in ledger.entries() if entry.kind == "debit"} == {1.0}


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


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ask": "nothing"}, "schedule"),
        ({"ask": ""}, "schedule"),
        ({"ask": "\ud800"}, "schedule"),
        ({"step": 1}, "schedule"),
        ({"step": 10_000}, "schedule"),
        ({"kind": "count/2"}, "schedule"),
        ({"kind": "os.system"}, "schedule"),
        ({"parameters": {"x": [1.0]}}, "query"),
        ({"parameters": {"\ud800": []}}, "query"),
        ({"run": "+seed1"}, "study"),
        ({"run": "\ud800"}, "study"),
    ],
    ids=str,
)
def test_an_unknown_ask_step_or_kind_is_refused_by_the_desk(
    home: NodeHome, change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve(home)
    seen: list[str] = []
    monkeypatch.setattr(desk_module, "release", lambda *of, **named: seen.append("gate"))
    asked, before = reception(home), spent(home)
    body = dataclasses.replace(request(STUDY, "children"), **change).to_bytes()
    found = reply(asked, home, asking(body=body))
    assert (found.status, found.reason, found.cells, seen) == (Status.REFUSED, reason, None, [])
    assert spent(home) == before
    event = last_event(home)
    assert (event["event"], event["decision"], event["reason"]) == ("ask", "refused", reason)


def test_a_request_about_another_study_than_its_call_is_refused(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    newer = small(*QUIET, ("version = 1", "version = 2"))
    approve(home, newer)
    refused(reception(home), home, asking(study=newer.digest), Reason.STUDY, reached)


def test_a_step_is_not_answered_with_other_numbers(home: NodeHome) -> None:
    approve(home)
    asked = reception(home)
    assert reply(asked, home, asking("model", 4, scale(STUDY))).status is Status.RELEASED
    before = spent(home)
    assert reply(asked, home, asking("model", 4, scale(STUDY, radius=[2.0]))).reason == "schedule"
    asked.close()
    assert reply(reception(home), home, asking("model", 4, scale(STUDY, radius=[2.0]))).reason == "schedule"
    assert spent(home) == before


def replayed(home: NodeHome, at_reception: int, at_desk: int) -> None:
    asked, call = reception(home), asking("model", 4, scale(STUDY))
    first, before = receipt(asked, home, call), spent(home)
    for k in range(at_reception):
        again = receipt(asked, home, call if k % 2 else dataclasses.replace(call, attempt=str(k)))
        assert (again.body, again.checkpoint is not None and again.checkpoint.hash) == (first.body, first.checkpoint.hash)  # type: ignore[union-attr]
    held = asked._desks[STUDY.digest]
    assert all(held.answer(call.body, TODAY) == first.body for _ in range(at_desk))
    assert spent(home) == before
    asked.close()
    assert receipt(reception(home), home, call).body == first.body
    assert spent(home) == before


def test_ten_thousand_replays_get_the_same_bytes_and_cost_nothing(home: NodeHome, fast: None) -> None:
    """The most of them at the desk, which is what gives the bytes."""
    approve(home)
    replayed(home, 200, 9800)


@pytest.mark.slow
def test_ten_thousand_replays_at_the_reception(home: NodeHome, fast: None) -> None:
    approve(home)
    replayed(home, 10_000, 0)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the disk or reading the rules anew: neither a crash nor a steward comes in between here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    policy = functools.cache(lambda home: home.policy)
    monkeypatch.setattr(Reception, "_rules", lambda self: policy(self._home))


def test_a_log_that_cannot_be_written_lets_nothing_out(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was paid is stored, and given once the log can be written again."""
    approve(home)
    asked, call = reception(home), asking()

    def full(*of: object, **named: object) -> None:
        raise Misuse("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Audit, "write", full)
        found = reply(asked, home, call)
        assert (found.status, found.cells) == (Status.REFUSED, None)
        assert Receipt.from_bytes(asked.answer(CONSORTIUM, b"junk")).node == home.key.fingerprint
    before = spent(home)
    assert reply(asked, home, call).status is Status.RELEASED
    assert spent(home) == before


def junk(asked: Reception, home: NodeHome, number: int) -> None:
    """Calls of every kind that cost nothing, no two the same."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b"junk",
        lambda: asking(study=f"{number:064x}").to_bytes(),
        lambda: asking(body=b"{}").to_bytes(),
        lambda: proposing(study=f"{number:064x}").to_bytes(),
        lambda: asking(body=dataclasses.replace(request(STUDY, "children"), ask="nothing").to_bytes()).to_bytes(),
        lambda: asking(consortium="haven").to_bytes(),
        lambda: asking(version="9.9").to_bytes(),
        lambda: asking("children").to_bytes(),
    ]
    asked.answer(CONSORTIUM, kinds[number % len(kinds)]())


def lines(home: NodeHome, *events: str) -> list[dict[str, Any]]:
    return [entry for entry in home.audit.entries() if entry["event"] in events]


def test_ten_thousand_calls_that_cost_nothing_write_a_bounded_log(
    home: NodeHome, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is forgotten either: the log says how many lines it lacks, and what is paid for is always in it."""
    approve(home)
    now = [1000.0]
    asked = reception(home)
    asked._quota = Quota(reception_module._LINES, lambda: now[0])
    assert reply(asked, home, asking("children")).status is Status.RELEASED
    size, before = home.audit_path.stat().st_size, len(lines(home, "refused", "ask"))
    for number in range(10_000):
        junk(asked, home, number)
        now[0] += 0.012  # two minutes in all
    assert home.audit_path.stat().st_size - size < 3 * 120 * 600
    assert len(lines(home, "refused", "ask")) - before <= 3 * 120
    assert reply(asked, home, asking("size")).status is Status.RELEASED
    assert last_event(home)["ask"] == "size:0"
    now[0] += 60
    asked.answer(CONSORTIUM, b"junk")
    written = len(lines(home, "refused", "ask")) - before - 2
    assert written + sum(entry["lines"] for entry in lines(home, "withheld")) == 10_000
    assert verify_audit(home.audit_path)[0]
    assert spent(home)[1:] == (2, 2)


def test_a_ledger_that_is_gone_lets_nothing_out(home: NodeHome, reached: list[str]) -> None:
    approve(home)
    for each in home.path.glob("ledger.db*"):
        each.rename(home.path / f"away-{each.name}")
    found = receipt(reception(home), home, asking())
    assert (Reply.from_bytes(found.body).reason, found.checkpoint) == ("ledger", None)
    assert not home.ledger_path.exists()
    assert reached == []


def test_a_ledger_swapped_under_a_serving_node_lets_nothing_out(home: NodeHome, tmp_path: Path) -> None:
    approve(home)
    asked = reception(home)
    assert reply(asked, home, asking()).status is Status.RELEASED
    home.ledger_path.unlink()
    Ledger.open(home.ledger_path, dataset="north", budget=home.policy.budget).close()
    found = receipt(asked, home, asking("size"))
    assert (Reply.from_bytes(found.body).reason, found.checkpoint) == ("ledger", None)


def test_an_error_nobody_thought_of_is_failed_without_a_word(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    approve(home)
    told: list[str] = []

    def fail(*of: object) -> Any:
        raise RuntimeError(f"{WORD}: Mary")

    monkeypatch.setattr(reception_module, "load_cohort", fail)
    data = reception(home, told.append).answer(CONSORTIUM, asking().to_bytes())
    assert Reply.from_bytes(Receipt.from_bytes(data).body).status is Status.FAILED
    assert WORD not in told[-1]
    assert WORD.encode() not in data


HOSTILE = {
    "weight": ["NaN", "1e999", "3,2", WORD, "-inf", "٣", "0x10", "9" * 5000],
    "bmi": ["", "99999", "-0", "1e-400", f'"{WORD}', "19\t", "\0", "19"],
    "sex": ["", "GIRL", WORD, "girl ", "\ud7ff", "é", "null", "boy"],
    "seen": ["", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", WORD, "2026-13-01", "1e999", "NaT", "2026-01"],
}


def test_no_status_depends_on_what_one_patients_cells_hold(tmp_path: Path) -> None:
    """A table that one cell could make unreadable would tell, for nothing, whether the cell is there."""
    found = set()
    for k in range(9):
        table = rows(40)
        if k:
            strange = {name: values[k - 1] for name, values in HOSTILE.items()}
            table = pd.concat([table, pd.DataFrame([{**table.iloc[0].to_dict(), "child": f"{WORD}{k}", **strange}] * 2)])
        home = node(tmp_path, f"n{k}", table=table)
        approve(home)
        asked = reception(home)
        found.add(tuple(reply(asked, home, asking(ask)).status for ask in ("children", "size", "bins")))
    assert found == {(Status.RELEASED,) * 3}


@pytest.mark.parametrize("bad", [b"", b"child;x\n", b"\xff\xfe\x00", b'"', b"child,child,sex,smoked,weight,bmi,seen\n"])
def test_a_file_that_is_no_table_is_a_reason_about_no_patient(home: NodeHome, bad: bytes) -> None:
    approve(home)
    path = home.path / "table.csv"
    path.write_bytes(bad)
    home.connect(file_source(path))
    before = spent(home)
    assert reply(reception(home), home, asking()).reason == "table"
    assert spent(home) == before


def planted(table: pd.DataFrame) -> pd.DataFrame:
    """Canary words wherever a table can hold them, each in cells that count as not known."""
    words = [f"{WORD}{k}" for k in range(len(table))]
    table = table.assign(child=words, name=words)
    for name in ("smoked", "weight", "sex"):
        table.loc[table.index % 3 == 0, name] = [word for k, word in enumerate(words) if k % 3 == 0]
    return table


class Fuzzed:
    """A node that has answered its whole study: from then on every message is refused or a replay."""

    def __init__(self, home: NodeHome, told: list[str]) -> None:
        self.home, self.told = home, told
        approve(home)
        self.asked = reception(home, told.append)
        steps = [(ask.id, step) for ask in STUDY.asks for step in range(len(ask.analysis.schedule()))]
        self.calls = [asking(ask, step, fitting(STUDY, ask, step)) for ask, step in steps] + [proposing()]
        self.witness = receipt(self.asked, home, self.calls[-1]).checkpoint
        for call in self.calls[:-1]:
            assert reply(self.asked, home, call).status in (Status.RELEASED, Status.BELOW)
        self.before = spent(home)

    def throw(self, data: bytes) -> None:
        answer = self.asked.answer(CONSORTIUM, data)
        found = Receipt.from_bytes(answer)
        assert found.node == self.home.key.fingerprint
        try:
            found.check(self.home.key.public, Call.from_bytes(data))
        except Breach:  # no call at all: the receipt is for these bytes all the same
            assert found.call == hashlib.sha256(data).hexdigest()
            assert found.checkpoint is None
        assert WORD.encode() not in answer
        assert WORD.encode() not in found.body
        body = json.loads(found.body)
        assert body.get("status", body.get("standing")) != "failed"

    def over(self) -> None:
        assert spent(self.home) == self.before
        with self.home.ledger() as ledger:
            assert ledger.verify().ok
        assert verify_audit(self.home.audit_path)[0]
        assert WORD not in self.home.audit_path.read_text()
        assert not any(WORD in each or "report this" in each for each in self.told)


STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    2**63,
    1e308,
    5e-324,
    0.1,
    "",
    "x",
    "é\ud800\u0000",
    "../../etc/passwd",
    "0" * 64,
    "x" * 10_000,
    [],
    [[]],
    {},
    {"": {}},
    [1.0] * 1000,
]


def surgery(content: Any, rng: random.Random) -> Any:
    """One place of a JSON value replaced, dropped or doubled."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        name = rng.choice(sorted(content))
        act = rng.random()
        if act < 0.1:
            return {key: value for key, value in content.items() if key != name}
        if act < 0.2:
            return {**content, str(rng.choice(["x", "__class__", "body", ""])): content[name]}
        return {**content, name: surgery(content[name], rng)}
    if isinstance(content, list) and content and rng.random() < 0.8:
        place = rng.randrange(len(content))
        return [*content[:place], surgery(content[place], rng), *content[place + 1 :]] * rng.choice([1, 1, 2])
    return rng.choice(STRANGE)


def operated(call: Call, rng: random.Random) -> bytes:
    """A call, or the request or study in it, after surgery; spelled canonically, so that it is read."""
    content = json.loads(call.to_bytes())
    if rng.random() < 0.7:
        inner = dump(surgery(json.loads(call.body), rng) or {})
        content["body"] = base64.b64encode(inner).decode()
        if rng.random() < 0.5:
            content["study"] = hashlib.sha256(inner).hexdigest()
    else:
        content = surgery(content, rng)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def message(fuzzed: Fuzzed, rng: random.Random) -> bytes:
    call = rng.choice(fuzzed.calls)
    data, act = call.to_bytes(), rng.randrange(20)
    if act < 2:
        return operated(call, rng)
    if act == 2:
        return rng.randbytes(rng.randrange(200))
    if act == 3:
        return data[: rng.randrange(len(data))]
    if act == 4:
        depth = rng.choice([10, 985, 990, 995, 100_000])
        return data.replace(b'"kept":[]', b'"kept":' + b"[" * depth + b"]" * depth)
    if act == 5:
        number = rng.choice([b"1e999", b"-0", b"1" * 5000, b"NaN", b"Infinity", b"0.1e-999", b"1E5"])
        return data.replace(b'"kept":[]', b'"kept":[' + number + b"]")
    if act == 6:
        mark = dataclasses.replace(fuzzed.witness, seq=rng.randrange(2**53))  # type: ignore[type-var]
        return dataclasses.replace(call, witness=mark, kept=(mark,) * rng.randrange(3)).to_bytes()
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def fuzz(home: NodeHome, messages: int) -> None:
    rng, told = random.Random(20270102), []
    fuzzed = Fuzzed(home, told)
    for _ in range(messages):
        fuzzed.throw(message(fuzzed, rng))
    fuzzed.over()


def test_ten_thousand_hostile_messages(tmp_path: Path, fast: None) -> None:
    fuzz(node(tmp_path, table=planted(rows(300))), 10_000)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_messages(tmp_path: Path, fast: None) -> None:
    fuzz(node(tmp_path, table=planted(rows(300))), 100_000)
