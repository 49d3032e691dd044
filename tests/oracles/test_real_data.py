"""Real patients, public data: federated fits against independent software on the pooled rows.

The reference results were made with statsmodels and scikit-learn.  The data are not part of the repository: they are
read from the folder that AHH_DATA names, by default ../shared/data, and without them these tests are skipped.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.analyses.fit import Fit
from ahh_federated.core.releases import Status
from ahh_federated.errors import Misuse
from ahh_federated.study import Study, open_study, parse_study
from benchmarks.datasets import STUDIES, Frames, data_folder, data_set

UCI = {
    **{name: name for name in ("age", "trestbps", "chol", "thalach", "oldpeak")},
    "sex": "sex: male",
    "fbs": "fbs: yes",
    "exang": "exang: yes",
    "cp_2": "chest pain: atypical",
    "cp_3": "chest pain: non-anginal",
    "cp_4": "chest pain: asymptomatic",
    "restecg_1": "restecg: st-t",
    "restecg_2": "restecg: hypertrophy",
}
NHANES = {
    "age_c": "age",
    "female": "sex: female",
    "hisp": "ethnicity: hispanic",
    "black": "ethnicity: black",
    "asian": "ethnicity: asian",
    "spanish": "interview language: spanish",
    "income_poverty_ratio": "income ratio",
    "bw_kg": "birth weight",
    "smk": "smoked: yes",
    "mother_age_at_birth": "mother age",
}


def frames_of(name: str) -> Frames:
    try:
        return data_set(name).frames()
    except Misuse as error:
        pytest.skip(str(error))


def reference(folder: str) -> dict[str, Any]:
    path = data_folder() / folder / "reference_results.json"
    if not path.is_file():
        pytest.skip(f"{folder}/reference_results.json is not in the data folder: set AHH_DATA")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def uci() -> Frames:
    return frames_of("uci_heart")


@pytest.fixture(scope="module")
def nhanes() -> Frames:
    return frames_of("nhanes")


def study_of(name: str, ask: str, **changes: Any) -> Study:
    """A shipped study with one of its asks, and with some keys of [study] changed."""
    content = copy.deepcopy(dict(open_study(STUDIES / name).content))
    content["study"].update(changes)
    content["ask"] = [each for each in content["ask"] if each["id"] == ask]
    return parse_study(content)


def exact_fit(study: Study, frames: Frames, ask: str) -> Fit:
    fit = ahh.run(study, frames, exact=True).answer(ask)
    assert isinstance(fit, Fit)
    return fit


def by_term(fit: Fit) -> dict[str, tuple[float, float]]:
    """Coefficient and sampling standard error per unit, by the term's name without its unit."""
    return {term["name"].split(" (per ")[0]: (term["coefficient"], term["se_sampling"]) for term in fit.to_json()["terms"]}


def uci_spreads(frames: Frames) -> dict[str, float]:
    """Standard deviations (n - 1) of the reference's columns over all training patients."""
    train = pd.concat(frames.values()).query("split == 'train'")
    coded = {
        **{name: train[name] for name in ("age", "trestbps", "chol", "thalach", "oldpeak")},
        "sex": train["sex"] == "male",
        "fbs": train["fbs"] == "yes",
        "exang": train["exang"] == "yes",
        **{f"cp_{k}": train["chest_pain"] == level for k, level in ((2, "atypical"), (3, "non-anginal"), (4, "asymptomatic"))},
        **{f"restecg_{k}": train["restecg"] == level for k, level in ((1, "st-t"), (2, "hypertrophy"))},
    }
    return {name: float(values.astype(float).std(ddof=1)) for name, values in coded.items()}


def test_four_hospitals_agree_with_the_pooled_reference(uci: Frames) -> None:
    found = by_term(exact_fit(open_study(STUDIES / "uci-heart.toml"), uci, "model"))
    expected = reference("uci_heart")["mle_pooled_standardisation"]
    spread = uci_spreads(uci)
    assert set(UCI) == set(expected["coef"])
    for name, term in UCI.items():
        coefficient, error = found[term]
        assert coefficient * spread[name] == pytest.approx(expected["coef"][name], abs=1e-6), name
        assert error * spread[name] == pytest.approx(expected["se"][name], abs=1e-6), name


def test_four_hospitals_predict_as_the_pooled_reference(uci: Frames) -> None:
    study = open_study(STUDIES / "uci-heart.toml")
    results = ahh.run(study, uci, exact=True)
    model, expected = results.model("model"), reference("uci_heart")["mle_pooled_standardisation"]
    for name, frame in uci.items():
        test = frame.query("split == 'test'")
        accuracy = float((model.predict(test) == test["disease"]).mean())
        assert len(test) == expected[name]["n"]
        assert accuracy == pytest.approx(expected[name]["accuracy"], abs=1e-12), name


def test_eight_zones_agree_with_the_pooled_reference(nhanes: Frames) -> None:
    fit = exact_fit(open_study(STUDIES / "nhanes-obesity.toml"), nhanes, "association")
    expected = reference("nhanes_children_2017_2020")
    assert fit.to_json()["n"]["value"] == expected["n"]
    assert fit.to_json()["events"]["value"] == expected["events"]
    check_nhanes(fit, expected["coef"], expected["se"])


