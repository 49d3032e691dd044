"""What a researcher calls: run, quote, models."""

from __future__ import annotations

import copy
import json
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError

import ahh_federated as ahh
from ahh_federated.lab.synthetic import antwerp_children, write_partners
from ahh_federated.node.ledger import Ledger
from ahh_federated.study import parse_study

STUDY = Path(__file__).parents[2] / "examples" / "child-overweight.toml"


@pytest.fixture(scope="module")
def frames():
    return antwerp_children(children=6_000, seed=5)


@pytest.fixture(scope="module")
def results(frames):
    return ahh.run(STUDY, frames, seed=1)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partners")
    write_partners(folder, children=3_000, seed=5)
    return folder


def test_a_model_is_a_scikit_learn_classifier(results, frames):
    model = results.model("model")
    assert is_classifier(model)
    assert clone(model).get_params()["ask"] == model.ask
    children = frames["zone-zuid"]
    risk = model.predict_proba(children)
    known = ~np.isnan(risk[:, 1])
    assert risk.shape == (len(children), 2)
    assert known.any()
    assert np.allclose(risk[known].sum(axis=1), 1.0)
    assert ((risk[known] > 0) & (risk[known] < 1)).all()
    assert set(model.predict(children[known])) <= {"no", "yes"}


def test_the_equation_of_the_model_is_what_the_fit_predicts(results, frames):
    """The equation on the original scale, clips included, gives the risk that the nodes scored, up to the grid."""
    from ahh_federated.node.tables import load_cohort

    study = ahh.open_study(STUDY)
    frame = frames["city-school-health"].drop_duplicates("child_id")
    cohort = load_cohort(frame, study, "table")
    fit = results.answer("model")
    model = results.model("model")
    direct, equation = fit.predict(cohort), model.predict_proba(frame)[:, 1]
    known = ~np.isnan(direct)
    assert (known == ~np.isnan(equation)).all()
    assert np.abs(direct - equation)[known].max() < 1e-3


def test_predicting_needs_a_fit_a_frame_and_the_columns(results, frames):
    with pytest.raises(NotFittedError):
        ahh.LogisticRegression().predict_proba(frames["zone-zuid"])
    with pytest.raises(ahh.Misuse, match="DataFrame"):
        results.model("model").predict_proba(np.zeros((2, 8)))
    with pytest.raises(ahh.Misuse, match="'bmi_2y'"):
        results.model("model").predict_proba(frames["zone-zuid"].drop(columns="bmi_2y"))
    with pytest.raises(ahh.Misuse, match="lack a value"):
        results.model("model").predict(frames["zone-zuid"].assign(bmi_2y=np.nan))


def test_summary_has_intervals_wider_than_sampling_alone(results):
    summary = results.model("model").summary()
    assert list(summary.columns[:3]) == ["odds_ratio", "low", "high"]
    assert (summary["se"] > summary["se_sampling"]).all()
    assert ((summary["low"] < summary["odds_ratio"]) & (summary["odds_ratio"] < summary["high"])).all()


def test_an_estimator_fits_data_frames_by_itself(frames, results):
    model = ahh.LogisticRegression(study=STUDY, seed=1).fit(frames)
    assert np.array_equal(model.coef_, results.model("model").coef_)
    assert model.receipt_["digest"] == ahh.open_study(STUDY).digest
    with pytest.raises(ahh.Misuse, match="needs a study"):
        ahh.LogisticRegression().fit(frames)


def test_paths_by_partner_are_no_data_frames():
    with pytest.raises(ahh.Misuse, match="partners\\['zone-oost'\\] is a PosixPath, not a data frame: give the folder"):
        ahh.run(STUDY, {"zone-oost": Path("zone-oost.csv")})


def test_a_model_file_loads_without_running_code(results, frames, tmp_path):
    model = results.model("model")
    model.save(tmp_path / "model.json")
    loaded = ahh.load_model(tmp_path / "model.json")
    known = frames["zone-oost"].dropna()
    assert np.array_equal(loaded.predict_proba(known), model.predict_proba(known), equal_nan=True)
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["receipt"]["epsilon"] == 3.0
    for broken in ("{}", "[]", "not json", json.dumps({**content, "equation": {}}), json.dumps({**content, "format": "x"})):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(ahh.Breach, match=r"broken\.json"):
            ahh.load_model(tmp_path / "broken.json")
    with pytest.raises(ahh.Misuse, match="cannot be read"):
        ahh.load_model(tmp_path / "absent.json")


def test_seed_and_exact_are_for_open_data_and_stamp_every_output(frames, tmp_path):
    real = tmp_path / "real.toml"
    real.write_text(STUDY.read_text().replace('data = "synthetic"', 'data = "real"'))
    for mode in ({"seed": 1}, {"exact": True}):
        with pytest.raises(ahh.Misuse, match="synthetic"):
            ahh.run(real, frames, **mode)
    for name, mode in (("seed", {"seed": 1}), ("exact", {"exact": True})):
        results = ahh.run(STUDY, frames, out=tmp_path / name, **mode)
        assert results.data["stamp"].startswith("NOT PRIVATE")
        for output in ("report.html", "results.json", "transcript.jsonl", "model.json"):
            assert "NOT PRIVATE" in (tmp_path / name / output).read_text()
    assert ahh.run(STUDY, frames).data["stamp"] == ""


