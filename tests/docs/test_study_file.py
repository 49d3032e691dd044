"""docs/study-file.md against the parser: every fragment, every shown error, every figure."""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

import pytest

import ahh_federated as ahh
from ahh_federated.core.costs import Budget
from ahh_federated.study import parse_study
from tests.docs.pages import ROOT, Block, blocks

PAGE = ROOT / "docs" / "study-file.md"
BLOCKS = blocks(PAGE)
COMPLETE = tomllib.loads(BLOCKS[0].text)


def fragments() -> list[tuple[Block, str | None]]:
    """Each toml block after the first, with the message that follows it, if one does."""
    found: list[tuple[Block, str | None]] = []
    for block, following in zip(BLOCKS[1:], [*BLOCKS[2:], None], strict=True):
        if block.language == "toml":
            found.append((block, following.text.strip() if following and following.language == "text" else None))
    return found


def put_in(fragment: dict[str, Any]) -> dict[str, Any]:
    """The complete study with a fragment in it: a named column, case or ask takes the place of its namesake."""
    whole = copy.deepcopy(COMPLETE)
    for key, value in fragment.items():
        if key == "ask":
            ids = {ask.get("id") for ask in value}
            whole["ask"] = [ask for ask in whole["ask"] if ask["id"] not in ids] + value
        else:
            whole.setdefault(key, {}).update(value)
    return whole


def test_the_first_block_is_a_complete_study() -> None:
    study = parse_study(COMPLETE)
    assert [ask.id for ask in study.asks] == ["children", "model"]


@pytest.mark.parametrize(("block", "message"), fragments(), ids=lambda value: str(value)[:60])
def test_a_fragment_works_or_is_refused_as_shown(block: Block, message: str | None) -> None:
    content = put_in(tomllib.loads(block.text))
    if message is None:
        assert parse_study(content).digest != parse_study(COMPLETE).digest
        return
    with pytest.raises(ahh.Misuse) as caught:
        parse_study(content)
    assert str(caught.value) == message


def test_every_message_follows_a_fragment() -> None:
    shown = [block for block in BLOCKS if block.language == "text"]
    assert len(shown) == sum(message is not None for _, message in fragments()) >= 8


def test_the_half_widths_of_counts() -> None:
    rows = re.findall(
        r"^\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert len(rows) == 4
    for epsilon, *shown in rows:
        mu = Budget(float(epsilon), 1e-6).mu
        assert [f"{1.959964 / (mu * share**0.5):.1f}" for share in (0.02, 0.05, 0.1, 0.25, 1.0)] == shown


def test_kleenes_tables() -> None:
    import numpy as np

    from ahh_federated.core.cohorts import Cohort
    from ahh_federated.core.columns import Levels
    from ahh_federated.core.filters import parse_filter

    codes = {"true": 1.0, "unknown": np.nan, "false": 0.0}
    words = {1.0: "true", 0.0: "false"}
    columns = {each: Levels(each, ("no", "yes")) for each in "ab"}
    for word in ("and", "or"):
        table = PAGE.read_text().split(f"| {word} |")[1].split("\n\n")[0].splitlines()[2:]
        for row in table:
            left, *shown = [cell.strip(" *") for cell in row.strip("|").split("|")]
            cohort = Cohort.of({"a": [codes[left]] * 3, "b": list(codes.values())})
            found = parse_filter(f"a == 'yes' {word} b == 'yes'", columns).case(cohort)
            assert [words.get(float(value), "unknown") for value in found] == shown
