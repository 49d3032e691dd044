"""A valid study: what it declares, its digest, and what it will cost before anybody is asked."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.scores import Scores
from ahh_federated.core.columns import Levels, Numeric
from ahh_federated.core.costs import Spent
from ahh_federated.core.programs import check_schedule
from ahh_federated.errors import Misuse
from ahh_federated.study import Study, canonical, open_study, parse_study
from ahh_federated.study.declarations import Folds
from ahh_federated.study.fields import Table
from tests.study.samples import TEXT, content, small

STUDY = small()
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


def test_what_the_file_says_is_what_the_study_has() -> None:
    assert (STUDY.id, STUDY.version, STUDY.consortium, STUDY.minimum_partners) == ("growth", 1, "harbour", 2)
    assert (STUDY.requester, STUDY.organisation, STUDY.permit) == ("A researcher", "A university", "fictitious-1")
    assert (STUDY.expires, STUDY.data, STUDY.open_data) == (date(2030, 12, 31), "synthetic", True)
    assert (STUDY.budget.epsilon, STUDY.budget.delta) == (2.0, 1e-6)
    assert (STUDY.patient.key, STUDY.patient.reduce, STUDY.patient.order) == ("child", "last", "seen")
    assert STUDY.patient.folds == Folds(("test", "train"), (0.3, 0.7))
    assert STUDY.columns["sex"] == Levels("sex", ("girl", "boy"))
    assert STUDY.columns["smoked"] == Levels("smoked", ("no", "yes", "stopped"), ("unknown",))
    assert STUDY.columns["weight"] == Numeric("weight", 0.5, 5.5, "kg", (999.0,), "missing")
    assert (STUDY.cases["heavy"].label, STUDY.cases["heavy"].when.text) == ("Heavy for the age", "bmi >= 20")
    assert STUDY.cases["heavy"].column == Levels("heavy", ("no", "yes"))
    assert [ask.id for ask in STUDY.asks] == ["children", "size", "bins", "spread", "model", "evaluation"]


def test_it_is_shown_in_a_line() -> None:
    """Printing a model prints its study."""
    assert repr(STUDY) == f"<Study growth, version 1, {STUDY.digest[:12]}>"


def test_defaults() -> None:
    study = small(('data = "synthetic"\n', ""), ('reduce = "last"\norder = "seen"\n', ""), ('label = "Heavy for the age"\n', ""))
    assert (study.data, study.open_data, study.patient.reduce, study.patient.order) == ("real", False, "forbid", None)
    assert study.cases["heavy"].label == "heavy"
    assert (study.ask("size").where, study.ask("size").title) == (None, "size")


def test_an_ask_that_is_not_there() -> None:
    with pytest.raises(Misuse, match="the study growth has no ask 'sise': it has children, size, bins"):
        STUDY.ask("sise")


def test_the_model_of_scores_is_bound_when_it_is_fitted() -> None:
    ask = STUDY.ask("evaluation")
    assert ask.models == ("model",)
    assert isinstance(ask.analysis, Scores)
    assert ask.analysis.fit is None
    with pytest.raises(KeyError):
        ask.runnable({})


def test_an_exact_run_has_more_rounds_and_no_other_analysis_changes() -> None:
    exact = STUDY.ask("model").runnable({}, exact=True)
    assert isinstance(exact, Logistic)
    assert (exact.exact, exact.rounds) == (True, EXACT_ROUNDS)
    assert STUDY.ask("size").runnable({}, exact=True) is STUDY.ask("size").analysis


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_valid_and_cost_what_they_say(path: Path) -> None:
    study = open_study(path)
    assert study.digest == open_study(str(path)).digest
    within_budget(study)


def within_budget(study: Study) -> None:
    spent = Spent()
    for ask in study.asks:
        lines = check_schedule(ask.analysis.schedule())
        events = [study.event(ask, line) for line in lines]
        assert float(Spent.of(events).mu_squared) <= study.budget.mu**2 * ask.share * (1 + 1e-9)
        assert all(event.width == line.width for event, line in zip(events, lines, strict=True))
        for event in events:
            spent = spent + event
        assert 0 <= study.ask_epsilon(ask) <= study.budget.epsilon
    assert spent.within(study.budget)


@given(st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=12), st.floats(0.01, 3.0), st.sampled_from([1e-8, 1e-6, 1e-3]))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_shares_that_sum_to_one_fit_the_budget_to_the_last(shares: list[float], epsilon: float, delta: float) -> None:
    edited = content()
    edited["privacy"].update(epsilon=epsilon, delta=delta)
    total = math.fsum(shares)
    shares = [share / total * (1 - 1e-12) for share in shares]
    edited["ask"] = [{"id": f"a{k}", "analysis": "count", "by": ["sex"], "share": share} for k, share in enumerate(shares)]
    within_budget(parse_study(edited))


def test_without_samples_nothing_is_cheaper_alone() -> None:
    edited = content()
    edited["ask"] = [{"id": "few", "analysis": "count", "by": ["sex"], "share": 0.1}]  # most of the budget is not asked for
    assert parse_study(edited).epsilon_alone is None


def test_a_smaller_share_means_more_noise() -> None:
    edited = content()
    edited["ask"][0]["share"] = STUDY.ask("children").share / 4
    half = parse_study(edited)
    (line,) = STUDY.ask("size").analysis.schedule()
    assert STUDY.mu(STUDY.ask("size"), line) == pytest.approx(STUDY.budget.mu * 0.05**0.5)
    sigmas = [study.event(study.ask("children"), study.ask("children").analysis.schedule()[0]).sigma for study in (STUDY, half)]
    assert sigmas[1] / sigmas[0] == pytest.approx(2.0, rel=1e-5)


def reordered(value: Any) -> Any:
    return {key: reordered(value[key]) for key in sorted(value, reverse=True)} if isinstance(value, dict) else value


def test_the_digest_is_of_the_canonical_form() -> None:
    plain = content()
    plain["study"]["expires"] = "2030-12-31"
    canon = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    assert canonical(STUDY.content) == canon.encode()
    assert STUDY.digest == hashlib.sha256(canon.encode()).hexdigest()


def test_what_does_not_change_the_digest_does_not_change_the_study() -> None:
    other = parse_study(reordered(content()))
    commented = parse_study(tomllib.loads("# a comment\n" + TEXT.replace(" = ", "   =  ")))
    for study in (other, commented):
        assert study.digest == STUDY.digest
        assert study.patient == STUDY.patient
        assert study.fold == STUDY.fold
        assert dict(study.columns) == dict(STUDY.columns)
        assert [ask.analysis for ask in study.asks] == [ask.analysis for ask in STUDY.asks]


@pytest.mark.parametrize(
    "edit",
    [
        ("epsilon = 2.0", "epsilon = 2.0000000000000004"),
        ('title = "Growth of children"', 'title = "Growth of children "'),
        ("expires = 2030-12-31", "expires = 2030-12-30"),
        ('levels = ["girl", "boy"]', 'levels = ["boy", "girl"]'),
        ("range = [10, 35]", "range = [10, 36]"),
        ("bmi >= 20", "bmi > 20"),
        ("{ train = 0.7, test = 0.3 }", "{ train = 0.6, test = 0.4 }"),
        ("thresholds = [0.1, 0.2]", "thresholds = [0.1, 0.3]"),
        ("minimum_partners = 2", "minimum_partners = 3"),
        ("bins = 10", "bins = 11"),
    ],
    ids=lambda edit: edit[1][:20],
)
def test_whatever_else_changes_changes_the_digest(edit: tuple[str, str]) -> None:
    assert small(edit).digest != STUDY.digest


def test_two_asks_in_another_order_are_another_study() -> None:
    turned = content()
    turned["ask"][0], turned["ask"][1] = turned["ask"][1], turned["ask"][0]
    assert parse_study(turned).digest != STUDY.digest


def test_folds_cover_every_patient_by_their_shares() -> None:
    folds = Folds(("a", "b", "c"), (0.2, 0.3, 0.5))
    found = [folds.of("growth", f"patient {k}") for k in range(5000)]
    for index, share in enumerate(folds.shares):
        assert found.count(index) / 5000 == pytest.approx(share, abs=0.03)
    uneven = Folds(("a", "b"), (1e-9, 1 - 1e-9))
    assert {uneven.of("growth", str(k)) for k in range(200)} == {1}
    assert Folds(("a", "b", "c"), (0.1, 0.2, 0.7 - 1e-10)).of("s", "p") in (0, 1, 2)


def test_folds_do_not_tell_one_patient_from_another_study() -> None:
    folds = Folds(("a", "b"), (0.5, 0.5))
    assert folds.of("s", "1\0x") in (0, 1)
    same = sum(folds.of("one", str(k)) == folds.of("two", str(k)) for k in range(4000))
    assert same / 4000 == pytest.approx(0.5, abs=0.04)


def test_a_table_refuses_keys_that_nobody_read() -> None:
    table = Table({"a": 1, "bb": 2}, "here")
    assert table.integer("a", 0, 5) == 1
    with pytest.raises(Misuse, match=r"here\.bb is not a known key: known keys are a"):
        table.done()
    assert table.integer("bb", 0, 5) == 2
    table.done()


@pytest.mark.parametrize("value", [None, True, "1", 1.5, [1], {}, float("nan"), 10**400, -1, 6])
def test_a_whole_number_is_a_whole_number(value: object) -> None:
    with pytest.raises(Misuse, match=r"here\.a is not a whole number from 0 to 5"):
        Table({"a": value}, "here").integer("a", 0, 5)


@pytest.mark.parametrize("value", ["a", "A1_-", "x" * 64])
def test_names(value: str) -> None:
    assert Table({"a": value}, "here").name("a") == value


@pytest.mark.parametrize("value", ["1a", "_a", "a b", "a/b", "..", "é", "a\n", "x" * 65, "a.b", "a;b", "-a"])
def test_what_is_no_name(value: str) -> None:
    with pytest.raises(Misuse, match=r"here\.a"):
        Table({"a": value}, "here").name("a")


@pytest.mark.parametrize("value", ["Zoë & Ömer", "two\nlines", "a\ttab", "non\u00a0breaking", "日本", "🙂"])
def test_texts_of_any_language(value: str) -> None:
    assert Table({"a": value}, "here").text("a") == value


@pytest.mark.parametrize("value", ["\x1b[31m", "\x00", "a\rb", "\u202eabc", "\u200b", "\ud800", "\x7f", "\u2066x"])
def test_texts_that_hide_something(value: str) -> None:
    for read in (Table({"a": value}, "here").text, Table({"a": [value]}, "here").texts):
        with pytest.raises(Misuse, match=r"here\.a holds a control character"):
            read("a")
