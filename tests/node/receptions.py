"""What a reception must not reach and how it refuses: shared by the tests of the reception."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest

from ahh_federated.core.releases import Status
from ahh_federated.errands import ASK, Call
from ahh_federated.errors import Reason
from ahh_federated.node import desk as desk_module
from ahh_federated.node import reception as reception_module
from ahh_federated.node.home import NodeHome
from ahh_federated.node.reception import Reception
from ahh_federated.wire import Reply
from tests.node.nodes import last_event, reply, spent

WORD = "Zq7canary"


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
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


def hastened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the disk or reading the rules anew: neither a crash nor a steward comes in between here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    policy = functools.cache(lambda home: home.policy)
    monkeypatch.setattr(Reception, "_rules", lambda self: policy(self._home))