@pytest.mark.parametrize("zone", ["zone1", "zone2", "zone4", "zone5", "zone6", "zone7", "zone8"])
def test_a_zone_alone_agrees_with_its_reference(nhanes: Frames, zone: str) -> None:
    expected = reference("nhanes_children_2017_2020")["per_partner"][zone]
    # The reference's errors of rare groups are good to five digits only: its search stopped a little early.
    check_nhanes(zone_fit(nhanes, zone), expected["coef"], expected["se"], relative=1e-5)


def test_a_zone_where_the_likelihood_has_no_maximum_says_so_by_its_error(nhanes: Frames) -> None:
    """In zone 3 no Asian child is obese: the log odds ratio is minus infinity, wherever a search stops."""
    terms = by_term(zone_fit(nhanes, "zone3"))
    assert np.isfinite(list(terms.values())).all()
    coefficient, error = terms["ethnicity: asian"]
    assert coefficient < -2
    assert error > abs(coefficient)


def zone_fit(frames: Frames, zone: str) -> Fit:
    return exact_fit(study_of("nhanes-obesity.toml", "association", minimum_partners=1), {zone: frames[zone]}, "association")


def check_nhanes(fit: Fit, coefficients: dict[str, float], errors: dict[str, float], relative: float = 0.0) -> None:
    found = by_term(fit)
    assert set(NHANES) | {"Intercept"} == set(coefficients)
    for name, term in NHANES.items():
        coefficient, error = found[term]
        assert coefficient == pytest.approx(coefficients[name], abs=1e-6, rel=relative), name
        assert error == pytest.approx(errors[name], abs=1e-6, rel=relative), name
    # The reference counts age from 10 years, so its intercept is the log odds at that age.
    matrix = fit.to_original()
    at_ten = matrix[0] + 10 * matrix[1]
    assert float(at_ten @ np.array(fit.estimate)) == pytest.approx(coefficients["Intercept"], abs=1e-6)
    assert float(np.sqrt(at_ten @ fit.sampling @ at_ten)) == pytest.approx(errors["Intercept"], abs=1e-6)


def test_a_hospital_alone_agrees_with_statsmodels(uci: Frames) -> None:
    """Hungary, the only hospital where no level separates the patients with disease from those without."""
    api = pytest.importorskip("statsmodels.api")
    fit = exact_fit(study_of("uci-heart.toml", "model", minimum_partners=1), {"hungarian": uci["hungarian"]}, "model")
    train = uci["hungarian"].query("split == 'train'")
    x = pd.DataFrame(
        {
            **{name: train[name] for name in ("age", "trestbps", "chol", "thalach", "oldpeak")},
            **{f"{name}: yes": train[name] == "yes" for name in ("fbs", "exang")},
            "sex: male": train["sex"] == "male",
            **{f"chest pain: {level}": train["chest_pain"] == level for level in ("atypical", "non-anginal", "asymptomatic")},
            **{f"restecg: {level}": train["restecg"] == level for level in ("st-t", "hypertrophy")},
        }
    ).astype(float)
    logit = api.Logit((train["disease"] == "yes").astype(float), api.add_constant(x)).fit(disp=0, maxiter=100, tol=1e-12)
    for name, (coefficient, error) in by_term(fit).items():
        known = "const" if name == "(intercept)" else name
        assert coefficient == pytest.approx(logit.params[known], abs=1e-6, rel=1e-6), name
        assert error == pytest.approx(logit.bse[known], abs=1e-6, rel=1e-6), name


def test_a_private_run_over_eight_zones_completes(nhanes: Frames) -> None:
    study = open_study(STUDIES / "nhanes-obesity.toml")
    results = ahh.run(study, nhanes, seed=1).results
    assert study.budget.epsilon == 4
    for outcome in results.outcomes:
        assert outcome.status is Status.RELEASED, outcome.reason
        assert set(outcome.coverage.values()) == {Status.RELEASED}, outcome.ask.id
    fit = results.outcome("association").answer
    sampling, privacy = fit.standard_errors()
    apart = np.abs(fit.coefficients() - exact_fit(study, nhanes, "association").coefficients())
    # Both fits see the same children, so it is mostly the privacy part of the error that parts them.
    assert np.all(apart < 4 * np.hypot(sampling, privacy))


def test_a_private_run_over_four_hospitals_completes(uci: Frames) -> None:
    study = open_study(STUDIES / "uci-heart.toml")
    results = ahh.run(study, uci, seed=1)
    outcome = results.results.outcome("model")
    assert study.budget.epsilon == 4
    assert outcome.status is Status.RELEASED
    # Switzerland trains on 30 patients: its noised count may fall below the node's threshold of 10.
    assert {name for name, status in outcome.coverage.items() if status is not Status.RELEASED} <= {"switzerland"}
    test = pd.concat(uci.values()).query("split == 'test'")
    accuracy = float((results.model("model").predict(test) == test["disease"]).mean())
    assert accuracy > 0.7
