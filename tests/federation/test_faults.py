"""Processes that die: whatever is killed, the study ends, and nothing is paid or drawn twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahh_federated.coordinator.queue import State
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.core.releases import Status
from tests.federation.rig import Federation, debits, study

NAMES = ("east", "north", "south")


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, NAMES)
    try:
        made.start("coordinator")
        made.up()
        made.found()
        made.enrol()
        for name in NAMES:
            made.start(name)
        made.until(lambda: all("connected" in made.log(name) for name in NAMES))
        yield made
    finally:
        made.close()


def check(federation: Federation, asked_steps: int) -> None:
    """Each step was paid once and released once at every node."""
    for name in NAMES:
        entries = federation.entries(name)
        paid = debits(entries)
        assert set(paid.values()) == {1}
        assert len(paid) == sum(entry.kind == "release" for entry in entries) == asked_steps


def steps(asked: object) -> int:
    return sum(len(ask.analysis.schedule()) for ask in asked.asks)


def test_nodes_and_coordinator_are_killed_over_and_over(federation: Federation) -> None:
    asked = study()
    federation.submit(asked)
    chance, transcript = random.Random(20), federation.coordinator.transcript(asked.digest)
    for lines, who in enumerate(["north", "coordinator", "east", "coordinator", "south", "north"], start=1):
        federation.until(lambda lines=lines: transcript.exists() and transcript.read_bytes().count(b"\n") >= lines)
        time.sleep(chance.uniform(0.0, 0.2))
        assert not federation.state(asked).state.over
        federation.kill(who)
        time.sleep(chance.uniform(0.0, 0.5))
        federation.start(who)
    over = federation.done(asked)
    assert (over.state, over.reason) == (State.DONE, ""), over
    header, exchanges, spending = read_transcript(federation.coordinator.transcript(asked.digest))
    assert header.partners == NAMES and set(spending) == set(NAMES)
    assert len(exchanges) == steps(asked)
    assert all(reply.status is Status.RELEASED for each in exchanges for reply in each.replies.values())
    check(federation, steps(asked))


def test_a_partner_that_dies_for_good_neither_stalls_nor_ends_the_study(federation: Federation) -> None:
    asked = study(round_deadline=8.0)
    federation.submit(asked)
    federation.until(lambda: federation.state(asked).progress.get("ask") == "model")
    federation.kill("south")
    over = federation.done(asked)
    assert over.state is State.DONE
    _, exchanges, _ = read_transcript(federation.coordinator.transcript(asked.digest))
    last = exchanges[-1].replies
    assert {name: reply.status for name, reply in last.items() if name != "south"} == {
        "east": Status.RELEASED,
        "north": Status.RELEASED,
    }
    said = [each.replies["south"].status for each in exchanges if "south" in each.replies]
    assert said[0] is Status.RELEASED and Status.OFFLINE in said
