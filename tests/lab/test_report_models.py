"""The report shows every kind of model, evaluation, selection and recalibration, with the numbers it was given."""

from __future__ import annotations

import re
from math import exp
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from ahh_federated.lab.report import render
from ahh_federated.lab.report.tables import names_of
from ahh_federated.lab.report.views_scores import _close
from ahh_federated.neural.architecture import Network
from tests.lab.report_page import WITHHELD, Json, Page, assert_well_formed, only, the_ask, withhold, without_plots
from tests.lab.sample_models import sample_models
from tests.lab.sample_results import PARTNERS, number


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(sample_models()))


def shown(*asks: str, draw: bool = False, **answers: Json) -> Page:
    """The page of these asks, with parts of their answers replaced."""
    results = only(sample_models(), *asks, *answers)
    for name, part in answers.items():
        the_ask(results, name)["answer"] |= part
    return Page(render(results) if draw else without_plots(results))


def test_page_of_models_is_well_formed_and_closed(page: Page) -> None:
    assert_well_formed(page)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "image", "base"}


def test_every_ask_has_a_view_of_its_own(page: Page) -> None:
    assert "no picture for the analysis" not in page.text
    for ask in sample_models()["asks"]:
        assert ask["title"] in page.text
    for partner in PARTNERS:
        assert partner in page.text


def test_renders_are_identical_whatever_the_reader_set_in_matplotlib() -> None:
    asks = ("curves", "bmi", "travels")
    once = render(only(sample_models(), *asks))
    with mpl.rc_context({"font.size": 21.0, "lines.linewidth": 9.0, "svg.hashsalt": "other"}):
        assert render(only(sample_models(), *asks)) == once


def test_text_of_an_answer_is_never_markup() -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)> \"' {{ 7*7 }}"
    results = only(sample_models(), "curves", "bmi", "network", "best", "travels", "classes_scores")
    results["study"]["columns"][attack] = {"levels": [attack, attack]}
    for ask in results["asks"]:
        ask["title"] = ask["where"] = attack
        answer = ask["answer"]
        answer["notes"] = [attack]
        answer["reference"] = {"sex": attack, attack: attack}
        for term in [*answer.get("terms", ()), *answer.get("interactions", ())]:
            term["name"] = attack
        for score in answer.get("subgroups", ()):
            score["group"] = {attack: attack}
    curves = the_ask(results, "curves")["answer"]
    curves["curves"] = {attack: next(iter(curves["curves"].values())) | {"unit": attack}}
    curves["equation"]["products"] = []
    curves["equation"]["columns"][0] |= {"column": attack, "levels": {attack: 0.1}}
    network = the_ask(results, "network")["answer"]
    network |= {"features": [attack], "activation": attack, "way": attack, "layers": [attack]}
    classes = the_ask(results, "classes_scores")["answer"]
    classes |= {"levels": [attack], "confusion": {attack: {attack: number(3.0, 1.0)}}}
    classes["overall"] |= {"sensitivity": {attack: number(0.5, 0.1)}, "ppv": {attack: number(0.5, 0.1)}}
    found = Page(render(results))
    assert not {tag for tag, _ in found.tags} & {"script", "img"}
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert "{{ 7*7 }}" in found.text


def test_number_that_was_not_released_is_words_everywhere() -> None:
    results = only(sample_models(), "best", "evaluation", "travels", "bmi_scores", "classes_scores", "network", "bmi")
    for ask in results["asks"]:
        withhold(ask["answer"], 0)
    page = Page(render(results))
    assert not re.search("987,?654|98,?765,?4|about 0|None|nan", page.text)
    for status, _ in WITHHELD:
        assert sum(status in cell for cell in page.cells) > 12


SILENT = {"status": "too few"}


