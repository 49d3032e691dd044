"""Estimators: what they predict, scikit-learn's manners, and the ordinary objects they turn into."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError

import ahh_federated as ahh
from ahh_federated.analyses.models import ModelAnalysis
from ahh_federated.core.columns import Numeric
from ahh_federated.lab.models.export import write_onnx
from ahh_federated.lab.models.fitted import Fitted, form_of
from ahh_federated.lab.models.forms import Line, Sum
from ahh_federated.lab.models.ordinary import pipeline
from ahh_federated.node.tables import load_cohort
from ahh_federated.runtimes.frames import read_columns
from tests.lab import modelling
from tests.lab.modelling import ASKS

every_ask = pytest.mark.parametrize("ask", ASKS)
OTHERS = modelling.rows(400, seed=7)


def predicted(ask: str, *, exact: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """What the released model says of other patients as a node reads them; what the estimator says; the grid's bound."""
    run = modelling.results(exact)
    study = run.results.header.study
    analysis = study.ask(ask).exactly() if exact else study.ask(ask).analysis
    assert isinstance(analysis, ModelAnalysis)
    equation = analysis.predictor(run.answer(ask).parameters())
    unit = (equation.outcome.high - equation.outcome.low) / 2 if equation.family == "continuous" else 1.0
    bound = 2.0**-16 * 9 * float(np.abs(equation.beta).sum()) * unit  # 9: a product of two terms, each within 4
    cohort = load_cohort(OTHERS, study, "a table", found=[])
    model = run.model(ask).model_
    columns = read_columns(OTHERS, model.columns, model.cases.values())
    return run.answer(ask).linear(cohort), model.linear(columns, len(OTHERS)), bound


@every_ask
def test_an_exact_model_predicts_what_its_answer_does(ask):
    direct, ours, _ = predicted(ask, exact=True)
    assert np.mean(~np.isnan(direct)) > 0.3
    assert np.array_equal(np.isnan(direct), np.isnan(ours))
    assert np.nanmax(np.abs(direct - ours)) < 1e-9


@every_ask
def test_a_private_model_differs_from_what_nodes_compute_by_their_grid_alone(ask):
    direct, ours, bound = predicted(ask, exact=False)
    assert np.array_equal(np.isnan(direct), np.isnan(ours))
    assert np.nanmax(np.abs(direct - ours)) < bound < 1e-2


def test_cells_of_every_kind_are_read_as_a_node_reads_them():
    """Numbers where texts are declared, whole numbers with gaps, Python objects: each cell by itself."""
    study = modelling.study()
    gaps = {
        "sex": ["boy", "girl", None, "Boy", " girl"],
        "smoked": ["no", "unclear", 1, np.nan, "stopped"],
        "parity": [0, 1.0, 2, np.nan, "1"],
        "weight": [3, 1.111, "3,5", "0x1", 5.6],
        "income": [-3.0, 60, "1e1", np.inf, pd.NA],
        "bmi": pd.array([20, None, 36, 9, 19], dtype="Int64"),
        "visits": [True, b"3", "  7 ", "inf", 2.5],
    }
    frame = pd.DataFrame({"child": list("abcde"), **gaps})
    cohort = load_cohort(frame, study, "a table", found=[])
    found: list[str] = []
    read = read_columns(frame, study.columns, study.cases.values(), found)
    for name, values in read.items():
        assert np.array_equal(values, cohort[name], equal_nan=True), name
    assert any(fault.startswith("2 rows of 'weight' are not numbers") for fault in found)
    assert not any("3,5" in fault or "0x1" in fault or "60" in fault for fault in found)
    with pytest.raises(ahh.Misuse, match="lacks the column 'sex'"):
        read_columns(frame.drop(columns="sex"), study.columns)
    with pytest.raises(ahh.Misuse, match="2 columns named 'bmi'"):
        read_columns(pd.concat([frame, frame[["bmi"]]], axis=1), study.columns)


