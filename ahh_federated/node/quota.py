"""How many lines a minute somebody outside may cause in a log that is never shortened."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_MINUTE = 60.0


@dataclass(slots=True)
class Quota:
    """At most `most` a minute; `withheld` counts those that were not allowed since the last one that was."""

    most: int
    clock: Callable[[], float] = time.monotonic
    withheld: int = 0
    _since: float = 0.0
    _used: int = 0

    def allows(self) -> bool:
        now = self.clock()
        if self._used == 0 or now - self._since >= _MINUTE:
            self._since, self._used = now, 0
        if self._used >= self.most:
            self.withheld += 1
            return False
        self._used += 1
        return True
