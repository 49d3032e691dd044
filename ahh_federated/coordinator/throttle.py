"""Counting failed logins, so that guessing floods neither the audit log nor the database.

A token is 256 random bits, so nobody is ever locked out: a token that is right always works, also from an address
that failed a thousand times.  Only failures are limited, by the caller's address and all together.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import final

WINDOW = 60.0  # seconds
MOST_PER_ADDRESS = 10
MOST_TOGETHER = 100
_MOST_ADDRESSES = 10_000


@final
class Throttle:
    """Failures in the current minute, which begins with the first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._addresses: OrderedDict[str, int] = OrderedDict()
        self._together = 0
        self._unlogged = 0

    def failed(self, address: str) -> bool:
        """Count a failure from this address; whether it is within the limits, and so to be logged."""
        self._turn()
        network = _network(address)
        count = self._addresses.get(network, 0) + 1
        self._addresses[network] = count
        self._addresses.move_to_end(network)
        if len(self._addresses) > _MOST_ADDRESSES:
            self._addresses.popitem(last=False)
        self._together += 1
        within = count <= MOST_PER_ADDRESS and self._together <= MOST_TOGETHER
        self._unlogged += not within
        return within

    def unlogged(self) -> int:
        """How many failures were over the limits since this was last asked."""
        count, self._unlogged = self._unlogged, 0
        return count

    def _turn(self) -> None:
        if self._clock() - self._began >= WINDOW:
            self._began = self._clock()
            self._addresses.clear()
            self._together = 0


def _network(address: str) -> str:
    """One machine has a whole /64 of IPv6 addresses."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address