@pytest.mark.parametrize("ask", ["evaluation", "bmi_scores", "classes_scores", "travels"])
def test_answer_that_says_nothing_of_anybody_renders(ask: str) -> None:
    answer = the_ask(sample_models(), ask)["answer"]
    quiet: Json = {"overall": SILENT, "partners": dict.fromkeys(answer["partners"], SILENT)}
    if "subgroups" in answer:
        quiet["subgroups"] = [{"group": each["group"], **SILENT} for each in answer["subgroups"]]
    if "roc" in answer:
        quiet |= {"roc": [], "calibration": [], "decision": []}
    cells = shown(draw=True, **{ask: quiet}).cells
    assert cells.count("too few for the noise") >= len(PARTNERS) - 2


# The curves.  Birth weight at its lower end is .55 - .25 - .04 = .26 on the scale of log odds.


def test_curve_is_tabled_as_odds_ratios() -> None:
    cells = shown("curves").cells
    place = cells.index("1.5", cells.index("birth weight (kg)"))
    half = 1.96 * (0.2**2 + 0.17**2) ** 0.5
    assert cells[place + 1] == f"{exp(0.26):.2f} {exp(0.26 - half):.2f} to {exp(0.26 + half):.2f}"
    assert "Curves: patients x mu / sqrt(partners) is 812" in shown("curves").text


def test_drawn_curve_and_band_go_through_their_points_on_a_log_scale() -> None:
    curve = the_ask(sample_models(), "curves")["answer"]["curves"]["bmi_2y"]
    svg = _svg(render(only(sample_models(), "curves")), "bmi 2y: odds ratio with its 95% band")
    line = _points(re.search(r'd="([^"]*)"[^>]*style="fill: none; stroke: #0b5c94', svg))
    upwards = _points(re.search(r'id="([^"]*)" d="([^"]*)"[^>]*>\s*</defs>.*?#\1"[^>]*fill: #e69f00', svg, re.DOTALL))
    band = upwards + np.array([0.0, 250.0])  # from the lower left corner
    to_x, to_y = np.polyfit(curve["at"], line[:, 0], 1), np.polyfit(curve["log_odds"], line[:, 1], 1)
    for key, drawn in (("log_odds", line), ("low", band), ("high", band)):
        expected = np.stack([np.polyval(to_x, curve["at"]), np.polyval(to_y, curve[key])], axis=1)
        assert _farthest(expected, drawn) < 0.01
    assert to_y[0] < 0 < to_x[0]


def _svg(html: str, label: str) -> str:
    return html[html.index(f'aria-label="{label}') :].partition("</svg>")[0]


def _points(found: re.Match[str] | None) -> Any:
    assert found is not None
    return np.array(re.findall(r"-?[0-9.]+", found[found.re.groups]), dtype=float).reshape(-1, 2)


def _farthest(expected: Any, drawn: Any) -> float:
    """The largest distance from an expected point to the nearest that is drawn, in pixels."""
    return float(np.linalg.norm(expected[:, None] - drawn[None], axis=2).min(axis=1).max())


def test_curves_share_an_axis_and_far_bands_end_at_it() -> None:
    answer = the_ask(sample_models(), "curves")["answer"]["curves"]
    wild = {"low": [-30.0] * 8, "high": [800.0] * 8}
    page = shown(draw=True, curves={"curves": {name: given | wild for name, given in answer.items()}})
    assert "nan" not in page.text
    assert page.cells[page.cells.index("1.5", page.cells.index("birth weight (kg)")) + 1].startswith("1.3 9.36")


def test_additive_model_without_measured_predictors_has_no_curves() -> None:
    page = shown(curves={"curves": {}})
    assert "One curve for each" not in page.text
    assert "deprived: yes" in page.cells


def test_curve_of_a_measured_outcome_is_in_its_unit() -> None:
    page = shown("bmi_curve")
    assert "what it adds to bmi 6y (kg/m2), against the average patient" in page.text
    place = page.cells.index("11", page.cells.index("adds to bmi 6y (kg/m2)"))
    assert page.cells[place + 1].startswith("\u22122.10 ")
    assert "odds" not in page.text.split("model card")[-1].split("Model card")[0].replace("log-odds", "")


