"""The Python blocks of a page run, one after the other, in the folder that `make demo` leaves.

Those of docs/researcher.md run in test_role_pages.py, between its commands.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks, name

PAGES = [page for page in (ROOT / "README.md", ROOT / "docs" / "python.md", ROOT / "docs" / "models.md") if page.exists()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_blocks_run(page: Path, workspace: Callable[[], Path], capsys: pytest.CaptureFixture[str]) -> None:
    workspace()
    shared: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        code = compile("\n" * block.line + block.text, str(page), "exec")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(code, shared)
    assert capsys.readouterr().out


def test_the_tour_names_every_public_word() -> None:
    import ahh_federated as ahh

    text = (ROOT / "docs" / "python.md").read_text()
    assert [word for word in ahh.__all__ if f"ahh.{word}" not in text and f"`{word}`" not in text] == []
    assert "Sixteen words" in text
    assert len(ahh.__all__) == 16


def test_the_answers_have_the_keys_that_the_tour_names(demo: Path) -> None:
    import ahh_federated as ahh

    rows = [line for line in (ROOT / "docs" / "python.md").read_text().splitlines() if line.startswith("| `")]
    named = {row.split("`")[1]: set(row.split("|")[2].split("`")[1::2]) for row in rows}
    for ask in ahh.replay(demo / "demo-output").data["asks"]:
        answer = ask["answer"]
        inner = {"levels", "edges", "cells", "unit", "mean", "sd", "count", "model", "definition"}
        assert set(answer) - inner <= named[ask["analysis"]], ask["id"]
        assert named[ask["analysis"]] - inner <= set(answer) | {"overall", "partners"}, ask["id"]