@every_ask
def test_the_ordinary_pipeline_predicts_the_same_and_pickles_without_this_library(ask):
    model = modelling.results().model(ask)
    frame = modelling.clean(model.model_, OTHERS)
    whole = model.to_sklearn()
    stored = pickle.dumps(whole)
    assert b"ahh_federated" not in stored
    whole = pickle.loads(stored)
    expected = model.predict_proba(OTHERS) if is_classifier(model) else model.predict(OTHERS)
    known = ~np.isnan(expected).reshape(len(frame), -1).any(axis=1)
    found = whole.predict_proba(frame[known]) if is_classifier(model) else whole.predict(frame[known])
    assert np.abs(found - expected[known]).max() < 1e-6
    if not known.all():
        with pytest.raises(ValueError, match=r"NaN|unknown categories"):
            whole.predict(frame[~known])


@every_ask
def test_the_ordinary_pipeline_takes_whole_numbers(ask):
    model = modelling.results().model(ask)
    read = modelling.clean(model.model_, OTHERS)
    measured = [name for name, column in model.model_.features.items() if isinstance(column, Numeric)]
    whole = {name: read[name].round() for name in measured}
    others = OTHERS.assign(**whole)[~pd.DataFrame(whole, index=OTHERS.index).isna().any(axis=1)]
    expected = model.predict_proba(others) if is_classifier(model) else model.predict(others)
    known = ~np.isnan(expected).reshape(len(others), -1).any(axis=1)
    frame = modelling.clean(model.model_, others)[known].astype(dict.fromkeys(measured, "int64"))
    found = model.to_sklearn().predict_proba(frame) if is_classifier(model) else model.to_sklearn().predict(frame)
    assert np.abs(found - expected[known]).max() < 1e-6


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("family", modelling.OUTCOMES)
def test_a_network_differs_from_what_nodes_compute_by_their_grid_alone(family, activation, direct):
    made = modelling.predictor(family, activation, unknown=True, direct=direct)
    cohort = load_cohort(OTHERS, modelling.study(), "a table", found=[])
    model = modelling.network(family, activation, unknown=True, direct=direct)
    ours = model.linear(read_columns(OTHERS, model.columns), len(OTHERS))
    apart = np.abs(ours - made.linear(cohort))
    error = 2.0**-16 * 9  # of an input; then what each layer makes of it, and rounds itself
    for layer in model.form.layers:
        error = error * float(np.abs(layer.weights).sum(axis=0).max()) + 2.0**-16
    error += 2.0**-16 * 9 * float(np.abs(model.form.direct).sum(axis=0).max()) if direct else 0.0
    assert 0 < apart.max() < error < 0.05 * max(float(np.abs(ours).max()), 1.0)


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("family", modelling.OUTCOMES)
def test_the_ordinary_pipeline_of_a_network_predicts_the_same(family, activation, unknown):
    model = modelling.network(family, activation, unknown=unknown)
    columns = read_columns(OTHERS, model.columns)
    expected = model.predicted(model.linear(columns, len(OTHERS)))
    known = ~np.isnan(expected).reshape(len(OTHERS), -1).any(axis=1)
    assert known.all() == unknown
    frame, whole = modelling.clean(model, OTHERS)[known], pipeline(model)
    assert b"ahh_federated" not in pickle.dumps(whole)
    if not model.levels:
        assert np.allclose(whole.predict(frame), expected[known], rtol=1e-6)
        return
    found = whole.predict_proba(frame)[:, [list(whole.classes_).index(level) for level in model.levels]]
    assert np.abs(found - expected[known]).max() < 1e-6


@pytest.mark.slow  # the bytes of the test above say the same
def test_an_ordinary_pipeline_works_where_this_library_cannot_be_imported(tmp_path):
    model = modelling.results().model("curves")
    frame = modelling.clean(model.model_, OTHERS).dropna()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps((model.to_sklearn(), frame)))
    code = (
        "import sys, pickle; sys.modules['ahh_federated'] = None\n"
        "model, frame = pickle.load(open('model.pickle', 'rb')); print(repr(float(model.predict_proba(frame)[:, 1].sum())))"
    )
    ended = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert float(ended.stdout) == pytest.approx(np.nansum(model.predict_proba(OTHERS)[:, 1]), rel=1e-9)