def test_tables_of_an_additive_model_add_up_to_its_example() -> None:
    logit = -2.5718 + 0.0512 - 0.0611 - 0.0214 + 0.0731 + 0.0412 + 0.04127 * 1.0243 * 0.3812
    page = shown("curves")
    example = "sex girl, deprived no, birth weight 3.8 kg, bmi 2y 17 kg/m2 and bmi mother 24 kg/m2"
    assert f"{example}: log-odds {logit:.4f}, risk {100 / (1 + exp(-logit)):.3g}%".replace("s -", "s \u2212") in page.text
    assert "log-odds = \u22122.5718 and what each table below adds, and each product below them" in page.text
    assert "0.04127 \u00d7 (sex: girl gives \u22121.0243, boy gives 0.9762) \u00d7 (deprived: no gives \u22120.3812" in page.text


def test_product_of_an_additive_model_is_held_within_its_limit() -> None:
    results = only(sample_models(), "curves")
    (product,) = the_ask(results, "curves")["answer"]["equation"]["products"]
    product["factors"][0]["levels"]["girl"] = -100.0
    logit = -2.5718 + 0.0512 - 0.0611 - 0.0214 + 0.0731 + 0.0412 + 0.04127 * 15
    assert f"log-odds \u2212{-logit:.4f}" in Page(without_plots(results)).text


def test_linear_model_is_tabled_in_the_unit_of_its_outcome() -> None:
    page = shown("bmi")
    place = page.cells.index("birth weight (per kg)")
    half = 1.96 * ((0.02 + 0.06 * 0.21) ** 2 + (0.03 + 0.05 * 0.21) ** 2) ** 0.5
    assert page.cells[place + 1] == f"0.210 {0.21 - half:.3f} to {0.21 + half:.3f}"
    assert "Adds to bmi 6y (kg/m2)" in page.cells
    assert "odds" not in page.text.split("What these numbers cannot tell")[0].split("Results")[-1]


def test_equation_of_a_linear_model_gives_the_value_of_its_example() -> None:
    answer = the_ask(sample_models(), "bmi")["answer"]
    birth, bmi, _, crossed = (term["coefficient"] for term in answer["equation"]["terms"])
    value = answer["equation"]["intercept"] + birth * 3.36 + bmi * 16.4 + crossed * 0 * 16.4
    page = shown("bmi")
    assert f"with birth weight 3.36 kg, bmi 2y 16.4 kg/m2 and sex girl: bmi 6y {value:.2f} kg/m2." in page.text
    assert "\u00d7 [sex is boy] \u00d7 bmi 2y (kg/m2)" in page.cells
    assert "bmi 6y (kg/m2) =" in page.cells
    assert "1 / (1 + exp" not in page.text


def test_equation_with_a_product_of_two_measured_columns() -> None:
    results = only(sample_models(), "bmi")
    written = the_ask(results, "bmi")["answer"]["equation"]
    by = {"column": "bmi_2y", "level": None, "clip": [11.6, 23.4], "centre": 16.42}
    written["terms"] = [{"column": "birth_weight", "level": None, "coefficient": 0.5, "centre": 3.3617, "by": by}]
    page = Page(without_plots(results))
    assert f"birth weight 3.36 kg and bmi 2y 16.4 kg/m2: bmi 6y {4.27311 + 0.5 * 3.36 * 16.4:.2f} kg/m2." in page.text


def test_effects_are_drawn_for_a_tenth_of_a_range() -> None:
    svg = _svg(render(only(sample_models(), "bmi")), "What each characteristic adds to bmi 6y (kg/m2)")
    terms = the_ask(sample_models(), "bmi")["answer"]["terms"][1:]
    drawn = [float(x) for x in re.findall(r'<use [^>]*x="([^"]*)"[^>]*style="fill: #ffffff; stroke: #22303c"', svg)]
    added = [term["coefficient"] * step for term, step in zip(terms, (0.4, 1.4, 1.0, 1.0), strict=True)]
    assert np.polyval(np.polyfit(added, drawn, 1), added) == pytest.approx(drawn, abs=0.01)
    assert "birth weight, +0.4 kg" in svg
    assert "bmi 2y, +1.4 kg/m2" in svg


