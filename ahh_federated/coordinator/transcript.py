"""Everything that crossed the wire, one JSON line a step: enough to recompute every number without any node."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, final

from ahh_federated.errors import Breach, Misuse
from ahh_federated.study import Study, canonical, parse_study
from ahh_federated.wire import Reply, Request

FORMAT = "ahh-transcript/1"
TRANSCRIPT = "transcript.jsonl"
_HEADER = {"format", "study", "partners", "stamp", "run", "exact"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a transcript is about: the study in full, the partners asked, and how the run was made."""

    study: Study
    partners: tuple[str, ...]
    run: str
    exact: bool

    @property
    def stamp(self) -> str:
        """What every output says on top; empty for a private run."""
        if self.exact:
            return "NOT PRIVATE: exact run without noise"
        return "NOT PRIVATE: fixed seed" if self.run else ""


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """One request and every partner's reply."""

    request: Request
    replies: Mapping[str, Reply]


@dataclass(frozen=True, slots=True)
class Spending:
    """What a partner's data set has spent over all studies, at its own delta, and its limit."""

    epsilon: float
    epsilon_limit: float
    delta_limit: float


def dump_spending(spending: Mapping[str, Spending]) -> str:
    return _line({"spending": {name: asdict(each) for name, each in sorted(spending.items())}})


def dump_header(header: Header) -> str:
    content = {
        "format": FORMAT,
        "study": json.loads(canonical(header.study.content)),
        "partners": list(header.partners),
        "stamp": header.stamp,
        "run": header.run,
        "exact": header.exact,
    }
    return _line(content)


def dump_exchange(exchange: Exchange) -> str:
    replies = {name: reply.to_json() for name, reply in sorted(exchange.replies.items())}
    return _line({"request": exchange.request.to_json(), "replies": replies})


@final
class Recorder:
    """Keeps every exchange, and writes it to `out` before it is used."""

    def __init__(self, header: Header, out: Path | str | None) -> None:
        self.exchanges: list[Exchange] = []
        self._file: TextIO | None = None
        if out is not None:
            try:
                Path(out).mkdir(parents=True, exist_ok=True)
                self._file = (Path(out) / TRANSCRIPT).open("w", encoding="utf-8")
            except OSError as error:
                raise Misuse(f"{out} cannot be written to ({error.strerror}): give a folder, new or old, as OUT") from None
            try:
                self._write(dump_header(header))
            except BaseException:
                self._file.close()
                raise

    @classmethod
    def resume(cls, header: Header, out: Path) -> Recorder:
        """Go on with the transcript in `out` where a crash ended it, or begin one.

        Raises:
            Breach: when it is about another study or other partners.
        """
        path = out / TRANSCRIPT
        if not path.exists() or b"\n" not in path.read_bytes():
            return cls(header, out)
        found, exchanges = cls.mended(path)
        if dump_header(found) != dump_header(header):
            raise Breach(f"{path.name} is about another study, or other partners, than the run that goes on")
        recorder = cls(header, None)
        recorder.exchanges = exchanges
        recorder._file = path.open("a", encoding="utf-8")
        return recorder

    @staticmethod
    def mended(path: Path) -> tuple[Header, list[Exchange]]:
        """What a transcript holds, without a line that a crash cut short and without a last line: it is to be written again."""
        lines = path.read_bytes().splitlines(keepends=True)
        while lines and (not lines[-1].endswith(b"\n") or lines[-1].startswith(b'{"spending"')):
            lines.pop()
        os.truncate(path, sum(len(line) for line in lines))
        header, exchanges, _ = read_transcript(path)
        return header, exchanges

    def record(self, exchange: Exchange) -> None:
        """Keep an exchange; one that a resumed run meets again is there already."""
        if exchange.request.id in {each.request.id for each in self.exchanges}:
            return
        self.exchanges.append(exchange)
        self._write(dump_exchange(exchange))

    def finish(self, spending: Mapping[str, Spending]) -> None:
        """The last line: what the partners' ledgers say."""
        self._write(dump_spending(spending))

    def _write(self, line: str) -> None:
        if self._file is not None:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def read_transcript(path: Path) -> tuple[Header, list[Exchange], dict[str, Spending]]:
    """Read a transcript file.

    Raises:
        Misuse: when the file cannot be read.
        Breach: when it is not a transcript.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Misuse(f"{path} cannot be read: give the folder that `ahh run --out` wrote") from None
    contents = list(_parsed(lines))
    if not contents or contents[0].get("format") != FORMAT:
        raise Breach(f"{path.name} is not a transcript of the form {FORMAT}")
    body = contents[1:]
    try:
        spending = _spending(body.pop()) if body and set(body[-1]) == {"spending"} else {}
        return _header(contents[0]), [_exchange(content) for content in body], spending
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Breach(f"{path.name} has a line that is not of the form {FORMAT}") from None


def _parsed(lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            raise Breach(f"line {number} of the transcript is not JSON") from None
        if not isinstance(content, dict):
            raise Breach(f"line {number} of the transcript is not a table")
        yield content


def _header(content: Mapping[str, Any]) -> Header:
    study = dict(content["study"])
    study["study"] = {**study["study"], "expires": date.fromisoformat(study["study"]["expires"])}
    partners, stamp, run, exact = (content[name] for name in ("partners", "stamp", "run", "exact"))
    texts = isinstance(partners, list) and all(isinstance(each, str) and each.isprintable() for each in [*partners, stamp, run])
    if not texts or len(set(partners)) != len(partners) or not isinstance(exact, bool) or set(content) != _HEADER:
        raise Breach("the first line of a transcript names the study, the partners and how the run was made")
    header = Header(parse_study(study), tuple(partners), run, exact)
    if header.stamp != stamp:
        raise Breach("the stamp of a transcript is not the one its run must have")
    return header


def _exchange(content: Mapping[str, Any]) -> Exchange:
    if set(content) != {"request", "replies"}:
        raise Breach("a line of a transcript is one request and its replies")
    replies = {str(name): Reply.from_json(reply) for name, reply in content["replies"].items()}
    return Exchange(Request.from_json(content["request"]), replies)


def _spending(content: Mapping[str, Any]) -> dict[str, Spending]:
    spending = {str(name): Spending(**each) for name, each in content["spending"].items()}
    if not all(type(value) is float and math.isfinite(value) for each in spending.values() for value in asdict(each).values()):
        raise Breach("what the partners have spent is finite numbers")
    return spending


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n"
