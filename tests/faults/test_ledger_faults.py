"""The ledger under faults: many writers, killed writers, a full disk, and the order of its system calls."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget, Event, Spent
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.ledger import Kind, Ledger

BUDGET = Budget(2.0, 1e-6)
WIDE = Budget(5.0, 1e-2)
EVENT = Event(sensitivity=1 << 20, sigma=1 << 24, width=3)
TINY = Event(sensitivity=1, sigma=1 << 30, width=1)

PRELUDE = """
import hashlib, itertools, os, resource, sys
from pathlib import Path
from ahh_federated.core.costs import Budget, Event
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.ledger import Ledger

def pay(ledger, request, event):
    return ledger.debit(request=request, study="s", ask=request, query="q", event=event, ceiling=WIDE)

WIDE = Budget(5.0, 1e-2)
path, name = Path(sys.argv[1]), sys.argv[2]
"""

WRITER = """
granted = refused = 0
with Ledger.open(path, dataset="children", budget=Budget(2.0, 1e-6)) as ledger:
    for k in range(int(sys.argv[3])):
        try:
            receipt = pay(ledger, f"{name}/{k}", Event(1 << 20, 1 << 24, 3))
        except Refusal as refusal:
            assert refusal.reason is Reason.BUDGET, refusal
            refused += 1
        else:
            granted += 1
            ledger.store(receipt, f"{name}/{k}".encode())
print(granted, refused)
"""

ENDLESS = """
ledger = Ledger.open(path, dataset="children", budget=WIDE)
for k in itertools.count():
    receipt = pay(ledger, f"{name}/{k}", Event(1, 1 << 30, 1))
    released = os.urandom(3000)
    ledger.store(receipt, released)
    os.write(1, f"{name}/{k} {hashlib.sha256(released).hexdigest()}\\n".encode())
"""

LIMITED = """
ledger = Ledger.open(path, dataset="children", budget=WIDE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for k in itertools.count():
        receipt = pay(ledger, f"{name}/{k}", Event(1, 1 << 30, 1))
        released = os.urandom(3000)
        ledger.store(receipt, released)
        print(f"{name}/{k} {hashlib.sha256(released).hexdigest()}", flush=True)
except Refusal as refusal:
    sys.exit(3 if refusal.reason is Reason.LEDGER else 4)
"""

TRACED = """
ledger = Ledger.open(path, dataset="children", budget=WIDE)
if name != "as shipped":
    ledger._db.execute(f"PRAGMA synchronous = {name}")
wire = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT)
for k in range(5):
    receipt = pay(ledger, f"r{k}", Event(1, 1 << 30, 1))
    os.write(wire, b"computed")
    ledger.store(receipt, b"released")
    os.write(wire, b"sent")
"""


def command(body: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", PRELUDE + body, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


def start(body: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(body, *arguments),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pay(ledger: Ledger, request: str, event: Event = TINY) -> None:
    receipt = ledger.debit(request=request, study="s", ask=request, query="q", event=event, ceiling=WIDE)
    ledger.store(receipt, request.encode() * 500)


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        act()
    assert caught.value.reason is Reason.LEDGER
    return str(caught.value)


def require_paid(ledger: Ledger, sent: Iterable[str]) -> None:
    """Every release has an earlier debit of its own request, and everything sent is stored as it was sent."""
    debits: dict[int, str | None] = {}
    for entry in ledger.entries():
        if entry.kind == Kind.DEBIT:
            debits[entry.seq] = entry.request
        if entry.kind == Kind.RELEASE:
            assert entry.debit is not None and entry.debit < entry.seq
            assert debits.pop(entry.debit) == entry.request
    for line in sent:
        request, digest = line.split()
        stored = ledger.recall(request)
        assert stored is not None and hashlib.sha256(stored).hexdigest() == digest
    assert ledger.verify().ok


def test_eight_writers_reach_the_cap_exactly(tmp_path: Path) -> None:
    cap, spent = 0, Spent() + EVENT
    while spent.within(BUDGET):
        cap, spent = cap + 1, spent + EVENT
    each = cap // 8 + 8
    writers = [start(WRITER, tmp_path / "ledger", f"w{n}", each) for n in range(8)]
    outputs = [writer.communicate() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 8, [error for _, error in outputs]
    counts = [tuple(map(int, output.split())) for output, _ in outputs]
    assert sum(granted for granted, _ in counts) == cap
    assert sum(refused for _, refused in counts) == 8 * each - cap
    with Ledger.open(tmp_path / "ledger", dataset="children", budget=BUDGET) as ledger:
        assert ledger.spent() == Spent.of([EVENT] * cap)
        assert ledger.verify().entries == 1 + 2 * cap
        require_paid(ledger, [])
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]


def test_killed_writers_never_release_unpaid(tmp_path: Path) -> None:
    rng, sent = random.Random(9), list[str]()
    for k in range(4):
        writers = [start(ENDLESS, tmp_path / "ledger", f"{k}{side}") for side in "ab"]
        for writer in writers:
            assert writer.stdout is not None
            sent += [writer.stdout.readline() for _ in range(rng.randrange(1, 40))]
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            assert writer.stdout is not None
            sent += writer.stdout.readlines()
            _, error = writer.communicate()
            assert writer.returncode == -signal.SIGKILL, error
    with Ledger.open(tmp_path / "ledger", dataset="children", budget=WIDE) as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
        assert len(sent) <= kinds.count(Kind.RELEASE) <= kinds.count(Kind.DEBIT)
        assert ledger.spent() == Spent.of([TINY] * kinds.count(Kind.DEBIT))
        require_paid(ledger, sent)
        pay(ledger, "after")


def test_a_full_database_refuses_and_stays_sound(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger", dataset="children", budget=WIDE) as ledger:
        for k in range(3):
            pay(ledger, f"r{k}")
        (pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
        ledger._db.execute(f"PRAGMA max_page_count = {pages + 3}")
        receipt = ledger.debit(request="large", study="s", ask="large", query="q", event=TINY, ceiling=WIDE)
        assert "free some disk space" in refused(lambda: ledger.store(receipt, bytes(100_000)))
        assert ledger.recall("large") is None

        def fill() -> None:
            for k in range(1000):
                ledger.debit(request=f"f{k}", study="s", ask=f"f{k}", query="q", event=TINY, ceiling=WIDE)

        refused(fill)
        debits = [entry.kind for entry in ledger.entries()].count(Kind.DEBIT)
        assert ledger.spent() == Spent.of([TINY] * debits) and ledger.verify().ok
        ledger._db.execute("PRAGMA max_page_count = 1000000")
        ledger.store(receipt, b"small")
        pay(ledger, "after")
        require_paid(ledger, [])


def test_a_write_error_of_the_system_refuses_and_stays_sound(tmp_path: Path) -> None:
    writer = start(LIMITED, tmp_path / "ledger", "w")
    output, error = writer.communicate()
    assert writer.returncode == 3, error
    sent = output.splitlines()
    assert sent
    with Ledger.open(tmp_path / "ledger", dataset="children", budget=WIDE) as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds.count(Kind.RELEASE) == len(sent)
        require_paid(ledger, sent)
        pay(ledger, "after")


def test_no_room_for_a_new_ledger_leaves_no_file(tmp_path: Path) -> None:
    body = """
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
try:
    Ledger.open(path, dataset="children", budget=Budget(2.0, 1e-6))
