"""The model card holds what the results hold, says what they do not, and nothing else."""

from __future__ import annotations

import re
from math import exp, hypot

import pytest

from ahh_federated.lab.report.card import predictors_of
from ahh_federated.lab.report.models import indicators
from ahh_federated.lab.report.tables import names_of
from tests.lab.report_page import Json, Page, assert_well_formed, only, the_ask, without_plots
from tests.lab.sample_models import TEST, TRAIN, curve, sample_models
from tests.lab.sample_results import ANSWERED, PARTNERS, ask, count_children, sample_results

HEADINGS = (
    "Intended use",
    "What it predicts, and from what",
    "Training data and coverage",
    "How it was fitted",
    "Privacy",
    "How well it works",
    "Limits",
    "To reproduce it",
)


def card(results: Json, model: str) -> Page:
    """The card of one model as a page of its own."""
    html = without_plots(results)
    place = [found["id"] for found in results["asks"]].index(model) + 1
    start = html.index(f'<section class="card" id="q{place}-card"')
    return Page(html[start : html.index("</section>", start)] + "</section>")


def sections(page: Page) -> dict[str, str]:
    """The text under each heading."""
    places = [page.text.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    return {h: page.text[a:b] for h, a, b in zip(HEADINGS, places, [*places[1:], None], strict=True)}


@pytest.fixture(scope="module")
def curves() -> Page:
    return card(only(sample_models(), "overweight", "curves", "best", "evaluation", "travels"), "curves")


def test_every_model_has_a_card_and_nothing_else_has() -> None:
    html = without_plots(sample_models())
    asks = sample_models()["asks"]
    fitted = [
        f"q{k}-card" for k, found in enumerate(asks, start=1) if found["analysis"] in ("logistic", "additive", "linear", "neural")
    ]
    assert re.findall(r'<section class="card" id="([^"]*)"', html) == fitted
    assert all(f'<a href="#{name}">model card</a>' in html for name in fitted)
    assert_well_formed(Page(html))


def test_card_says_what_the_study_says(curves: Page) -> None:
    study = sample_models()["study"]
    found = sections(curves)
    for key in ("purpose", "requester", "organisation", "permit", "expires"):
        assert study[key] in found["Intended use"]
    for key in ("id", "digest"):
        assert study[key] in found["To reproduce it"]
    assert "ahh_federated 0.1.0" in found["To reproduce it"]
    assert "question curves" in found["To reproduce it"]


def test_card_defines_the_outcome_and_lists_the_predictors(curves: Page) -> None:
    found = sections(curves)["What it predicts, and from what"]
    assert "overweight including obesity at 6 years (IOTF)" in found
    assert "(sex == 'boy' and bmi_6y >= 17.55)" in found
    assert "a risk from 0 to 100%" in found
    place = curves.cells.index("bmi mother")
    assert curves.cells[place : place + 4] == ["bmi mother", "15 to 50", "kg/m2", "bmi_mother"]
    assert curves.cells[curves.cells.index("deprived") + 1] == "no, yes, not known"


def test_predictors_come_from_whatever_lists_them() -> None:
    answer = {"terms": [{"column": None}, {"column": "a"}, {"column": "a"}], "curves": {"b": {}}}
    assert predictors_of(answer) == ["a", "b"]
    assert predictors_of(answer | {"features": ["b", "a"]}) == ["b", "a"]
    network = only(sample_models(), "network")
    del the_ask(network, "network")["answer"]["features"]
    assert "The results do not list its predictors." in card(network, "network").text


def test_predictor_that_is_a_case_or_moved_into_its_range_says_so() -> None:
    results = only(sample_models(), "curves")
    results["study"]["columns"]["birth_weight"]["outside"] = "clip"
    the_ask(results, "curves")["answer"]["features"] = ["thin_6y", "birth_weight"]
    cells = card(results, "curves").cells
    assert "yes or no: bmi_6y < 12.5" in cells
    assert "1.5 to 5.5, beyond it moved to the nearest end" in cells


def test_card_says_how_many_patients_and_which_partners(curves: Page) -> None:
    found = sections(curves)["Training data and coverage"]
    assert "those with fold == 'train' , synthetic data" in found
    assert "24,912 (24,851 to 24,973)" in found
    assert "2,176 (2,119 to 2,233)" in found
    assert "86.4% (86.1 to 86.7%)" in found
    assert "7 of 8 are in the model; not in it: University" in found
    place = curves.cells.index("University")
    assert curves.cells[place + 1] == "no: refused"


def test_partners_have_the_sums_of_what_they_counted(curves: Page) -> None:
    cells = the_ask(sample_models(), "overweight")["answer"]["cells"]
    assert "they counted in \u201cHow many are overweight?\u201d, among patients with fold == 'train'" in curves.text
    for partner in ANSWERED[:-1]:
        all_of = [cell["partners"][partner] for cell in cells]
        with_it = [c["partners"][partner] for c in cells if c["levels"]["overweight_6y"] == "yes"]
        row = curves.cells[curves.cells.index(partner) :][1:4]
        assert row[0] == "yes"
        for numbers, text in zip((all_of, with_it), row[1:], strict=True):
            value, half = sum(n["value"] for n in numbers), 1.96 * hypot(*(n["se"] for n in numbers))
            assert text == f"{value:,.0f} {value - half:,.0f} to {value + half:,.0f}"
    place = curves.cells.index("Rare disease clinic")
    assert curves.cells[place + 1 : place + 4] == ["yes", "a part was not released", "below threshold (may be zero)"]


def test_count_of_all_patients_stands_in_and_says_so() -> None:
    results = only(sample_models(), "curves")
    other = ask("test", "Tested", "count", count_children(), 0.1, where=TEST)
    results["asks"] += [other, ask("children", "How many children?", "count", count_children(), 0.1)]
    text = card(results, "curves").text
    assert "they counted in \u201cHow many children?\u201d, among all patients" in text
    assert "Tested" not in text
    results["asks"].pop()
    assert "they counted" not in card(results, "curves").text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"terms": [{"column": "sex", "level": "not known"}]}, True),
        ({"terms": [{"column": "deprived", "level": "not known"}]}, False),  # a level that the study declares
        ({"terms": [{"column": "sex", "level": "boy"}]}, False),
        ({"missing": "indicator", "terms": []}, True),
        ({"missing": "complete-cases"}, False),
        ({"layers": [3, 1]}, None),
    ],
)
def test_whether_not_known_is_a_level_is_read_off_the_answer(answer: Json, expected: bool | None) -> None:
    assert indicators(answer, names_of(sample_models())) is expected


