"""The manual names everything there is: verbs, options, keys, reasons, files; and the examples run."""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ahh_federated.cli.main import main, parser
from ahh_federated.core.releases import Status
from ahh_federated.errors import Reason
from tests.architecture.source import PACKAGE, ROOT, files, tree

COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
STUDY_FILE = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
READERS = {"text", "name", "choice", "number", "integer", "day", "texts", "numbers", "raw", "table"}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def parsers(
    top: argparse.ArgumentParser, verbs: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every parser with the verbs that lead to it."""
    yield verbs, top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield from parsers(inner, (*verbs, verb))


PARSERS = dict(parsers(parser()))


@pytest.mark.parametrize("verbs", PARSERS, ids=" ".join)
def test_every_verb_and_option_is_in_the_manual(verbs: tuple[str, ...]) -> None:
    assert f"`ahh {' '.join(verbs)}`" in COMMAND_LINE or not verbs
    for action in PARSERS[verbs]._actions:
        for option in action.option_strings:
            assert re.search(rf"`(ahh )?{option}[ `]", COMMAND_LINE), f"ahh {' '.join(verbs)} {option}"
        if isinstance(action.metavar, str) and not isinstance(action, argparse._SubParsersAction):
            assert action.metavar in COMMAND_LINE, f"ahh {' '.join(verbs)} {action.metavar}"
        for choice in action.choices or ():
            assert f"`{choice}`" in COMMAND_LINE or re.search(rf"`(ahh |--)[\w ]*{choice}`", COMMAND_LINE), choice


def test_the_manual_names_no_option_that_is_gone() -> None:
    known = {option for each in PARSERS.values() for action in each._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", COMMAND_LINE)) <= known


def test_help_shows_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    printed = capsys.readouterr().out
    assert end.value.code == 0
    for verbs in PARSERS:
        if len(verbs) == 1:
            assert re.search(rf"^ +{verbs[0]}\b", printed, re.MULTILINE), verbs


def test_every_status_and_reason_is_in_the_manual() -> None:
    missing = [word for word in [*Status, *Reason] if f"`{word}`" not in COMMAND_LINE]
    assert missing == []


def reads(folder: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Every key that is read from a TOML table: the reader, the key and the call."""
    for path in files():
        if path.is_relative_to(folder):
            for node in ast.walk(tree(path)):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in READERS
                    and node.args
                ):
                    first = node.args[0]
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        yield node.func.attr, first.value, node


STUDY_READS = list(reads(PACKAGE / "study"))


def test_the_parser_is_read_as_it_should_be() -> None:
    """So that the next tests cannot pass on an empty list."""
    keys = {key for _, key, _ in STUDY_READS}
    assert {"epsilon", "outside", "thresholds", "folds", "reduce", "where", "share", "permit", "ask"} <= keys
    assert len(keys) > 35


@pytest.mark.parametrize("key", sorted({key for _, key, _ in STUDY_READS}))
def test_every_key_is_in_the_reference(key: str) -> None:
    assert f"`{key}`" in STUDY_FILE or f"[{key}]" in STUDY_FILE or f"`[{key}]`" in STUDY_FILE


def rows(key: str) -> list[str]:
    """The rows of the reference that begin with a key, alone or among others."""
    return [line for line in STUDY_FILE.splitlines() if line.startswith("| `") and f"`{key}`" in line.split("|")[1]]


@pytest.mark.parametrize(("reader", "key", "call"), STUDY_READS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_reference_has_the_default(reader: str, key: str, call: ast.Call) -> None:
    if reader in ("raw", "table"):
        return
    given = [word.value for word in call.keywords if word.arg == "default"]
    defaults = [row.split("|")[3].strip() for row in rows(key)]
    if not given:
        assert any(default.startswith("required") for default in defaults), f"{key} is required: {defaults}"
    elif not isinstance(given[0], ast.Constant | ast.Tuple) or not ast.literal_eval(given[0]):
        assert any("required" not in default for default in defaults), f"{key} is optional: {defaults}"
    else:
        value = ast.literal_eval(given[0])
        shown = f"`{list(value) if isinstance(value, tuple) else value}`" if not isinstance(value, str) else f'`"{value}"`'
        assert shown in defaults, f"{key} is {shown} by default: {defaults}"


@pytest.mark.parametrize(("reader", "key", "call"), STUDY_READS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_reference_has_every_choice(reader: str, key: str, call: ast.Call) -> None:
    if reader == "choice" and isinstance(call.args[1], ast.Tuple):
        for option in ast.literal_eval(call.args[1]):
            assert f'`"{option}"`' in STUDY_FILE, f"{key} = {option!r}"


def test_the_reference_has_a_section_for_every_analysis() -> None:
    import ahh_federated as ahh
    from ahh_federated.study.asks import read_ask
    from ahh_federated.study.fields import Table

    with pytest.raises(ahh.Misuse) as caught:
        read_ask(Table({"analysis": "no such"}, "ask 1"), {}, {})
    names = str(caught.value).partition("is not one of ")[2].partition(":")[0].split(", ")
    assert len(names) >= 6
    for name in names:
        assert f"### `{name}`" in STUDY_FILE
        assert f'analysis = "{name}"' in STUDY_FILE, f"{name} is never shown"


def test_the_policys_keys_are_in_the_manual() -> None:
    keys = {key for _, key, _ in reads(PACKAGE / "node")}
    assert {"epsilon", "delta", "minimum"} <= keys
    for key in keys:
        assert f"`{key}`" in COMMAND_LINE or f"[{key}]" in COMMAND_LINE


def test_the_manual_shows_the_policy_that_a_node_writes(tmp_path: Path) -> None:
    import tomllib

    from ahh_federated.node.home import create_home
    from ahh_federated.node.policy import read_policy

    read_policy(tmp_path / "policy.toml")
    limits, network = re.findall(r"```toml\n(.*?)```", COMMAND_LINE, re.DOTALL)
    assert tomllib.loads(limits) == tomllib.loads((tmp_path / "policy.toml").read_text())
    written = create_home(tmp_path / "node", "hospital-zas").policy_path.read_text()
    assert tomllib.loads(limits + network) == tomllib.loads(written)


def test_the_readmes_commands_exist() -> None:
    readme, makefile = ROOT / "README.md", (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "check"} <= targets
    if readme.exists():
        shown = re.findall(r"^\$ make (\S+)$", readme.read_text(), re.MULTILINE)
        assert shown[:2] == ["demo", "test"]
        assert set(shown) <= targets


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs(example: Path, tmp_path: Path) -> None:
    assert len(example.read_text().splitlines()) <= 60
    options = ["--children", "4000", "--out", str(tmp_path / "out")] if example.stem == "demo" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # tests run side by side
    command = [sys.executable, "-W", "error::UserWarning", str(example), *options]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


def test_the_examples_leave_nothing_behind() -> None:
    assert {path.suffix for path in (ROOT / "examples").iterdir() if path.is_file()} <= {".py", ".toml"}
