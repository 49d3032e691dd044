"""What stands behind the manuals of the three roles: a live federation, and the page's own `serve` as a process.

Each context manager is given the page's working folder and one for itself, and gives the port to read for the pages' 8443.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ahh_federated.coordinator.home import split_address
from ahh_federated.node.stewardship import decide, propose
from ahh_federated.runtimes.handouts import write_access, write_invitation
from ahh_federated.study import canonical, open_study
from tests.docs.pages import ROOT, Command
from tests.federation import rig
from tests.federation.rig import Federation, free_port

MEMBERS = ("city-school-health", "hospital-helix", "hospital-zas", "university-birth-cohort")
PATIENCE = 60.0


@contextmanager
def federation(root: Path, names: Iterable[str] = ()) -> Iterator[Federation]:
    """A coordinator that serves, and a serving member for each name."""
    made = Federation(root, tuple(names))
    try:
        made.start("coordinator")
        made.up()
        made.found()
        made.enrol()
        for each in made.names:
            made.start(each)
        yield made
    finally:
        made.close()


@contextmanager
def operators(workspace: Path, root: Path) -> Iterator[int]:
    """Nothing: the page makes a coordinator of its own."""
    yield free_port()


@contextmanager
def researchers(workspace: Path, root: Path) -> Iterator[int]:
    """Four members whose data stewards have approved the example, and an access file for the researcher."""
    study = open_study(workspace / "examples" / "child-overweight.toml")
    with federation(root, MEMBERS) as made:
        for node in made.nodes.values():
            propose(node, canonical(study.content), "")
            decide(node, study.digest, "approved", by="steward")
        write_access(made.coordinator, made.roster, "an-peeters", workspace / "an-peeters.access.toml")
        yield split_address(made.coordinator.address)[1]


@contextmanager
def partners(workspace: Path, root: Path) -> Iterator[int]:
    """A coordinator that has invited the partner of the page, and has a study to propose that one partner is enough for."""
    (workspace / "partners").symlink_to(workspace / "demo-output" / "partners")
    (workspace / "opted-out.txt").write_text("child-0000001\nchild-0000002\n")
    with federation(root) as made:
        write_invitation(made.coordinator, made.roster, "hospital-zas", out=workspace / "hospital-zas.invitation.toml")
        made.queue.submit(canonical(rig.study(minimum_partners=1).content), "an-peeters")
        yield split_address(made.coordinator.address)[1]


class Serving:
    """The processes that a page starts; each is waited for until it says that it is up."""

    def __init__(self, root: Path) -> None:
        self._root, self._processes = root, list[subprocess.Popen[bytes]]()

    def start(self, command: Command) -> None:
        up = {"coordinator": ["listens on"], "node": ["connected", "is pending"]}[command.words[1]]
        path = self._root / f"served-{len(self._processes)}.log"
        with path.open("wb") as log:
            line = [sys.executable, "-m", "ahh_federated", *command.words[1:]]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            self._processes.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
        end = time.monotonic() + PATIENCE
        while not all(words in path.read_text(errors="replace") for words in up):
            ended = self._processes[-1].poll()
            assert ended is None and time.monotonic() < end, f"{command} ({ended}): {path.read_text(errors='replace')}"
            time.sleep(0.05)

    def stop(self) -> list[int]:
        """How each has ended when it was told to stop."""
        for process in self._processes:
            process.terminate()
        try:
            return [process.wait(PATIENCE) for process in self._processes]
        finally:
            for process in self._processes:
                process.kill()