def test_card_says_how_values_not_known_were_treated() -> None:
    assert "A patient with any value not known was left out." in card(only(sample_models(), "curves"), "curves").text
    assert "The results do not say how they were treated." in card(only(sample_models(), "network"), "network").text
    results = only(sample_models(), "curves")
    the_ask(results, "curves")["answer"]["terms"][1] |= {"level": "not known"}
    assert "\u201cNot known\u201d is a level of its own" in card(results, "curves").text
    assert "Outcome known 86.4%" in card(results, "curves").text
    assert "the outcome was known for 86.4% of the patients" in Page(without_plots(results)).text


def test_card_says_how_it_was_fitted_and_chosen(curves: Page) -> None:
    found = sections(curves)["How it was fitted"]
    assert "Method Additive model" in found
    assert "Messages from each partner 8" in found
    assert "each partner, to everything it sends" in found
    assert "Chosen among 3 candidates in Which model of overweight? ; all of them were paid for" in found
    assert "Curves: patients x mu / sqrt(partners) is 812" in found


def test_card_gives_the_guarantee_of_the_ask_and_of_the_study(curves: Page) -> None:
    model, found = the_ask(sample_models(), "curves"), sections(curves)["Privacy"]
    assert f"\u03b5 = {model['epsilon']:.3g}, 15% of the study's budget" in found
    assert "\u03b5 = 2 at \u03b4 = 10\u207b\u2076 (1 in 1,000,000), for one patient added or removed at a partner" in found
    assert f"at most {100 * (exp(2) + 1e-6) / (exp(2) + 1):.1f}% of the time" in found
    assert "does not hold" not in found


def test_card_of_a_rehearsal_promises_nothing() -> None:
    page = card(only(sample_models(), "curves") | {"stamp": "NOT PRIVATE: exact run"}, "curves")
    assert "NOT PRIVATE: exact run. The numbers on this card are not protected." in page.text
    assert "It does not hold for these numbers." in page.text
    assert "blurred by noise" not in page.text


