"""Every command that the documentation shows works as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ahh_federated.cli.main import main
from tests.architecture.test_manual import PARSERS
from tests.docs.pages import ELSEWHERE, ROOT, SHELLS, Command, blocks, commands, name, pages

EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
ENVIRONMENT = re.search(r"^VENV := (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
GIT = {"clone", "switch", "commit", "push", "pull", "status"}


def run_ahh(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process.  A command shown with an error must give that error, any other must succeed."""
    capsys.readouterr()
    try:
        status = main(command.words[1:])
    except SystemExit as end:  # --help and --version
        status = int(end.code or 0)
    printed = capsys.readouterr()
    error = next((line for line in command.output if line.startswith("ahh:")), None)
    assert (status == 0) == (error is None), f"{command} ended with {status}: {printed.err}"
    assert error is None or error in printed.err.splitlines(), f"{command} says {printed.err}"


def run_python(command: Command) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, *command.words[1:]], capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stderr}"


def check_make(command: Command) -> None:
    targets = [word for word in command.words[1:] if "=" not in word]
    assert targets and set(targets) <= TARGETS, f"{command}: the Makefile has {sorted(TARGETS)}"


def check_pip(command: Command) -> None:
    assert "install" in command.words, f"{command} is not an installation"
    named = {extra for word in command.words for part in re.findall(r"\[([^\]]+)\]", word) for extra in part.split(",")}
    assert named <= EXTRAS, f"{command}: the extras are {sorted(EXTRAS)}"


def run_one(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    match command.words[0]:
        case "ahh":
            run_ahh(command, capsys)
        case "python" | "python3":
            run_python(command)
        case "make":
            check_make(command)
        case "pip":
            check_pip(command)
        case "git":
            assert command.words[1] in GIT, f"{command}"
        case ".":
            assert ENVIRONMENT and command.words[1] == f"{ENVIRONMENT[1]}/bin/activate", f"{command}"
        case _:
            pytest.fail(f"{command}: a shown command begins with ahh, python, make, pip or git")


HERE = [page for page in pages() if list(commands(page)) and name(page) not in ELSEWHERE]


@pytest.mark.parametrize("page", HERE, ids=name)
def test_the_shown_commands_work(page: Path, workspace: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    workspace()
    for command in commands(page):
        run_one(command, capsys)


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_page_that_is_run_elsewhere_is_run_there(page: str) -> None:
    assert list(commands(ROOT / page))
    assert Path(page).name in (ROOT / ELSEWHERE[page]).read_text()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_no_command_hides_in_another_kind_of_block(page: Path) -> None:
    assert [str(block) for block in blocks(page) if block.language in SHELLS] == []
    hidden = [block for block in blocks(page) if block.language != "console" and re.search(r"^\$ ", block.text, re.MULTILINE)]
    assert [str(block) for block in hidden] == []


def test_every_verb_is_shown_at_work() -> None:
    """On one page or another, all of which are run."""
    shown = [command.words[1:] for page in pages() for command in commands(page) if command.words[0] == "ahh"]
    leaves = {verbs for verbs in PARSERS if not any(other[:-1] == verbs for other in PARSERS if other)}
    assert len(leaves) > 40
    assert {verbs for verbs in leaves if not any(words[: len(verbs)] == verbs for words in shown)} == set()


def test_a_command_that_fails_is_noticed(workspace: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    workspace()
    page = ROOT / "docs" / "command-line.md"
    for words, output in [(("ahh", "quote", "absent.toml"), ()), (("ahh", "replay", "demo-output"), ("ahh: no such thing",))]:
        with pytest.raises(AssertionError, match="ended with"):
            run_one(Command(page, words, output, 1), capsys)
    with pytest.raises(AssertionError, match="says"):
        run_one(Command(page, ("ahh", "quote", "absent.toml"), ("ahh: something else",), 1), capsys)
    for bad in [("make", "nothing"), ("pip", "install", "ahh-federated[wings]"), ("git", "rebase")]:
        with pytest.raises(AssertionError):
            run_one(Command(page, bad, (), 1), capsys)
