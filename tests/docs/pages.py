"""What the documentation shows: its fenced blocks, the commands in them, and its links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(.*)$")
SHELLS = {"bash", "sh", "shell", "zsh", "shell-session"}
ELSEWHERE = {  # pages whose commands need a federation, and the tests that run them
    "docs/tutorial-federation.md": "tests/federation/test_example.py",  # with eight nodes, by the script that it describes
    "docs/coordinator.md": "tests/docs/test_role_pages.py",
    "docs/partner-it.md": "tests/docs/test_role_pages.py",
    "docs/researcher.md": "tests/docs/test_role_pages.py",
}


def pages() -> list[Path]:
    """The pages whose commands are run, README.md first."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in found if page.exists()]


def all_pages() -> list[Path]:
    """Every page there is."""
    return sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")})


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line it begins on."""

    page: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in order; those of one language when given."""
    found: list[Block] = []
    start, opened, lines = 0, "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if fence and not start:
            start, opened, lines = number, fence[1].strip(), []
        elif fence:
            found.append(Block(page, opened, "\n".join(lines) + "\n", start))
            start = 0
        elif start:
            lines.append(line)
    assert not start, f"{name(page)}: the block of line {start} has no end"
    return [block for block in found if language in (None, block.language)]


@dataclass(frozen=True)
class Command:
    """A shown command, and the lines shown as its output."""

    page: Path
    words: tuple[str, ...]
    output: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line} {' '.join(self.words)}"


def commands(page: Path) -> Iterator[Command]:
    """The commands of every console block of a page."""
    for block in blocks(page, "console"):
        yield from commands_of(block)


def commands_of(block: Block) -> Iterator[Command]:
    """Every line of a console block that begins with a dollar sign, with the output lines below it."""
    shown: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            shown.append((number, line[2:], []))
        else:
            assert shown, f"{name(block.page)}:{number}: a console block begins with a command, a line that starts with `$ `"
            shown[-1][2].append(line)
    for number, text, output in shown:
        yield Command(block.page, tuple(shlex.split(text)), tuple(output), number)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Path and anchor of every link to a file of this repository, images included."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
