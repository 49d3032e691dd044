"""Study files that cannot work: every one raises Misuse with the key, the reason and the fix, and nothing else."""

from __future__ import annotations

import copy
import difflib
import json
import os
import tomllib
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.core.costs import Spent
from ahh_federated.errors import Misuse
from ahh_federated.study import canonical, open_study, parse_study

HERE = Path(__file__).parent
BASE = HERE / "base.toml"
FILES = sorted((HERE / "studies").glob("*.toml"))
SMALL = (HERE.parent / "study" / "small.toml").read_text()


def expected(path: Path) -> str:
    first = path.read_bytes().splitlines()[0].decode()
    assert first.startswith("# expect: ")
    return first.removeprefix("# expect: ")


def complaint(path: Path) -> str:
    with pytest.raises(Misuse) as caught:
        open_study(path)
    return str(caught.value)


def test_the_base_is_a_valid_study() -> None:
    assert open_study(BASE).id == "growth"


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 130


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_says_what_where_and_how_to_mend(path: Path) -> None:
    message = complaint(path)
    assert expected(path) in message
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 3000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_is_a_small_mutation_of_the_base(path: Path) -> None:
    mutated = path.read_bytes().decode("latin-1").splitlines()[1:]
    lines = [line for line in difflib.ndiff(BASE.read_text().splitlines(), mutated) if line[0] in "+-"]
    assert 0 < len(lines) <= 12


def test_different_causes_have_different_messages() -> None:
    causes: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        causes[complaint(path).replace(str(path), "").replace(path.name, "")].add(expected(path))
    assert [found for found in causes.values() if len(found) > 1] == []


def test_no_such_file(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in complaint(tmp_path / "none.toml")


def test_a_folder(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in complaint(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_rights(tmp_path: Path) -> None:
    path = tmp_path / "secret.toml"
    path.write_text(SMALL)
    path.chmod(0)
    assert "cannot be read (Permission denied)" in complaint(path)


def test_a_huge_file(tmp_path: Path) -> None:
    path = tmp_path / "huge.toml"
    path.write_text(SMALL + "#" * (1 << 20))
    assert "huge.toml is larger than a megabyte: a study file is a page or two" in complaint(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"\x00", b"\xff\xfe", SMALL.encode("utf-16"), b"PK\x03\x04" * 99])
def test_not_a_study_at_all(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    assert "odd.toml" in complaint(path)


def test_a_byte_order_mark_and_windows_lines_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert open_study(path).digest == parse_study(tomllib.loads(SMALL)).digest


ODD: list[Any] = [0, 1, -1, 2, 0.5, 1e-320, 5e-324, 1e308, -0.0, True, False, 10**400, -(10**400), float("nan"), float("inf")]
ODD += [
    "",
    " ",
    "\ud800",
    "\x00",
    "a\nb",
    "fold",
    "sex",
    "bmi",
    "last",
    "child",
    "each-node",
    "1.0",
    "no such",
    "é",
    "model",
    "x" * 4001,
]
ODD += ["sex == 'girl'", "bmi >= 1e999", "not", date(1, 1, 1), date(9999, 12, 31), [], {}, [[]], [{}], {"": ""}, ["sex"], ["bmi"]]
ODD += [["sex", "sex"], [1, 2], [1e308, 1e309], [float("nan")], [10**400], {"levels": ["a", "b"]}]
JUNK = st.one_of(
    st.sampled_from(ODD),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.one_of(st.floats(), st.text(max_size=5), st.integers()), max_size=5),
    st.dictionaries(st.text(max_size=8), st.one_of(st.floats(), st.text(max_size=5), st.none()), max_size=3),
)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a parsed file."""
    found: list[tuple[Any, Any]] = []
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        found += [(content, key), *places(value)]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    content = tomllib.loads(SMALL)
    for _ in range(draw(st.integers(1, 3))):
        found = places(content)
        container, key = found[draw(st.integers(0, len(found) - 1))]
        match draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "move"])):
            case "replace":
                container[key] = draw(JUNK)
            case "drop":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw(st.text(max_size=10))] = container.pop(key)
            case _:
                other, there = found[draw(st.integers(0, len(found) - 1))]
                if not isinstance(other, list) or there < len(other):
                    other[there] = copy.deepcopy(container[key])
        if not content:
            break
    return content


@given(mutated())
@settings(max_examples=600, derandomize=True, deadline=None)
def test_whatever_the_content_it_is_a_study_or_misuse(content: dict[str, Any]) -> None:
    try:
        study = parse_study(content)
    except Misuse as error:
        assert 0 < len(str(error)) < 10_000
        return
    read_back = json.loads(canonical(content))
    read_back["study"]["expires"] = study.expires
    assert parse_study(read_back).digest == study.digest
    events = [study.event(ask, line) for ask in study.asks for line in ask.analysis.schedule()]
    assert Spent.of(events).within(study.budget)


LANGUAGE = """
    sex bmi weight fold and or not in is == != < <= > >= ( ) [ ] , 'girl' 'train' 18 -1 1e999 0x1F 1j True None ... { }
    : lambda * = := . # \\ " ' f'{sex}' b'' @ ~ - + if else for await yield é
"""
WORDS = LANGUAGE.split()
WORDS += ["\n", "\x00", "9" * 400, "bmi >= 20", "10 < bmi <= 20", "sex in ['girl']", "fold != 'test'", "weight not in (1, 2)"]


@given(st.one_of(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), st.text(max_size=60)))
@settings(max_examples=600, derandomize=True, deadline=None)
def test_whatever_the_condition_it_is_a_study_or_misuse(condition: str) -> None:
    content = tomllib.loads(SMALL)
    content["ask"][0]["where"] = condition
    try:
        study = parse_study(content)
    except Misuse as error:
        assert "ask 1.where" in str(error)
        return
    where = study.asks[0].where
    assert (where is None) == (not condition)
    assert where is None or set(where.columns) <= {"sex", "bmi", "weight", "fold"}
