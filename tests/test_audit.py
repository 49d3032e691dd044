"""The audit log: whatever is changed in it shows, and no crash, no full disk and no other process can break its chain."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ahh_federated.audit import Audit, verify_audit
from ahh_federated.errors import Misuse

Lines = list[bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def filled(path: Path, events: int = 12) -> bytes:
    audit = Audit(path)
    for k in range(events):
        audit.write("ask", study=f"{k:064x}", decision="released", epsilon=k / 7, reason='a "}" in a text', open=None, ok=True)
    return path.read_bytes()


def test_events_come_back_in_order(path: Path) -> None:
    assert list(Audit(path).entries()) == []
    assert verify_audit(path)[:2] == (True, 0)
    filled(path, 3)
    found = list(Audit(path).entries())
    assert [entry["seq"] for entry in found] == [1, 2, 3]
    assert {key: found[2][key] for key in ("event", "decision", "epsilon", "open", "ok")} == {
        "event": "ask",
        "decision": "released",
        "epsilon": 2 / 7,
        "open": None,
        "ok": True,
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert verify_audit(path)[:2] == (True, 3)


def edit(lines: Lines, rng: random.Random) -> Lines:
    """One byte becomes another; the end of the last line stays, or it would be a tail cut off."""
    place = rng.randrange(len(lines))
    line = bytearray(lines[place])
    where = rng.randrange(len(line) - (place == len(lines) - 1))
    line[where] = (line[where] + rng.randrange(1, 256)) % 256
    return [*lines[:place], bytes(line), *lines[place + 1 :]]


def spell(lines: Lines, rng: random.Random) -> Lines:
    """The same content in another spelling."""
    place = rng.randrange(len(lines))
    old, new = rng.choice(
        [(b":", b": "), (b"ask", b"\\u0061sk"), (b"true", b" true"), (b'{"', b'{"event":"x","'), (b"}\n", b"}\r\n")]
    )
    return [*lines[:place], lines[place].replace(old, new, 1), *lines[place + 1 :]]


def drop(lines: Lines, rng: random.Random) -> Lines:
    place = rng.randrange(len(lines) - 1)  # without the last one it is a tail cut off
    return lines[:place] + lines[place + 1 :]


def swap(lines: Lines, rng: random.Random) -> Lines:
    one, other = rng.sample(range(len(lines)), 2)
    changed = list(lines)
    changed[one], changed[other] = changed[other], changed[one]
    return changed


def insert(lines: Lines, rng: random.Random) -> Lines:
    """A copy, a forgery that follows the line before, or junk."""
    place = rng.randrange(len(lines) + 1)
    before = json.loads(lines[place - 1]) if place else {"seq": 0, "hash": "0" * 64}
    forged = {**json.loads(lines[0]), "seq": before["seq"] + 1, "event": "approved", "previous": before["hash"], "hash": "f" * 64}
    new = rng.choice(
        [rng.choice(lines), json.dumps(forged, separators=(",", ":")).encode() + b"\n", b"\n", b"junk\n", b"{}\n", b"[]\n"]
    )
    return [*lines[:place], new, *lines[place:]]


def clear(lines: Lines, rng: random.Random) -> Lines:
    """A value is changed and the line's own hash is made to fit."""
    place = rng.randrange(len(lines) - 1)
    content = {**json.loads(lines[place]), "decision": "refused"}
    del content["hash"]
    spelled = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    content["hash"] = hashlib.sha256(spelled).hexdigest()
    return [*lines[:place], json.dumps(content, separators=(",", ":")).encode() + b"\n", *lines[place + 1 :]]


def test_every_change_in_a_thousand_is_found(path: Path) -> None:
    lines = filled(path).splitlines(keepends=True)
    rng = random.Random(20270101)
    changes: list[Callable[[Lines, random.Random], Lines]] = [edit, spell, drop, swap, insert, clear]
    for k in range(1000):
        changed = changes[k % len(changes)](lines, rng)
        path.write_bytes(b"".join(changed))
        ok, sound, _ = verify_audit(path)
        assert not ok, (k, changes[k % len(changes)].__name__)
        assert sound <= 1 or changed[: sound - 1] == lines[: sound - 1]  # its own hash made to fit, a line shows in the next


