"""The report of a study: one HTML file that needs nothing else, a pure function of the results.

    results (format "ahh-results/1")  ->  a view per ask: tables, plots, words  ->  templates/report.html.j2

No script, no font, picture or style from elsewhere, no date, no chance: the same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ahh_federated.errors import Misuse
from ahh_federated.lab.report import words
from ahh_federated.lab.report.models import answered, family_of, fits, indicators
from ahh_federated.lab.report.summary import delta_words, figures, guess_bound, summary
from ahh_federated.lab.report.tables import Json, Names, names_of
from ahh_federated.lab.report.views import view

FORMAT: Final = "ahh-results/1"


def render(results: Mapping[str, Any]) -> str:
    """The report as one HTML page.

    Args:
        results: what `ahh run` wrote as results.json; every text in it is escaped.

    Raises:
        Misuse: the results are of another format.
    """
    if results.get("format") != FORMAT:
        raise Misuse(
            f"results: the format is {results.get('format')!r} and this report reads {FORMAT!r}; "
            "make the report with the version of ahh_federated that made the results"
        )
    names = names_of(results)
    return _environment().get_template("report.html.j2").render(_page(results, names))


def write_report(results: Mapping[str, Any], path: Path) -> None:
    """Write `render(results)` to `path` as UTF-8, replacing what is there."""
    path.write_text(render(results), encoding="utf-8")


def _page(results: Json, names: Names) -> dict[str, Any]:
    asks = [view(place, ask, results, names) for place, ask in enumerate(results["asks"], start=1)]
    privacy = results["privacy"]
    return {
        **results,
        "asks": asks,
        "names": names,
        "sentences": summary(results, names),
        "figures": figures(results, names),
        "guess": guess_bound(privacy["epsilon"], privacy["delta"]),
        "delta": delta_words(privacy["delta"]),
        "answered": _answered(results),
        "analyses": frozenset(ask["analysis"] for ask in results["asks"] if ask["answer"] is not None),
        "traits": _traits(results, names),
    }


def _traits(results: Json, names: Names) -> frozenset[str]:
    """What models and evaluations there are, as far as their limits differ."""
    models = fits(results)
    found = {str(ask["analysis"]) for ask in models} | {"fit" for _ in models}
    found |= {{True: "indicators", False: "complete cases", None: "fit"}[indicators(ask["answer"], names)] for ask in models}
    scores = [ask["answer"] for ask in results["asks"] if ask["analysis"] == "scores" and answered(ask)]
    return frozenset(found | {f"scores of {family_of(answer, names)}" for answer in scores})


def _answered(results: Json) -> dict[str, int]:
    """How many asks each partner gave numbers for."""
    return {
        partner["name"]: sum(ask["coverage"].get(partner["name"]) == "released" for ask in results["asks"])
        for partner in results["partners"]
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ahh_federated.lab.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "humane": words.humane,
        "plain": words.plain,
        "percent": words.percent,
        "shown": words.shown,
        "status_words": words.status_words,
        "listing": words.listing,
        "quoted": words.quoted,
        "count_of": words.count_of,
    }
    return environment
