"""Rounds between machines: this project's coordinator and nodes beside stock Flower, in one run on loopback.

    python -m benchmarks.federation [--nodes 4 8 20] [--rounds 12] [--stock-rounds 4]

Each line is one federation of separate processes over TLS, with authenticated nodes and SQLite state:

- `ahh`: `ahh coordinator serve` and `ahh node serve`; a study of counts, each round paid, noised, signed and logged;
- `stock`: `flower-superlink`, `flower-supernode` and an app that sends 300 bytes to every node and back, the least Flower can do;
- `stock, our apps`: the same study on stock Flower, as docs/stock-flower.md runs it.

First round: from the start of the first process to the end of the first round.  Round: the mean of those after it.  Bytes: what
crossed the loopback interface in a round, both ways, the noise of idle polling included.  Memory: resident, all processes of a
side together, at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ahh_federated.coordinator import home as coordinator_home
from ahh_federated.coordinator.roster import Roster
from ahh_federated.node import home as node_home
from ahh_federated.node.stewardship import decide, propose
from ahh_federated.study import Study, canonical, open_study
from tests.federation.rig import EXAMPLE, ROOT, Federation
from tests.federation.stock import Stock, superlink, supernode

CHILDREN = 2_000
LEAN = ROOT / "benchmarks" / "lean"
OURS = ROOT / "examples" / "stock-flower"


@dataclass(frozen=True)
class Figures:
    """Seconds, bytes and MiB of one federation."""

    engine: str
    nodes: int
    first: float
    round: float
    bytes: float
    coordinator: float
    node: float


def study_file(folder: Path, rounds: int) -> Path:
    """A study of `rounds` counts, one round each."""
    head = EXAMPLE.read_text().split("[[ask]]")[0].replace("minimum_partners = 4", "minimum_partners = 2")
    ask = '[[ask]]\nid = "count-{0}"\nanalysis = "count"\nby = ["sex"]\nshare = {1}\n'
    path = folder / "rounds.toml"
    path.write_text(head + "".join(ask.format(number, 1 / rounds - 1e-6) for number in range(rounds)))
    return path


def names(count: int) -> tuple[str, ...]:
    return tuple(f"partner-{number:02}" for number in range(count))


def ours(count: int, rounds: int, root: Path) -> Figures:
    federation = Federation(root, names(count))
    study = open_study(study_file(root, rounds))
    try:
        federation.start("coordinator")
        federation.up()
        federation.found(CHILDREN)
        federation.enrol()
        federation.close()  # enrolled: the clock starts with all processes at rest
        federation.processes.clear()
        federation.submit(study)
        start = time.time()
        for who in ("coordinator", *federation.names):
            federation.start(who)
        ends, sent = watch(lambda: lines(federation.coordinator.transcript(study.digest)) - 1, rounds, federation.log)
        memory = {who: resident([process.pid]) for who, process in federation.processes.items()}
    finally:
        federation.close()
    coordinator = memory.pop("coordinator")
    return figures("ahh", count, start, ends, sent, coordinator, sum(memory.values()) / count)


def stock(count: int, rounds: int, root: Path, *, lean: bool) -> Figures:
    rig, times = Stock(root), root / "times"
    path = study_file(root, rounds)
    study = open_study(path)
    prepare(root, rig.port, study, names(count))
    try:
        start = time.time()
        superlink(rig)
        rig.listens(rig.port)
        for name in names(count):
            supernode(rig, name)
        config = f'rounds={rounds} nodes={count} times="{times}"' if lean else f'home="{root}/coordinator" study="{path}"'
        rig.flwr("run", str(LEAN if lean else OURS), "lab", "-c", config)
        transcript = coordinator_home.open_home(root / "coordinator").transcript(study.digest)
        done = (lambda: lines(times)) if lean else (lambda: lines(transcript) - 1)
        ends, sent = watch(done, rounds, lambda who: rig.logs())
        link, *nodes = (resident(family(process.pid)) for process in rig.processes)
    finally:
        rig.stop()
    return figures("stock" if lean else "stock, our apps", count, start, ends, sent, link, sum(nodes) / count)


def prepare(root: Path, port: int, study: Study, partners: Sequence[str]) -> None:
    """The folders that the recipe for stock Flower begins with."""
    home = coordinator_home.create_home(root / "coordinator", "antwerp", f"127.0.0.1:{port}")
    federation = Federation(root / "tables", tuple(partners))
    federation.found(CHILDREN)
    roster = Roster(home.database)
    for name, node in federation.nodes.items():
        moved = node_home.NodeHome(root / "nodes" / name)
        moved.path.parent.mkdir(exist_ok=True)
        shutil.move(node.path, moved.path)
        roster.enrol(roster.invite(name), moved.key.public)
        propose(moved, canonical(study.content), "")
        decide(moved, study.digest, "approved", by="steward")


def watch(done: Callable[[], int], rounds: int, log: Callable[[str], str]) -> tuple[list[float], list[int]]:
    """When each round ended, and how many bytes had crossed the loopback interface by then."""
    ends: list[float] = []
    sent: list[int] = []
    last = time.time()
    while len(ends) < rounds:
        if done() > len(ends):
            ends.append(time.time())
            sent.append(loopback())
            last = ends[-1]
        if time.time() - last > 400:
            raise SystemExit(f"no round for 400 seconds:\n{log('coordinator')}")
        time.sleep(0.005)
    return ends, sent


def figures(
    engine: str, count: int, start: float, ends: Sequence[float], sent: Sequence[int], coordinator: float, node: float
) -> Figures:
    after = len(ends) - 1
    return Figures(engine, count, ends[0] - start, (ends[-1] - ends[0]) / after, (sent[-1] - sent[0]) / after, coordinator, node)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def loopback() -> int:
    row = next(row for row in Path("/proc/net/dev").read_text().splitlines() if row.strip().startswith("lo:"))
    return int(row.split(":")[1].split()[0])


def resident(pids: Iterable[int]) -> float:
    """MiB."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has ended
            continue
        total += sum(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmRSS:"))
    return total / 1024


def family(pid: int) -> Iterator[int]:
    """A process and all that it started: stock Flower starts one for each app and message."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from family(int(child))


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ahh-federation-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8, 20])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--stock-rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=None, help="where the figures go as JSON")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: list[Figures] = []
    console = Console(width=110)
    for count in asked.nodes:
        with folder() as root:
            found.append(ours(count, asked.rounds, root))
        for lean in (True, False):
            with folder() as root:
                found.append(stock(count, asked.stock_rounds, root, lean=lean))
        show(console, [each for each in found if each.nodes == count])
    if asked.out is not None:
        asked.out.write_text(json.dumps([each.__dict__ for each in found], indent=1) + "\n")


def show(console: Console, found: Sequence[Figures]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    headings = ("engine", "nodes", "first round, s", "a round, s", "slower", "KiB a round", "coordinator, MiB", "a node, MiB")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "engine" else "right")
    for each in found:
        slower = f"{each.round / found[0].round:.1f}x"
        row = (f"{each.first:.1f}", f"{each.round:.2f}", slower, f"{each.bytes / 1024:.0f}")
        table.add_row(each.engine, str(each.nodes), *row, f"{each.coordinator:.0f}", f"{each.node:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
