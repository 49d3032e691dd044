"""What a process that serves until it is told to stop needs: an end, and a line for each event."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


@contextmanager
def stopping(stop: threading.Event | None) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, or the caller's own."""
    ending = stop or threading.Event()
    if stop is not None or threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = {number: signal.signal(number, lambda *_: ending.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log(line: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}", file=sys.stderr, flush=True)
