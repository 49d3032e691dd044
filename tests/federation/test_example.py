"""`make federation` and its tutorial: the same commands, and the same files as the demo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import commands
from tests.federation.rig import ROOT, free_port

TUTORIAL = ROOT / "docs" / "tutorial-federation.md"
CHILDREN = 8_000


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that the script leaves, and what it printed."""
    out, port = tmp_path_factory.mktemp("federation") / "out", free_port()
    script = ROOT / "examples" / "federation" / "run.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    ended = subprocess.run(
        [sys.executable, str(script), "--out", str(out), "--children", str(CHILDREN), "--port", str(port)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return out, ended.stdout.replace(f":{port}", ":8443")


def test_it_leaves_the_files_of_the_demo(played: tuple[Path, str]) -> None:
    out, _ = played
    assert {"report.html", "results.json", "model.json", "transcript.jsonl", "partners"} <= {each.name for each in out.iterdir()}
    results = json.loads((out / "results.json").read_text())
    assert [ask["status"] for ask in results["asks"]] == ["released"] * 8
    assert len(results["partners"]) == 8
    assert all(partner["epsilon_dataset"] > 2 for partner in results["partners"])


def cwd(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:  # it has ended, or is somebody else's
        return None


def test_it_ends_everything_it_started(played: tuple[Path, str]) -> None:
    out, _ = played
    assert [process for process in Path("/proc").glob("[0-9]*") if cwd(process) == out.resolve()] == []
    assert all("stopped; " in log.read_text() for log in out.glob("*.log"))


def test_the_tutorial_is_its_text(played: tuple[Path, str]) -> None:
    _, printed = played
    ran = [line[2:] for line in printed.splitlines() if line.startswith("$ ahh ")]
    others = re.compile(r"(city|university|zone|hospital-helix)[a-z-]*")
    told = [" ".join(command.words) for command in commands(TUTORIAL) if command.words[0] == "ahh"]
    assert [command for command in told if command not in ran] == []
    assert [command for command in ran if not others.search(command) and command not in told] == []
    places = [ran.index(command) for command in told]
    assert sorted(places) == places
