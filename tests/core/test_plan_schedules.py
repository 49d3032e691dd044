"""Schedules with plans: the first line pays, places follow in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ahh_federated.core.costs import PLAIN, Event
from ahh_federated.core.programs import Line, check_schedule
from ahh_federated.errors import Breach
from tests.core.sampled import PATIENTS, QUARTER, ROW, Total, Who


def lines(*places: int, shares: Sequence[float] = (), count: int = 3, rate: int = QUARTER) -> list[Line]:
    shares = shares or [0.0 if place else 0.4 for place in places]
    return [Line("who/1", 40, share, ROW, rate, count, place) for place, share in zip(places, shares, strict=True)]


def test_a_schedule_may_have_plans_among_other_lines() -> None:
    plain = Line("count/1", 3, 0.1)
    check_schedule([plain, *lines(0, 1, 2), plain])
    check_schedule([*lines(0, 1), *lines(0, 1, 2), plain])
    check_schedule([*lines(0), *lines(0, count=5), *lines(1), *lines(1, count=5)])


@pytest.mark.parametrize(
    "bad",
    [
        lines(1),
        lines(0, 2),
        lines(0, 1, 1),
        [*lines(0), *lines(1, count=4)],
        [*lines(0), *lines(1, rate=7)],
        lines(0, 1, shares=(0.4, 0.1)),
        lines(0, 0, shares=(0.4, 0.3)),
        lines(0, 1, shares=(0.0, 0.0)),
        lines(0, 0, 0),
    ],
    ids=["no first", "one left out", "one twice", "another count", "another rate", "a share", "unlike", "free", "too much"],
)
def test_a_plan_that_is_out_of_order_is_no_schedule(bad: list[Line]) -> None:
    with pytest.raises(Breach):
        check_schedule(bad)


def test_a_line_covers_a_program_of_its_steps() -> None:
    line = Line("local.total/1", PATIENTS, 0.5, ROW, QUARTER, 32, 0, 16)
    assert line.covers(Total())
    assert not line.covers(Total(steps=15))
    assert not replace(line, steps=1).covers(Total())
    assert not Line("who/1", PATIENTS, 0.5, ROW, QUARTER, 32, 0, 2).covers(Who())
    assert Event(ROW, ROW, 1).mechanism == PLAIN
