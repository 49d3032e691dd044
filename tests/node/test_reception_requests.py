"""Studies, decisions and requests that are not what the steward approved: refused, with nothing computed and nothing spent."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.core.releases import Status
from ahh_federated.errors import Reason
from ahh_federated.node import desk as desk_module
from ahh_federated.node.home import NodeHome
from ahh_federated.node.stewardship import decide, propose
from tests.node.nodes import (
    CONSORTIUM,
    STUDY,
    approve,
    asking,
    last_event,
    node,
    proposing,
    reception,
    reply,
    spelled,
    spent,
    standing,
)
from tests.node.receptions import refused, watched
from tests.study.samples import QUIET, TODAY, request, small


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path)


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return watched(monkeypatch)


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