def test_network_says_that_it_cannot_be_read() -> None:
    page = shown("classes")
    assert "cannot be read as an equation" in page.text
    assert "6 \u2192 16 \u2192 4, from predictors to outputs" in page.text
    assert f"Numbers in it {Network(6, (16,), 4).width}" in page.text
    assert "each round is one noised sum of clipped gradients" in page.text
    assert "It has no equation that a person can read" in page.text
    assert "The equation, for use" not in page.text


# Evaluations.


def test_evaluation_names_the_model_that_a_selection_chose() -> None:
    text = shown("curves", "best", "evaluation").text
    assert "The model of Overweight, curves , which \u201cWhich model of overweight?\u201d chose, tested" in text


def test_subgroups_have_a_line_each_and_small_ones_say_too_few() -> None:
    page = shown("evaluation")
    start = page.cells.index("Subgroup")
    score = the_ask(sample_models(), "evaluation")["answer"]["subgroups"][0]["auroc"]
    girl = page.cells.index("sex: girl", start)
    assert page.cells[girl + 1] == f"{score['value']:.3f} {score['low']:.3f} to {score['high']:.3f}"
    assert page.cells[page.cells.index("sex: not known", start) + 1] == "too few for the noise"
    assert page.cells[page.cells.index("All patients", start) + 1].startswith("0.784")
    assert "Subgroup by subgroup" in page.text


def test_results_made_before_there_were_families_and_subgroups_render() -> None:
    results = only(sample_models(), "evaluation")
    answer = the_ask(results, "evaluation")["answer"]
    del answer["family"], answer["subgroups"]
    page = Page(without_plots(results))
    assert "ROC" in page.text
    assert "Subgroup" not in page.text


def test_scores_that_count_patients_show_them() -> None:
    answer = the_ask(sample_models(), "bmi_scores")["answer"]
    partners = {name: score | {"n": number(1234.0, 5.0)} for name, score in answer["partners"].items() if "r2" in score}
    cells = shown(bmi_scores={"partners": partners}).cells
    assert cells[cells.index("Zone Centrum", cells.index("Calibration slope")) + 1] == "1,234 1,224 to 1,244"


def test_scores_of_values_are_in_the_unit_of_the_outcome() -> None:
    page = shown("bmi", "bmi_scores")
    score = the_ask(sample_models(), "bmi_scores")["answer"]["overall"]["rmse"]
    assert "Root mean squared error (kg/m2)" in page.cells
    assert f"Root mean squared error (kg/m2) {score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})" in page.text
    assert "ROC" not in page.text


def test_scores_of_levels_have_every_cell_of_the_confusion_table() -> None:
    page = shown("classes_scores")
    answer = the_ask(sample_models(), "classes_scores")["answer"]
    start = page.cells.index("Model says obese")
    for true in answer["levels"]:
        place = page.cells.index(true, start)
        for chosen, cell in zip(answer["levels"], page.cells[place + 1 : place + 5], strict=True):
            assert cell.startswith(f"{answer['confusion'][true][chosen]['value']:,.0f} ")
    obese = answer["overall"]["sensitivity"]["obese"]
    place = page.cells.index("obese", page.cells.index("Level"))
    assert page.cells[place + 1] == f"{100 * obese['value']:.1f}% {100 * obese['low']:.1f} to {100 * obese['high']:.1f}%"


def test_scores_of_a_family_that_is_not_known_are_tabled_in_full() -> None:
    page = shown(bmi_scores={"family": "survival"})
    assert "no picture for outcomes of this kind" in page.text
    assert "overall \u2192 rmse" in page.cells


# Selections and recalibrations.


def test_selection_marks_the_chosen_one_and_says_when_noise_could_have_decided() -> None:
    page = shown("model", "curves", "network", "best")
    place = page.cells.index("Overweight, curves", page.cells.index("Mean loss"))
    assert page.cells[place + 1 : place + 3] == ["0.0702 0.0684 to 0.0720", "chosen"]
    assert "noise of this size alone could have decided" in page.text
    assert "the Brier score: the squared difference between the risk and what happened (1 or 0). Every" in page.text


