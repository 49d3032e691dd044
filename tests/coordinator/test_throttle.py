"""Failed logins are counted by network and all together, within bounded memory."""

from __future__ import annotations

import pytest

from ahh_federated.coordinator import throttle as module
from ahh_federated.coordinator.throttle import MOST_PER_ADDRESS, MOST_TOGETHER, WINDOW, Throttle


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock):
    return Throttle(clock)


def test_an_address_has_so_many_failures_a_minute(throttle, clock):
    assert [throttle.failed("10.0.0.1") for _ in range(MOST_PER_ADDRESS + 2)] == [True] * MOST_PER_ADDRESS + [False] * 2
    assert throttle.failed("10.0.0.2")  # another is not touched
    clock.now += WINDOW
    assert throttle.failed("10.0.0.1")


def test_one_ipv6_network_is_one_address(throttle):
    within = [throttle.failed(f"2001:db8::{k:x}") for k in range(MOST_PER_ADDRESS + 5)]
    assert within.count(True) == MOST_PER_ADDRESS
    assert throttle.failed("2001:db8:0:1::1")


def test_all_together_have_so_many(throttle):
    within = [throttle.failed(f"10.{k >> 8}.{k & 255}.1") for k in range(2 * MOST_TOGETHER)]
    assert within.count(True) == MOST_TOGETHER


def test_what_was_not_logged_is_told_once(throttle):
    for _ in range(MOST_PER_ADDRESS + 7):
        throttle.failed("10.0.0.1")
    assert (throttle.unlogged(), throttle.unlogged()) == (7, 0)


def test_memory_is_bounded(throttle, monkeypatch):
    monkeypatch.setattr(module, "_MOST_ADDRESSES", 50)
    for k in range(500):
        throttle.failed(f"10.0.{k >> 8}.{k & 255}")
    assert len(throttle._addresses) <= 50


@pytest.mark.parametrize("address", ["", "unix:", "testclient", "x" * 1000])
def test_whatever_an_address_is(throttle, address):
    assert throttle.failed(address)