@every_ask
def test_estimators_are_classifiers_or_regressors_as_their_outcome_is(ask):
    model = modelling.results().model(ask)
    measured = ask in ("line", "values")
    assert is_regressor(model) == measured != is_classifier(model)
    assert hasattr(model, "predict_proba") == hasattr(model, "decision_function") == hasattr(model, "classes_") == (not measured)
    assert is_classifier(clone(model)) == is_classifier(model)  # the study says so before it is fitted
    assert set(model.feature_names_in_) == set(model.model_.columns)
    assert model.n_features_in_ == len(model.feature_names_in_)
    assert 0.05 < model.score(*_known(model)) <= 1


def _known(model):
    """Patients of whom everything is known, and their outcomes."""
    outcome, study = model.model_.outcome.name, modelling.study()
    read = read_columns(OTHERS, study.columns, study.cases.values())
    whole = ~np.isnan(np.stack(list(read.values()))).any(axis=0)
    y = read[outcome][whole]
    return OTHERS[whole], model.classes_[y.astype(int)] if is_classifier(model) else y


def test_the_equation_says_what_a_logistic_model_predicts():
    model = modelling.results().model("plain")
    patient = pd.DataFrame({"sex": ["boy"], "smoked": ["stopped"], "weight": [3.0], "income": [20.0]})
    by_hand = model.intercept_[0] + model.coef_[0] @ [1, 0, 1, 3.0, 20.0]
    assert model.decision_function(patient)[0] == pytest.approx(by_hand)
    assert list(model.summary_.index)[1:] == [
        "sex: boy",
        "smoked: yes",
        "smoked: stopped",
        "weight (per kg)",
        "income (per 1000 EUR)",
    ]


def test_a_linear_model_has_intervals_in_the_outcomes_unit():
    summary = modelling.results().model("line").summary()
    assert {"coefficient", "low", "high", "se_sampling", "se_privacy"} <= set(summary.columns)
    assert ((summary["low"] < summary["coefficient"]) & (summary["coefficient"] < summary["high"])).all()
    assert (summary["se"] > summary["se_sampling"]).all()


@pytest.mark.parametrize("ask", ["curves", "values"])
def test_an_additive_model_has_curves_with_bands(ask):
    model = modelling.results().model(ask)
    assert set(model.curves_) == {"weight", "income"}
    name = "log_odds" if ask == "curves" else "value"
    for curve in model.curves_.values():
        assert (np.diff(curve["at"]) > 0).all()
        assert ((curve["low"] < curve[name]) & (curve[name] < curve["high"])).all()
    assert {2.5, 3.5} <= set(model.curves_["weight"]["at"]) or ask == "values"
    assert "sex: boy" in model.summary().index
    figure = model.plot()
    assert [panel.get_xlabel() for panel in figure.axes] == ["weight (kg)", "income (1000 EUR)"]
    assert [panel.get_xlabel() for panel in model.plot("income").axes] == ["income (1000 EUR)"]
    with pytest.raises(ahh.Misuse, match="no curve of 'age', 'sex': the model has curves of weight, income"):
        model.plot("age", "income", "sex")


def test_the_receipt_says_what_the_training_cost_whom():
    receipt = modelling.results().model("curves").receipt_
    study = modelling.study()
    assert (receipt["study"], receipt["digest"], receipt["ask"]) == ("models", study.digest, "curves")
    assert receipt["share"] == pytest.approx(1 / 7, abs=1e-6)
    assert receipt["epsilon_ask"] == study.ask_epsilon(study.ask("curves"))
    assert receipt["stamp"] == "NOT PRIVATE: fixed seed"
    assert 3.0 < receipt["ledger"]["north"]["epsilon_study"] <= 3.5


