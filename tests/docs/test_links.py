"""Links lead somewhere, in the repository and within a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, all_pages, anchors, links, name


@pytest.mark.parametrize("page", all_pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {path}, which is not there"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{name(page)} links to {path}#{anchor}: {sorted(anchors(target))}"


def test_every_decision_has_its_three_parts_and_is_short() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {record.name[:4]} ")
        assert all(part in text for part in ("**Context.**", "**Decision.**", "**Consequence.**"))
        assert len(text.split()) < 300, f"{record.name} is longer than half a page"