@pytest.mark.parametrize(("second", "close"), [(0.118, True), (0.122, False)])
def test_losses_are_close_within_the_noise_of_their_difference(second: float, close: bool) -> None:
    losses = [number(second, 0.006), number(0.1, 0.008), number(0.3, 0.1) | {"status": "failed"}]
    assert _close({"candidates": [{"ask": str(k), "loss": loss} for k, loss in enumerate(losses)]}) is close


def test_recalibration_shows_what_was_estimated_and_what_is_used() -> None:
    page = shown("curves", "travels")
    answer = the_ask(sample_models(), "travels")["answer"]["partners"]["Zone Zuid"]
    cells = page.cells[page.cells.index("Zone Zuid", page.cells.index("Slope, used")) :][1:5]
    assert cells[0].startswith(f"{answer['intercept']['value']:.2f} ".replace("-", "\u2212"))
    assert cells[1].startswith(f"{answer['slope']['value']:.2f} ")
    assert [float(cell.replace("\u2212", "-")) for cell in cells[2:]] == pytest.approx(list(answer["used"].values()), rel=1e-3)
    off = "The model is off by its interval at Zone Zuid and City health service; of so many intervals"
    assert off in page.text


def test_partner_without_an_estimate_keeps_its_status_and_what_it_uses() -> None:
    cells = shown("travels").cells
    place = cells.index("University", cells.index("Slope, used"))
    assert cells[place + 1 : place + 5] == ["refused", "refused", "0.0131", "0.994"]


def test_recalibration_of_a_measured_outcome_has_its_unit() -> None:
    page = shown(draw=True, travels={"family": "continuous", "outcome": "bmi_6y"})
    assert "value at the partner = intercept + slope \u00d7 value of the model" in page.text
    assert "Intercept (kg/m2)" in page.text


# The first screen.


def test_first_screen_tells_of_the_chosen_model(page: Page) -> None:
    assert (
        "An additive model for \u201coverweight including obesity at 6 years (IOTF)\u201d was fitted to 24,912 patients"
        in page.text
    )
    assert "This is the model of \u201cOverweight, curves\u201d; the study fitted 5 others besides." in page.text
    assert "in 78 of 100 such pairs" in page.text


def test_first_screen_tells_of_the_chosen_model_though_another_was_evaluated() -> None:
    page = shown("model", "curves", "best", evaluation={"model": "model"})
    assert "An additive model for" in page.text
    assert "The results hold no evaluation of it." in page.text
    assert "of 100 such pairs" not in page.text


def test_first_screen_tells_of_the_evaluated_model_where_none_was_chosen() -> None:
    page = shown("model", "curves", evaluation={"model": "curves"})
    assert "This is the model of \u201cOverweight, curves\u201d; the study fitted 1 other besides." in page.text
    assert "of 100 such pairs" in page.text


def test_first_screen_of_a_model_that_nobody_evaluated_says_so() -> None:
    assert "A linear regression for \u201cbmi 6y\u201d was fitted to 25,110 patients" in (text := shown("bmi").text)
    assert "The results hold no evaluation of it." in text


def test_first_screen_of_values_and_levels() -> None:
    values = the_ask(sample_models(), "bmi_scores")["answer"]["overall"]
    text = shown("bmi", "bmi_scores").text
    assert f"It explains {100 * values['r2']['value']:.1f}%" in text
    assert f"its typical error is {values['rmse']['value']:.2f} kg/m2" in text
    text = shown("classes", "classes_scores").text
    assert "A neural network for \u201cweight class 6y\u201d was fitted" in text
    assert "It names the right level for 79 of 100 patients" in text
    assert "at none of them does balanced accuracy differ clearly" in text


def test_names_know_the_columns_of_the_sample() -> None:
    results = sample_models()
    assert set(results["study"]["columns"]) >= {ask["answer"].get("outcome") for ask in results["asks"]} - {None, "overweight_6y"}
    assert names_of(results).with_unit("bmi_6y") == "bmi 6y (kg/m2)"