def test_a_tail_cut_off_needs_a_copy_and_says_so(path: Path) -> None:
    lines = filled(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    ok, sound, why = verify_audit(path)
    assert (ok, sound) == (True, len(lines) - 1)
    assert "a tail cut off would show only against a copy" in why


@pytest.mark.parametrize("kept", [1, 2, 20, 200, -2, -1])
def test_a_line_that_a_crash_cut_short_is_no_event_and_breaks_nothing(path: Path, kept: int) -> None:
    whole = filled(path, 3)
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:kept])
    assert verify_audit(path)[:2] == (True, 3)
    assert len(list(Audit(path).entries())) == 3
    Audit(path).write("ask", after="the crash")
    assert verify_audit(path)[:2] == (True, 4)
    assert path.read_bytes().startswith(whole)
    assert [entry["seq"] for entry in Audit(path).entries()] == [1, 2, 3, 4]


def test_zeros_that_a_power_cut_left_are_no_event(path: Path) -> None:
    whole = filled(path, 2)
    path.write_bytes(whole + bytes(300))
    Audit(path).write("ask")
    assert verify_audit(path)[:2] == (True, 3)


def test_a_log_whose_first_line_was_cut_short(path: Path) -> None:
    path.write_bytes(b'{"seq":1,"ti')
    Audit(path).write("ask")
    assert verify_audit(path)[:2] == (True, 1)


@pytest.mark.parametrize(
    "junk", [b'{"seq":"x","hash":1}\n', b'{"seq":true,"hash":"a"}\n', b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"NaN\n"]
)
def test_what_somebody_wrote_by_hand_is_found_and_stops_no_event(path: Path, junk: bytes) -> None:
    whole = filled(path, 2)
    path.write_bytes(whole + junk)
    assert verify_audit(path)[:2] == (False, 2)
    Audit(path).write("ask")
    assert verify_audit(path)[:2] == (False, 2)


def test_four_processes_write_one_chain(path: Path) -> None:
    code = "import sys; from pathlib import Path; from ahh_federated.audit import Audit\n"
    code += "for k in range(50): Audit(Path(sys.argv[1])).write('ask', who=sys.argv[2], k=k)"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path), str(who)]) for who in range(4)]
    assert [process.wait(60) for process in started] == [0] * 4
    assert verify_audit(path)[:2] == (True, 200)
    for who in "0123":
        assert [entry["k"] for entry in Audit(path).entries() if entry["who"] == who] == list(range(50))


def test_a_full_disk_is_said_and_what_was_written_of_the_line_is_no_event(path: Path) -> None:
    """A file size limit stands for the disk: a part of the line still fits."""
    whole = filled(path, 4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 50, hard))
    try:
        with pytest.raises(Misuse, match="check the disk"):
            Audit(path).write("ask", study="0" * 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert verify_audit(path)[:2] == (True, 4)
    Audit(path).write("ask", study="1" * 64)
    assert verify_audit(path)[:2] == (True, 5)
    assert [entry.get("study") for entry in Audit(path).entries()][-1] == "1" * 64


def test_a_log_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(Misuse):
        Audit(tmp_path / "none" / "audit.jsonl").write("ask")
    with pytest.raises(Misuse):
        Audit(tmp_path).write("ask")


@pytest.mark.parametrize("name", ["seq", "time", "previous", "hash"])
def test_a_fact_cannot_stand_for_the_logs_own(path: Path, name: str) -> None:
    with pytest.raises(ValueError):
        Audit(path).write("ask", **{name: "x"})
    assert not path.exists()


def test_a_text_cannot_begin_a_line_of_its_own(path: Path) -> None:
    Audit(path).write("ask", text='x"}\n{"seq":2,"event":"approved"}\n\u2028\x0c\ud800')
    assert verify_audit(path)[:2] == (True, 1)
    assert path.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("fact", [float("nan"), float("inf"), "x" * 100_000])
def test_what_is_no_fact_is_not_written(path: Path, fact: float | str) -> None:
    whole = filled(path, 1)
    with pytest.raises(ValueError):
        Audit(path).write("ask", fact=fact)
    assert path.read_bytes() == whole
