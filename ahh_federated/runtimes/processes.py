"""What a process that serves until it is told to stop needs: an end, and a line for each event."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ahh_federated.errors import Misuse


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


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold the file `path` locked.  Raises Misuse when another process does; the lock ends with the process."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Misuse(f"{what} is served by another process: end that one first") from None
    finally:
        os.close(handle)


def log(line: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}", file=sys.stderr, flush=True)