def test_card_says_what_the_questions_cost_by_themselves() -> None:
    results = only(sample_models(), "curves")
    assert "by themselves" not in card(results, "curves").text
    results["privacy"]["epsilon_alone"] = None
    assert "by themselves" not in card(results, "curves").text
    results["privacy"]["epsilon_alone"] = 1.75
    text = card(results, "curves").text
    assert "Its questions by themselves \u03b5 = 1.75 at the same \u03b4, if nothing else is ever asked" in text


def test_card_of_shared_noise_speaks_of_the_sum() -> None:
    results = only(sample_models(), "curves")
    results["privacy"]["noise"] = "shared"
    text = card(results, "curves").text
    assert "the partners together; only their sum is seen" in text
    assert "added or removed at the partners together" in text


def test_performance_overall_by_partner_and_by_subgroup_with_intervals(curves: Page) -> None:
    found = sections(curves)["How well it works"]
    assert "From How well does it predict? , among patients with fold == 'test' ." in found
    assert "may be too good" not in found
    answer = the_ask(sample_models(), "evaluation")["answer"]
    start = curves.cells.index("AUROC")
    each = {"All partners": answer["overall"], **answer["partners"], "sex: boy": answer["subgroups"][1]}
    for head, score in each.items():
        cell = curves.cells[curves.cells.index(head, start) + 1]
        if score["status"] == "released":
            auroc = score["auroc"]
            assert cell == f"{auroc['value']:.3f} {auroc['low']:.3f} to {auroc['high']:.3f}"
        else:
            assert cell == {"too few": "too few for the noise", "refused": "refused"}[score["status"]]
    assert {"By partner", "By subgroup, all partners together"} <= set(curves.cells)
    assert "fitted to each partner: Does it travel?" in found


def test_evaluation_of_the_chosen_model_is_not_that_of_another() -> None:
    results = only(sample_models(), "model", "curves", "best", "evaluation")
    page = card(results, "model")
    assert "No evaluation of this model is in the results: how well it predicts is not known." in page.text
    assert "Tried, not chosen, among 3 candidates" in page.text
    assert "AUROC" not in page.text


def test_evaluation_on_the_patients_of_the_fit_is_called_that() -> None:
    results = only(sample_models(), "bmi", "bmi_scores")
    warning = "The patients it was fitted to are among them, so these figures may be too good."
    assert warning in card(results, "bmi").text
    assert "No subgroups were declared for this evaluation" in card(results, "bmi").text
    for where, warned in ((None, True), (TRAIN, True), (TEST, False)):
        the_ask(results, "bmi_scores")["where"] = where
        assert (warning in card(results, "bmi").text) is warned


def test_evaluation_without_an_answer_is_named() -> None:
    results = only(sample_models(), "curves", "evaluation")
    the_ask(results, "evaluation").update(status="below threshold", answer=None)
    said = "\u201cHow well does it predict?\u201d has no answer: below threshold (may be zero)."
    assert said in card(results, "curves").text
    results["asks"].append(the_ask(sample_models(), "model"))
    assert said not in card(results, "curves").text  # it may have been about the other
    the_ask(results, "evaluation")["models"] = ["curves"]
    assert said in card(results, "curves").text
    assert said not in card(results, "model").text


def test_limits_name_the_partners_that_are_not_in_it(curves: Page) -> None:
    assert "it has not seen those of University" in sections(curves)["Limits"]
    results = only(sample_models(), "curves")
    the_ask(results, "curves")["coverage"] = dict.fromkeys(PARTNERS, "released")
    assert "it has not seen" not in card(results, "curves").text


def test_results_of_an_older_version_have_a_card_too() -> None:
    page = card(only(sample_results(), "model", "evaluation"), "model")
    assert "Zone Noord" in sections(page)["How well it works"]
    assert "home language" in page.cells


def test_text_of_the_study_is_never_markup_on_a_card() -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)> {{ 7*7 }}"
    results = only(sample_models(), "overweight", "curves", "best", "evaluation", "travels")
    for key in ("purpose", "requester", "organisation", "permit", "digest", "id"):
        results["study"][key] = attack
    results["partners"][0]["name"] = attack
    for found in results["asks"]:
        found["title"] = found["where"] = attack
        found["coverage"][attack] = attack
    answer = the_ask(results, "curves")["answer"]
    answer |= {"notes": [attack], "features": [attack], "curves": {attack: curve(attack, 0, 1, lambda u: u, "log_odds")}}
    page = card(results, "curves")
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert page.text.count("{{ 7*7 }}") > 10