def test_a_second_run_costs_nothing_and_a_changed_study_pays_from_the_same_budget(tables, tmp_path):
    def spent():
        with Ledger.inspect(tables / ".ahh" / "zone-zuid.ledger") as ledger:
            return ledger.spent().mu_squared

    first = ahh.run(STUDY, tables).data
    once = spent()
    again = ahh.run(STUDY, tables).data
    assert again == first
    assert spent() == once > 0
    changed = tmp_path / "changed.toml"
    changed.write_text(STUDY.read_text().replace("version = 1 ", "version = 2 ").replace("epsilon = 3.0", "epsilon = 1.0"))
    other = ahh.run(changed, tables).data
    assert other["asks"][0]["answer"] != first["asks"][0]["answer"]
    assert spent() > once


def test_a_study_that_no_longer_fits_the_budget_is_refused_before_anything_is_asked(tables, tmp_path):
    def spent():
        with Ledger.inspect(tables / ".ahh" / "zone-zuid.ledger") as ledger:
            return ledger.spent().mu_squared

    ahh.run(STUDY, tables)
    for version in range(3, 9):
        before = spent()
        study = tmp_path / f"v{version}.toml"
        study.write_text(STUDY.read_text().replace("version = 1 ", f"version = {version} "))
        try:
            ahh.run(study, tables)
        except ahh.Refusal as refusal:
            assert "has spent epsilon" in str(refusal)
            assert "policy.toml" in str(refusal)
            break
    else:
        pytest.fail("six studies of epsilon 3 fitted a budget of 4")
    assert spent() == before
    assert ahh.run(STUDY, tables).data["asks"][0]["status"] == "released"  # what was paid stays answered


def test_a_broken_ledger_is_refused_before_anything_is_asked(tmp_path):
    write_partners(tmp_path, children=2_000, seed=5)
    ahh.run(STUDY, tmp_path)
    with sqlite3.connect(tmp_path / ".ahh" / "zone-zuid.ledger") as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute("UPDATE released SET bytes = zeroblob(24) WHERE seq = (SELECT min(seq) FROM released)")
    db.close()
    changed = tmp_path / "changed.toml"
    changed.write_text(STUDY.read_text().replace("version = 1 ", "version = 2 "))
    with pytest.raises(ahh.Refusal, match="the ledger of zone-zuid is broken"):
        ahh.run(changed, tmp_path)
    with Ledger.inspect(tmp_path / ".ahh" / "zone-oost.ledger") as ledger:
        assert {entry.study for entry in ledger.entries()} == {None, ahh.open_study(STUDY).digest}


def test_the_quote_is_what_a_run_then_spends(frames):
    study = ahh.open_study(STUDY)
    bill = ahh.quote(study, patients=())
    data = ahh.run(study, frames, seed=2).data
    assert {partner["epsilon_study"] for partner in data["partners"]} == {bill.total}
    assert bill.total <= study.budget.epsilon
    assert (bill.alone, data["privacy"]["epsilon_alone"]) == (None, None)
    assert "nothing else" not in str(bill)


def test_expected_errors_shrink_with_the_cohort(frames):
    bill = ahh.quote(ahh.open_study(STUDY), patients=(500, 50_000))
    for item in bill.items:
        for name, half in item.errors[50_000].items():
            if "widest" in name:  # depends on how little the made-up outcome follows the predictors
                continue
            assert half > 0
            assert not half > item.errors[500][name] * 1.05, (item.ask, name)


def test_too_few_partners_and_a_bad_table_spend_nothing(frames, tmp_path):
    with pytest.raises(ahh.Misuse, match="2 partners are there"):
        ahh.run(STUDY, {name: frames[name] for name in list(frames)[:2]})
    write_partners(tmp_path, children=2_000, seed=5)
    table = pd.read_csv(tmp_path / "zone-zuid.csv", dtype=str).drop(columns="sex")
    table.to_csv(tmp_path / "zone-zuid.csv", index=False)
    with pytest.raises(ahh.Refusal, match=r"zone-zuid\.csv lacks the column 'sex'"):
        ahh.run(STUDY, tmp_path)
    assert not (tmp_path / ".ahh").exists()


def test_an_exact_run_equals_the_pooled_fit(frames):
    """Partners added up without noise give scikit-learn's fit of the pooled tables."""
    from sklearn.linear_model import LogisticRegression

    from ahh_federated.node.tables import load_cohort

    study = ahh.open_study(STUDY)
    fit = ahh.run(study, frames, exact=True).answer("model")
    ask = study.ask("model")
    blocks = []
    for name, frame in frames.items():
        cohort = load_cohort(frame, study, name)
        kept = cohort.keep(ask.where.mask(cohort))
        x = fit.scale.standardised(fit.design, kept)[1:].T
        block = np.column_stack([x, kept["overweight_6y"]])
        blocks.append(block[~np.isnan(block).any(axis=1)])
    pooled = np.concatenate(blocks)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=5_000).fit(pooled[:, :-1], pooled[:, -1])
    assert np.abs(np.array(fit.estimate[1:]) - reference.coef_[0]).max() < 1e-5
    assert abs(fit.estimate[0] - reference.intercept_[0]) < 1e-5


def test_features_that_cannot_be_told_apart_end_their_ask_with_a_reason_and_no_other(frames):
    """Without noise there is no floor under a singular matrix."""
    content = copy.deepcopy(dict(ahh.open_study(STUDY).content))
    (model,) = (ask for ask in content["ask"] if ask["id"] == "model")
    content["columns"]["again"] = content["columns"]["birth_weight"]
    model["features"] = [*model["features"], "again"]
    tables = {name: frame.assign(again=frame["birth_weight"]) for name, frame in frames.items()}
    results = ahh.run(parse_study(content), tables, exact=True)
    with pytest.raises(ahh.Misuse, match="more than one model fits: a feature is constant, or follows from the others"):
        results.answer("model")
    assert results.answer("children")