@pytest.fixture(scope="module")
def judged():
    """Two partners, a choice between two models, and one of them recalibrated."""
    tables = {"north": modelling.rows(2_000, seed=3), "south": modelling.rows(2_000, seed=4)}
    return ahh.run(modelling.study("plain", "gaps", "choice", "places"), tables, seed=1)


def test_the_model_of_a_selection_is_the_one_that_was_chosen(judged):
    assert judged.models == ["plain", "gaps"]
    chosen = judged.answer("choice").to_json()["chosen"]
    assert judged.model("choice").receipt_["ask"] == chosen
    with pytest.raises(ahh.Misuse, match="name one of plain, gaps"):
        judged.model("places")


def test_a_model_is_recalibrated_to_each_partner(judged, tmp_path):
    model, used = judged.model("plain"), judged.answer("places").used
    known = OTHERS[~np.isnan(model.decision_function(OTHERS))]
    for partner, (intercept, slope) in used.items():
        at_home = model.at(partner)
        expected = intercept + slope * model.decision_function(known)
        assert np.abs(at_home.decision_function(known) - expected).max() < 1e-12
        whole = at_home.to_sklearn().decision_function(modelling.clean(model.model_, known))
        assert np.abs(whole - expected).max() < 1e-9
        at_home.save(tmp_path / f"{partner}.json")
        assert np.array_equal(
            ahh.load_model(tmp_path / f"{partner}.json").decision_function(known), at_home.decision_function(known)
        )
    assert used["north"] != used["south"]
    with pytest.raises(ahh.Misuse, match="there is one to north, south"):
        model.at("east")
    with pytest.raises(ahh.Misuse, match="to no partner"):
        judged.model("gaps").at("north")


def test_recalibration_of_a_chosen_model_is_that_of_the_model_it_chose():
    tables = {"north": modelling.rows(2_000, seed=3), "south": modelling.rows(2_000, seed=4)}
    results = ahh.run(modelling.study("plain", "gaps", "choice", "settled"), tables, seed=1)
    chosen, used = results.answer("choice").ask, results.answer("settled").used
    assert results.model("choice").model_.recalibration == results.model(chosen).model_.recalibration == used
    assert results.model("choice").at("north").receipt_["ask"] == chosen
    other = ({"plain", "gaps"} - {chosen}).pop()
    with pytest.raises(ahh.Misuse, match="give the study an ask 'recalibration'"):
        results.model(other).at("north")


@pytest.mark.slow  # imports torch
def test_networks_train_and_predict_what_their_answer_does(tmp_path):
    pytest.importorskip("opacus")
    frame = modelling.rows(1_500, seed=5)
    study = modelling.study("network", "visits")
    results = ahh.run(study, {"local": frame}, seed=2, out=tmp_path / "out")
    cohort = load_cohort(OTHERS, study, "a table", found=[])
    for ask, family in (("network", "binary"), ("visits", "count")):
        model = results.model(ask)
        assert model.family == family
        ours = model.model_.linear(read_columns(OTHERS, model.model_.columns), len(OTHERS))
        direct = results.answer(ask).linear(cohort)
        assert np.array_equal(np.isnan(direct), np.isnan(ours))
        assert np.nanmax(np.abs(direct - ours)) < 1e-2
        loaded = ahh.load_model(tmp_path / "out" / f"model-{ask}.json")
        assert np.array_equal(loaded.model_.linear(read_columns(OTHERS, model.model_.columns), len(OTHERS)), ours, equal_nan=True)
        assert (tmp_path / "out" / f"model-{ask}.safetensors").exists()
        assert list(model.summary().index) == [*(f"layer {k}" for k in range(len(model.model_.form.layers))), "direct"]
    alone = ahh.NeuralModel(modelling.study("network"), seed=2).fit(frame)
    assert is_classifier(alone) and alone.predict_proba(OTHERS).shape == (len(OTHERS), 2)


