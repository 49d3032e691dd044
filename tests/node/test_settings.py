"""Changing a partner's TOML file: what is asked for changes, and nothing else does."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.errors import Misuse
from ahh_federated.node.settings import change, quoted, write

FILE = '''\
# top
name = "a"  # the name

[data] # here
# about the path
path = "old.csv" # goes

# about the rest
query = """
select [dbo].a -- # no comment
from b
"""
list = [
  "a", # first
  "b",
]

# about the budget
[budget]
epsilon = 4
'''
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=60)


def test_comments_and_other_tables_stay(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text(FILE)
    change(path, "data", {"path": "/new.csv"})
    text = path.read_text()
    for kept in ('name = "a"  # the name', "[data] # here", "# about the path", "# about the rest", "# about the budget"):
        assert text.count(kept) == 1
    assert tomllib.loads(text) == {"name": "a", "data": {"path": "/new.csv"}, "budget": {"epsilon": 4}}
    assert text.index("# about the path") < text.index("/new.csv") < text.index("# about the rest")


@given(values=st.dictionaries(st.sampled_from(["path", "url", "query"]), TEXTS | st.lists(TEXTS, max_size=3), max_size=3))
@settings(max_examples=200, derandomize=True, deadline=None)
@pytest.mark.parametrize("before", ["[data]\n", "", "x = 1\n[data]\n# one\n", '[data]\nq = """\n[a]\n"""\n[b]\nc = 1\n'])
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, before: str, values: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("toml") / "node.toml"
    path.write_text(before)
    others = {name: value for name, value in tomllib.loads(before).items() if name != "data"}
    for _ in range(2):  # a second change finds what the first wrote
        change(path, "data", values)
        assert tomllib.loads(path.read_text(encoding="utf-8")) == {**others, "data": values}


@pytest.mark.parametrize("text", ["[data.c]\nd = 2\n", "data = { path = 'x' }\n", f"[data]\na = [ 1, # it's {'x' * 90}\n]\n"])
def test_a_file_that_is_too_intricate_is_left_alone(tmp_path: Path, text: str) -> None:
    """A table below the table, an inline table, a quote within a list's comment: told, not lost."""
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(Misuse, match=r"by hand:\npath = \"/new\.csv\""):
        change(path, "data", {"path": "/new.csv"})
    assert path.read_text() == text


def test_what_is_no_toml_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[data\n")
    with pytest.raises(Misuse, match="cannot be read"):
        change(tmp_path / "absent", "data", {})
    with pytest.raises(Misuse, match="without a loss"):
        change(tmp_path / "a", "data", {})


def test_a_file_keeps_its_mode_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, b"[data]\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    change(path, "data", {"path": "x"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").write_text("")
    with pytest.raises(Misuse, match="cannot be written"):
        write(tmp_path / "folder", b"new")
    with pytest.raises(Misuse, match="cannot be written"):
        write(tmp_path / "absent" / "a", b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@given(text=TEXTS)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_a_quoted_text_is_that_text(text: str) -> None:
    assert tomllib.loads(f"a = {quoted(text)}") == {"a": text}
    assert "\n" not in quoted(text)