except Refusal as refusal:
    sys.exit(3 if refusal.reason is Reason.LEDGER else 4)
"""
    writer = start(body, tmp_path / "ledger", "w")
    _, error = writer.communicate()
    assert writer.returncode == 3, error
    assert not (tmp_path / "ledger").exists()
    with Ledger.open(tmp_path / "ledger", dataset="children", budget=BUDGET) as ledger:
        assert ledger.verify().ok


def traced(tmp_path: Path, synchronous: str) -> list[str]:
    """The system calls of five releases in order: write, sync, link, folder or a marker on the wire."""
    trace, path, wire = tmp_path / "trace", tmp_path / "ledger", tmp_path / "wire"
    program = command(TRACED, path, synchronous, wire)
    calls = "trace=write,pwrite64,pwritev,fsync,fdatasync,link,linkat"
    subprocess.run(["strace", "-y", "-e", calls, "-o", str(trace), *program], env=environment(), check=True, timeout=120)
    marks = {
        rf"p?write\w*\(\d+<{re.escape(str(path))}-wal>": "write",
        rf"f(data)?sync\(\d+<{re.escape(str(path))}-wal>\) += 0": "sync",
        rf"link(at)?\(.*\"{re.escape(str(path))}\".* = 0": "link",
        rf"fsync\(\d+<{re.escape(str(tmp_path))}>\) += 0": "folder",
        rf"write\(\d+<{re.escape(str(wire))}>, \"computed": "computed",
        rf"write\(\d+<{re.escape(str(wire))}>, \"sent": "sent",
    }
    lines = trace.read_text().splitlines()
    return [mark for line in lines for pattern, mark in marks.items() if re.match(pattern, line)]


def durable(calls: list[str]) -> list[bool]:
    """For each marker: was the ledger written since the last one, and synced after its last write?"""
    answers, written, synced = list[bool](), False, False
    for call in calls:
        if call == "write":
            written, synced = True, False
        elif call == "sync":
            synced = written
        elif call in ("computed", "sent"):
            answers.append(written and synced)
            written = synced = False
    return answers


@pytest.fixture
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: only the order of system calls can tell FULL from OFF")
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here: the system forbids ptrace")


@pytest.mark.usefixtures("strace")
def test_a_debit_is_on_the_disk_before_anything_else_happens(tmp_path: Path) -> None:
    calls = traced(tmp_path, "as shipped")
    assert durable(calls) == [True] * 10
    assert calls.index("link") < calls.index("folder") < calls.index("write")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_the_order_of_calls_tells_a_weaker_ledger_apart(tmp_path: Path, synchronous: str) -> None:
    answers = durable(traced(tmp_path, synchronous))
    assert len(answers) == 10 and not any(answers[1:])
