"""The manuals of the three roles, run from top to bottom against a live federation: their commands and their Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, Block, Command, blocks, commands_of
from tests.docs.stage import Serving, operators, partners, researchers
from tests.docs.test_commands import run_one

PORT = ":8443"  # on the pages
BEHIND: dict[str, Callable[[Path, Path], AbstractContextManager[int]]] = {
    "coordinator.md": operators,
    "partner-it.md": partners,
    "researcher.md": researchers,
}


def here(command: Command, port: int) -> Command:
    """The command and its output with a free port, and a coordinator that only this machine can reach."""
    words, output = ([text.replace(PORT, f":{port}") for text in texts] for texts in (command.words, command.output))
    if words[:3] == ["ahh", "coordinator", "init"] and "--listen" not in words:
        words += ["--listen", f"127.0.0.1:{port}"]
    return replace(command, words=tuple(words), output=tuple(output))


@contextmanager
def serving(root: Path) -> Iterator[Serving]:
    started, ends = Serving(root), list[int]()
    try:
        yield started
    finally:
        ends = started.stop()
    assert ends == [0] * len(ends)


def run_python(block: Block, shared: dict[str, Any]) -> None:
    code = compile("\n" * block.line + block.text, str(block.page), "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, shared)


@pytest.mark.parametrize("page", BEHIND)
def test_the_page_from_top_to_bottom(
    page: str, workspace: Callable[[], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, shared = workspace(), {"__name__": "page"}
    with BEHIND[page](place, tmp_path) as port, serving(tmp_path) as served:
        for block in blocks(ROOT / "docs" / page):
            if block.language == "python":
                run_python(block, shared)
            elif block.language == "console":
                for command in (here(each, port) for each in commands_of(block)):
                    if command.words[0] == "ahh" and command.words[2:3] == ("serve",):
                        served.start(command)
                    else:
                        run_one(command, capsys)


def test_a_server_that_does_not_come_up_is_noticed(tmp_path: Path) -> None:
    command = Command(ROOT / "docs" / "coordinator.md", ("ahh", "coordinator", "serve", "--home", str(tmp_path)), (), 1)
    with pytest.raises(AssertionError, match="holds no coordinator"), serving(tmp_path) as served:
        served.start(command)
