"""HTTP as it is spoken to strangers: the head of a request has a largest size, and a time in which it must have come.

uvicorn's other implementation, httptools, keeps whatever it is sent of a head; this one takes 64 KiB.
"""

from __future__ import annotations

import asyncio
from typing import final

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEAD_SECONDS = 20.0


@final
class Impatient(H11Protocol):
    """Hangs up on a connection on which no request comes, or only a part of its head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._look, self.cycle)

    def _look(self, before: RequestResponseCycle | None) -> None:
        """Between requests uvicorn's own patience counts, until the first byte of the next one."""
        if self.transport.is_closing():
            return
        between = self.cycle is None or self.cycle.response_complete
        if between and self.cycle is before and self.timeout_keep_alive_task is None:
            self.transport.abort()
        else:
            self.loop.call_later(HEAD_SECONDS, self._look, self.cycle)