def one(*asks, **about):
    return modelling.study(*asks, **about)


def test_one_data_frame_is_one_partner():
    frame = modelling.rows(800)
    whole = ahh.LinearRegression(one("line"), seed=3).fit(frame)
    apart = ahh.LinearRegression(one("line"), seed=3).fit(frame.drop(columns="bmi"), frame["bmi"])
    assert np.array_equal(whole.coef_, apart.coef_)
    assert whole.receipt_["partners"] == ["local"]


@pytest.mark.parametrize(
    ("estimator", "call", "message"),
    [
        (ahh.LinearRegression, lambda m, f: m().fit(f), "LinearRegression needs a study"),
        (ahh.LinearRegression, lambda m, f: m(one("plain")).fit(f), "no linear ask"),
        (ahh.LinearRegression, lambda m, f: m(one("line"), ask="other").fit(f), "'other': it has line"),
        (ahh.LinearRegression, lambda m, f: m(one("line", minimum_partners=2)).fit(f), "one data frame is one partner"),
        (ahh.LinearRegression, lambda m, f: m(one("line")).fit({"a": f}, f["bmi"]), "leave y out"),
        (ahh.LinearRegression, lambda m, f: m(one("line")).fit([f, f]), "X is a list: give data frames by partner"),
        (ahh.LinearRegression, lambda m, f: m(one("line")).fit(f.to_numpy()), "X is a ndarray: give data frames by partner"),
        (ahh.LinearRegression, lambda m, f: m(one("line")).fit(f, f["bmi"]), "give it once"),
        (ahh.LinearRegression, lambda m, f: m(one("line")).fit(f.drop(columns="bmi"), [20.0]), "one outcome a row"),
        (ahh.LogisticRegression, lambda m, f: m(one("plain")).fit(f, f["bmi"]), "is a case"),
        (ahh.LogisticRegression, lambda m, f: m(one("plain"), seed=1).fit(f.head(3)), "below threshold"),
    ],
)
def test_what_cannot_work_is_said_with_its_fix(estimator, call, message):
    with pytest.raises(ahh.Misuse, match=message):
        call(estimator, modelling.rows(150))


def test_predicting_needs_a_fit_and_a_data_frame():
    with pytest.raises(NotFittedError):
        ahh.AdditiveModel().predict(OTHERS)
    model = modelling.results().model("line")
    with pytest.raises(ahh.Misuse, match="DataFrame"):
        model.predict(np.zeros((2, 4)))
    assert np.isnan(model.predict(OTHERS.assign(weight=""))).all()
    with pytest.raises(ahh.Misuse, match="400 rows lack a value"):
        modelling.results().model("plain").predict(OTHERS.assign(weight=""))


def test_the_form_of_something_else_is_refused():
    with pytest.raises(ahh.Misuse, match="has no form"):
        form_of(object())


def test_names_that_others_use_too_are_no_trouble(tmp_path):
    """Columns called as graphs, outputs and parameters are elsewhere."""
    runtime = pytest.importorskip("onnxruntime")
    names = ("v0", "c0", "value", "probabilities", "model", "a__b", "steps")
    columns = {name: Numeric(name, 0.0, 1.0, "1") for name in names}
    form = Sum(0.5, tuple(Line(name, float(k), 0.0, 1.0) for k, name in enumerate(names)))
    kept = modelling.network("continuous")
    model = Fitted("linear", "continuous", "t", kept.outcome, "bmi", columns, {}, form, {"terms": []}, kept.receipt)
    frame = pd.DataFrame(np.random.default_rng(1).random((5, len(names))), columns=list(names))
    expected = 0.5 + frame.to_numpy() @ np.arange(len(names))
    assert np.allclose(pipeline(model).predict(frame), expected)
    write_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: frame[[name]].to_numpy() for name in names})[0]
    assert np.allclose(found[:, 0], expected)
