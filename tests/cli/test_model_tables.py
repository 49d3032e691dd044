"""Numbers on a terminal: as many decimals as tell an interval's ends apart, and no dash before a minus."""

from __future__ import annotations

import math
from typing import Any

import pytest
from rich.console import Console

from ahh_federated.cli.model_tables import MODEL_TABLES, interval


def term(name: str, log_odds: float, privacy: float, sampling: float) -> dict[str, Any]:
    half = 1.96 * math.hypot(privacy, sampling)
    ratios = {key: math.exp(log_odds + way * half) for key, way in (("odds_ratio", 0), ("low", -1), ("high", 1))}
    return {"column": name, "name": name, **ratios, "se_privacy": privacy, "se_sampling": sampling}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (("weight", 0.7, 0.1, 0.1), ["2.01", "1.53 to 2.66", "0.100"]),
        (("grams", 0.0003, 0.00005, 0.00006), ["1.000300", "1.000147 to 1.000453", "0.0000500"]),
        (("nothing", 0.0, 0.0, 0.0), ["1.000000000"]),
        (("nobody", 0.0, math.nan, math.nan), ["nan to nan"]),
    ],
)
def test_an_odds_ratio_has_the_decimals_that_tell_its_interval_apart(
    given: tuple[str, float, float, float], shown: list[str]
) -> None:
    number = {"value": 100.0, "se": 1.0, "low": 98.0, "high": 102.0, "status": "released"}
    answer = {"definition": "ill", "n": number, "events": number, "terms": [term(*given)]}
    console = Console(width=160)
    with console.capture() as captured:
        console.print(MODEL_TABLES["logistic"]({"analysis": "logistic", "title": "Model", "answer": answer}))
    assert all(text in captured.get() for text in shown)


def test_an_interval_below_zero_says_to() -> None:
    assert interval({"value": -0.47, "low": -1.78, "high": 0.85}) == "-0.47 (-1.78 to 0.85)"
    assert interval({"value": 0.8, "low": 0.75, "high": 0.85}) == "0.80 (0.75-0.85)"
    assert interval({"value": None, "status": "too few"}) == "too few"
