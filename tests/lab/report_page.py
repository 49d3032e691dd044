"""A page as a browser would see it, and parts of results, for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from html import escape
from html.parser import HTMLParser
from typing import Any
from unittest.mock import patch

from ahh_federated.lab.report import plots, plots_curves, plots_model, render

Json = dict[str, Any]
VOID = {"meta", "br", "path", "use", "rect", "link", "img", "input"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, the cells of each table, and whether tags balance."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.stack:
            return
        self.words.append(data)
        if "td" in self.stack or "th" in self.stack:
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [found for _, attrs in self.tags if (found := attrs.get(name)) is not None]


def only(results: Json, *asks: str) -> Json:
    """The same results with these asks and no other."""
    return results | {"asks": [found for found in results["asks"] if found["id"] in asks]}


def the_ask(results: Json, ask: str) -> Json:
    found: Json = next(found for found in results["asks"] if found["id"] == ask)
    return found


def numbers_in(thing: Any) -> Iterator[Json]:
    if isinstance(thing, dict) and "value" in thing and "status" in thing:
        yield thing
    elif isinstance(thing, dict | list):
        for value in thing.values() if isinstance(thing, dict) else thing:
            yield from numbers_in(value)


WITHHELD = (("below threshold", None), ("refused", 0.0), ("failed", None), ("offline", 0.0))


def withhold(answer: Any, first: int) -> None:
    """Give every number of an answer a status in place of a value, in turn from the `first` of them."""
    for place, found in enumerate(numbers_in(answer), start=first):
        status, value = WITHHELD[place % len(WITHHELD)]
        found |= {"value": value, "se": 1.0, "low": -987654.0, "high": 987654.0, "status": status}


def assert_well_formed(page: Page) -> None:
    """Unique anchors, links that lead somewhere, and what a screen reader needs."""
    identifiers = page.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    assert {link.removeprefix("#") for link in page.attributes("href")} <= set(identifiers)
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")
    assert sum(tag == "table" for tag, _ in page.tags) == sum(tag == "caption" for tag, _ in page.tags)
    assert ("html", {"lang": "en"}) in page.tags


def without_plots(results: Json) -> str:
    """The page with an empty picture for every plot: drawing is most of the time that a page takes."""
    with ExitStack() as stack:
        for module in (plots, plots_curves, plots_model):
            stack.enter_context(patch.object(module, "draw", lambda plot, _: f'<svg aria-label="{escape(plot.label)}"></svg>'))
        return render(results)
