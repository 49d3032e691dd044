"""The audit log: who asked what and what was decided, one JSON line an event, each chained to the one before.

Appended and never changed; safe under several processes.  The chain shows any edited, dropped, swapped or inserted line, to the
byte; that the last lines were cut off shows only against a copy kept elsewhere.  A line without its end was cut short by a crash
or a full disk: it is no event, and the next event takes its place.  It holds decisions and costs, never a patient's value.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from ahh_federated.errors import Misuse

Fact = str | int | float | bool | None
GENESIS = "0" * 64
_TAIL = 1 << 16  # bytes; no line is longer
_OWN = ("seq", "time", "event", "previous", "hash")


@dataclass(frozen=True, slots=True)
class Audit:
    """The log in the file `path`, made with mode 0600 by the first event."""

    path: Path

    def write(self, event: str, **facts: Fact) -> None:
        """Append one event; on the disk before this returns.

        Raises:
            Misuse: when the file cannot be written; do not go on with what was to be logged then.
        """
        if set(facts) & set(_OWN):
            raise ValueError(f"{_OWN} are the log's own")
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            with os.fdopen(handle, "r+b", buffering=0) as file:
                fcntl.flock(handle, fcntl.LOCK_EX)
                _append(file, event, facts)
                os.fsync(handle)
        except OSError as error:
            raise Misuse(f"{self.path} cannot be written ({error.strerror}): check the disk and the file's rights") from None

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every event as written, oldest first; lines that a crash cut short are left out."""
        yield from (content for line in _lines(self.path) if (content := _parsed(line)) is not None)


def verify_audit(path: Path) -> tuple[bool, int, str]:
    """Walk the chain: whether it is whole, how many events are sound, and why not.

    A last line that was cut short is no event, and no fault.
    """
    previous, sound = GENESIS, 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.endswith(b"\n"):
            break
        content = _parsed(line)
        if content is None or line != _spelled(content) or content["hash"] != _digest(content):
            return False, sound, f"line {number} was changed"
        if content.get("previous") != previous or content["seq"] != sound + 1:
            return False, sound, f"line {number} does not follow the one before it"
        previous, sound = content["hash"], sound + 1
    return True, sound, f"{sound} events are sound; a tail cut off would show only against a copy kept elsewhere"


def _append(file: BinaryIO, event: str, facts: dict[str, Fact]) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    end = size - len(tail) + tail.rfind(b"\n") + 1
    if end < size:
        file.truncate(end)
    last = next((each for line in reversed(tail.splitlines(keepends=True)) if (each := _parsed(line)) is not None), None)
    seq, previous = (0, GENESIS) if last is None else (last["seq"], last["hash"])
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    content: dict[str, Any] = {"seq": seq + 1, "time": time, "event": event, **facts, "previous": previous}
    content["hash"] = _digest(content)
    line = _spelled(content)
    if len(line) > _TAIL // 2:
        raise ValueError("an event is a line, not a document")
    while line:  # a disk that is nearly full takes a part, and refuses the rest
        line = line[file.write(line) :]


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(_spelled({name: value for name, value in content.items() if name != "hash"})).hexdigest()


def _spelled(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line, parse_constant=_no_number) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    sound = isinstance(content, dict) and type(content.get("seq")) is int and isinstance(content.get("hash"), str)
    return content if sound else None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): check the file's rights") from None
