"""The report is complete, honest about what was not released, closed to scripts, and the same every time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from math import exp, sqrt
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import matplotlib as mpl
import pytest

from ahh_federated.errors import Misuse
from ahh_federated.lab.report import render, write_report
from ahh_federated.lab.report.equation import equation
from ahh_federated.lab.report.summary import guess_bound
from ahh_federated.lab.report.tables import cell_name, count_tables, names_of
from ahh_federated.lab.report.words import p_value, plain, share_of, shown
from tests.lab.report_page import WITHHELD, Json, Page, assert_well_formed, only, the_ask, withhold, without_plots
from tests.lab.sample_results import PARTNERS, number, sample_results, withheld


@pytest.fixture(scope="module")
def html() -> str:
    return render(sample_results())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_every_ask_partner_case_and_column_appears(page: Page) -> None:
    results = sample_results()
    for ask in results["asks"]:
        assert ask["title"] in page.text
        assert (ask["where"] or "all patients") in page.text
        assert ask["reason"] in page.text
    for expected in (*PARTNERS, *results["study"]["columns"], *results["study"]["cases"]):
        assert expected in page.text
    for key in ("title", "purpose", "digest", "requester", "organisation", "permit", "expires"):
        assert results["study"][key] in page.text
    for case in results["study"]["cases"].values():
        assert case["label"] in page.text
        assert case["when"] in page.text


def test_page_is_well_formed_and_accessible(page: Page) -> None:
    assert_well_formed(page)


def test_page_needs_nothing_from_elsewhere(html: str, page: Page) -> None:
    assert "//" not in re.sub(r"http://www\.w3\.org/\S+", "", html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "base"}
    assert all(target.startswith("#") for target in re.findall(r"url\((.*?)\)", html))
    assert "@import" not in html


def test_two_renders_are_identical_whatever_the_reader_set_in_matplotlib(html: str) -> None:
    before = dict(mpl.rcParams)
    render(only(sample_results(), "children"))
    assert dict(mpl.rcParams) == before
    with mpl.rc_context({"font.size": 21.0, "lines.linewidth": 9.0, "svg.hashsalt": "other"}):
        assert render(sample_results()) == html


def test_write_report_writes_what_render_returns(tmp_path: Path) -> None:
    results = only(sample_results(), "children")
    write_report(results, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(results)


def test_text_of_the_study_is_never_markup() -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)> \"' $x_1$ {{ 7*7 }}"
    results = sample_results()
    study = results["study"]
    for key in ("title", "purpose", "requester", "organisation", "permit", "consortium", "digest", "id"):
        study[key] = attack
    study["cases"]["overweight_6y"] = {"label": attack, "when": attack}
    results["stamp"] = results["partners"][0]["name"] = attack
    for ask in results["asks"]:
        ask["title"] = ask["where"] = ask["reason"] = attack
        ask["coverage"][attack] = attack
    the_ask(results, "children")["answer"]["cells"][0]["levels"] = {"sex": attack}
    the_ask(results, "model")["answer"]["terms"][0]["name"] = attack
    page = Page(render(results))
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "{{ 7*7 }}" in page.text


@pytest.mark.parametrize("stamp", ["NOT PRIVATE: fixed seed", "NOT PRIVATE: exact run"])
def test_stamp_is_in_the_title_on_top_and_at_the_foot(stamp: str) -> None:
    html = render(only(sample_results(), "model") | {"stamp": stamp})
    assert f"<title>{stamp}" in html
    assert f"<strong>{stamp}</strong>" in html[: html.index("<h1>")]
    assert stamp in html[html.index("<footer") :]
    assert "would be right at most" not in html


def test_private_run_has_no_stamp_and_gives_the_promise() -> None:
    page = Page(render(only(sample_results(), "model") | {"stamp": ""}))
    assert "NOT PRIVATE" not in page.text
    assert "private for any one of its patients, against everybody, the coordinator included" in page.text
    assert "known to k partners is covered by the sum of their budgets" in page.text
    assert "right at most 88.1% of the time" in page.text


def test_shared_noise_has_its_own_promise() -> None:
    results = only(sample_results(), "children")
    results["privacy"]["noise"] = "shared"
    text = Page(render(results)).text
    assert "The coordinator sees only the sum over partners" in text
    assert "by itself" not in text


@pytest.mark.parametrize("first", [0, 2])
def test_number_that_was_not_released_is_words_everywhere(first: int) -> None:
    results = sample_results()
    for ask in results["asks"]:
        withhold(ask["answer"], first)
    page = Page(render(results))
    assert not re.search("987,?654|98,?765,?4|about 0|None|nan", page.text)
    for status, _ in WITHHELD:
        assert sum(status in cell for cell in page.cells) > 25


def test_partner_without_a_number_keeps_its_status_in_the_table() -> None:
    results = only(sample_results(), "children")
    (ask,) = results["asks"]
    for cell in ask["answer"]["cells"]:
        del cell["partners"]["Zone Oost"]
    ask["coverage"]["Zone Oost"] = "offline"
    cells = Page(render(results)).cells
    assert cells[cells.index("Zone Oost", cells.index("Zone Centrum", cells.index("boy"))) + 1] == "offline"


def test_suppressed_cell_has_words_in_the_plot_and_no_bar() -> None:
    results = only(sample_results(), "children")
    bars = len(re.findall(r"fill: #0b5c94", _plot(results)))
    results["asks"][0]["answer"]["cells"][0]["overall"] = withheld()
    assert len(re.findall(r"fill: #0b5c94", _plot(results))) == bars - 1
    assert "below threshold (may be zero)" in _plot(results)


def _plot(results: Json) -> str:
    html = render(results)
    return html[html.index("<svg") : html.index("</svg>")]


def test_ask_without_an_answer_says_why() -> None:
    results = only(sample_results(), "feeding")
    text = Page(render(results)).text
    assert "No answer: failed. Reason given: fewer partners answered in time" in text
    assert "Not answered: \u201cBreastfed at six days\u201d." in text


def test_unknown_analysis_becomes_a_plain_table() -> None:
    results = only(sample_results(), "children")
    answer = {
        "hazard": [{"month": 3, "rate": number(0.0213, 0.001)}, {"month": 6, "rate": withheld()}],
        "note": None,
    }
    results["asks"][0] |= {"analysis": "../report", "answer": answer}
    cells = Page(render(results)).cells
    assert "0.0213 0.0193 to 0.0233" in " ".join(cells)
    assert cells[cells.index("hazard \u2192 2 \u2192 rate") + 1] == "below threshold (may be zero)"


def test_too_few_is_said_in_words(page: Page) -> None:
    place = max(i for i, cell in enumerate(page.cells) if cell == "Rare disease clinic")
    assert page.cells[place + 1] == "too few for the noise"
    assert "Rare disease clinic had too few patients for the noise." in page.text


def test_scores_without_curves_say_so() -> None:
    results = only(sample_results(), "evaluation")
    results["asks"][0]["answer"] |= {
        "roc": [],
        "calibration": [],
        "decision": [],
        "overall": {"status": "too few"},
    }
    text = Page(render(results)).text
    for curve in ("ROC curve", "Calibration", "Decision curve"):
        assert f"{curve}: nothing was released" in text


def test_study_without_asks_or_cases_renders() -> None:
    results = sample_results() | {"asks": []}
    results["study"] |= {"cases": {}, "columns": {}}
    assert "put 0 questions to 8 partners" in Page(render(results)).text


def test_histogram_of_levels_renders_and_count_of_everybody() -> None:
    results = only(sample_results(), "bmi", "children")
    bmi = the_ask(results, "bmi")
    bmi["answer"]["levels"] = [f"level {place}" for place in range(12)]
    del bmi["answer"]["edges"], bmi["answer"]["unit"]
    children = the_ask(results, "children")
    children["answer"] = {"by": [], "cells": [children["answer"]["cells"][0] | {"levels": {}}]}
    cells = Page(render(results)).cells
    assert "level 11" in cells
    assert "all patients" in cells


def test_results_of_another_format_are_refused() -> None:
    with pytest.raises(Misuse, match=r"ahh-results/2.*ahh-results/1"):
        render(sample_results() | {"format": "ahh-results/2"})


def test_equation_on_the_page_gives_the_risk_of_its_example(html: str) -> None:
    results = sample_results()
    parts = equation(the_ask(results, "model")["answer"], results, names_of(results)).parts
    values = {"": 1.0, "birth weight (kg)": 3.36, "bmi 2y (kg/m2)": 16.4, "bmi mother (kg/m2)": 25.1}
    sizes = [float(part.size) * (1 if part.sign == "+" else -1) * values.get(part.times, 0.0) for part in parts]
    assert sum(value != 0 for value in sizes) == len(values)
    logit = sum(sizes)
    text = unescape(html)
    assert f"log-odds {logit:.4f}".replace("-2", "\u22122") in text
    assert f"risk {100 / (1 + exp(-logit)):.3g}%" in text


COUNTS = [
    (number(1234.4, 12.0), "1,234 (1,211 to 1,258)"),
    (number(-3.2, 4.0), "about 0 (\u221211 to 5)"),
    (number(0.3, 4.0), "about 0 (\u22128 to 8)"),
    (number(7.0, 0.0), "7 (7 to 7)"),
    (withheld(), "below threshold (may be zero)"),
    (withheld("refused"), "refused"),
    (number(0.0, 1.0) | {"status": "below threshold"}, "below threshold (may be zero)"),
    (number(float("nan"), 1.0), "not available"),
    (None, "not available"),
]


@pytest.mark.parametrize(("given", "expected"), COUNTS)
def test_counts_in_words(given: Json | None, expected: str) -> None:
    assert str(shown(given, "count")) == expected


def test_estimates_in_words() -> None:
    assert str(shown(number(0.78412, 0.007))) == "0.784 (0.770 to 0.798)"
    assert str(shown(number(16.4, 0.004))) == "16.400 (16.392 to 16.408)"
    assert str(shown(number(0.00012, 0.5))) == "0.000 (\u22120.980 to 0.980)"
    assert str(shown(number(0.0821, 0.001), "share")) == "8.21% (8.01 to 8.41%)"
    assert str(shown(number(-0.0021, 0.002), "share")) == "about 0% (\u22120.602 to 0.182%)"
    assert str(shown({"value": 2.0, "se": None, "low": None, "high": None, "status": "released"})) == "2.00"
    assert [plain(x) for x in (1e-6, 2.5e-7, 0.0, 1200.0, 0.5)] == [
        "10\u207b\u2076",
        "2.5 \u00d7 10\u207b\u2077",
        "0",
        "1,200",
        "0.5",
    ]
    assert [p_value(x) for x in (1e-9, 0.0512, None)] == ["< 0.001", "0.051", "not available"]


def test_value_that_noise_carried_past_the_possible_is_moved_back() -> None:
    beyond = number(1.041, 0.1) | {"high": 1.0}
    assert str(shown(beyond, "three decimals")) == "about 1.000 (0.845 to 1.000)"
    assert str(shown(number(-9.0, 4.0) | {"low": 0.0, "high": 2.0}, "count")) == "about 0 (0 to 2)"


def test_shares_of_a_cross_table_leave_out_what_is_not_known() -> None:
    results = sample_results()
    answer, coverage = the_ask(results, "overweight")["answer"], the_ask(results, "overweight")["coverage"]
    overall, _ = count_tables(answer, coverage, names_of(results))
    values = {cell_name(cell): cell["overall"]["value"] for cell in answer["cells"]}
    yes, no = (values[f"sex: girl, overweight 6y: {level}"] for level in ("yes", "no"))
    girl = {line.head: line for line in overall.lines if "girl" in line.head}
    assert girl["sex: girl, overweight 6y: yes"].cells[-1].main == f"{100 * yes / (yes + no):.3g}%"
    assert girl["sex: girl, overweight 6y: not known"].cells[-1].main == "\u2013"


def test_share_of_almost_nothing_is_not_divided() -> None:
    assert share_of(number(26.0, 25.0), [number(-17.0, 25.0)]) is None
    results = only(sample_results(), "children")
    for cell in results["asks"][0]["answer"]["cells"]:
        cell["overall"] = number(9.0, 25.0)
    assert Page(render(results)).cells.count("too uncertain to say") == 2


def test_intercept_is_no_odds_ratio_and_clipped_columns_say_so(page: Page) -> None:
    assert "(intercept)" not in page.text
    assert "birth weight from 1.5 to 5.5 kg, counted as 1.93 below 1.93 and as 4.81 above 4.81" in page.text
    assert "bmi 2y from 11 to 25 kg/m2;" in page.text


def test_partner_that_differs_is_named() -> None:
    results = only(sample_results(), "evaluation")
    scores = the_ask(results, "evaluation")["answer"]
    assert "at none of them does AUROC differ clearly" in Page(without_plots(results)).text
    scores["partners"]["Zone Oost"]["auroc"] = number(0.6, 0.01)
    assert "AUROC differs clearly at Zone Oost;" in Page(without_plots(results)).text


def test_share_has_the_spread_of_its_noise() -> None:
    part, rest = number(400.0, 15.0), [number(900.0, 15.0), number(700.0, 30.0)]
    share = share_of(part, rest)
    assert share is not None
    draw = Random(20260101)
    drawn = []
    for _ in range(20_000):
        inside, outside = draw.gauss(400, 15), draw.gauss(1600, sqrt(15**2 + 30**2))
        drawn.append(inside / (inside + outside))
    assert share["value"] == pytest.approx(0.2)
    assert fmean(drawn) == pytest.approx(share["value"], rel=0.01)
    assert stdev(drawn) == pytest.approx(share["se"], rel=0.03)


@pytest.mark.parametrize(("epsilon", "delta", "bound"), [(0.0, 0.0, 0.5), (0.0, 0.1, 0.55), (2.0, 0.0, 0.880797)])
def test_guess_bound(epsilon: float, delta: float, bound: float) -> None:
    assert guess_bound(epsilon, delta) == pytest.approx(bound)


def test_guess_bound_is_at_most_certain() -> None:
    assert guess_bound(1e6, 1e-6) == 1.0


def test_sample_names_every_partner_in_each_coverage() -> None:
    coverage: list[Mapping[str, str]] = [ask["coverage"] for ask in sample_results()["asks"]]
    assert all(set(found) == set(PARTNERS) for found in coverage)
