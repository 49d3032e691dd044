"""A model fitted to each partner: what is estimated, how it is drawn together, and that it helps."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from sklearn.metrics import log_loss

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.recalibration import Adapted, Estimate, Recalibration
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Status
from tests.analyses.drivers import exactly, noised
from tests.analyses.populations import CASE, FEATURES, TRUTH, matrix_of, patients

ANALYSIS = Logistic(Design(FEATURES), CASE)
SHIFTS = {"near": (0.0, 1.0), "far": (-1.2, 0.6), "small": (0.0, 1.0)}
SIZES = {"near": 6000, "far": 6000, "small": 40}


@pytest.fixture(scope="module")
def fit() -> Fit:
    found = exactly(Logistic(Design(FEATURES), CASE, EXACT_ROUNDS, exact=True), {"a": Cohort.of(patients(8000, seed=1))})
    assert isinstance(found, Fit)
    return found


def shifted(name: str, seed: int) -> dict[str, F64]:
    """Patients of a partner whose log odds are a + b times those of the others."""
    a, b = SHIFTS[name]
    columns = patients(SIZES[name], seed)
    eta = a + b * (matrix_of(columns) @ TRUTH)
    return {**columns, "case": (np.random.default_rng(seed).random(len(eta)) < expit(eta)).astype(np.float64)}


def test_each_partner_gets_its_own_line_near_that_of_its_patients(fit: Fit) -> None:
    cohorts = {name: Cohort.of(shifted(name, 10 + k)) for k, name in enumerate(SHIFTS)}
    found = exactly(Recalibration(ANALYSIS).of(fit), cohorts, {"gone": Status.OFFLINE})
    assert isinstance(found, Adapted)
    for name in ("near", "far"):
        eta = logit(fit.predict(cohorts[name]))
        reference = sm.Logit(cohorts[name]["case"], sm.add_constant(eta)).fit(disp=0)
        own = found.partners[name]
        assert isinstance(own, Estimate)
        assert own.value == pytest.approx(reference.params, abs=0.12)
        assert np.sqrt(np.diag(own.sampling)) == pytest.approx(reference.bse, rel=0.25)
        assert found.used[name] == pytest.approx(own.value, abs=0.05)
    assert found.partners["small"] is None or abs(found.used["small"][0]) < abs(found.partners["small"].value[0]) + 0.3
    assert found.to_json()["partners"]["gone"]["status"] == "offline"
    assert found.overall is not None
    assert found.used["gone"] == pytest.approx(found.overall.value, abs=0.05)
    assert found.to_json()["partners"]["gone"]["used"]["slope"] == found.used["gone"][1]


def test_it_helps_the_partner_to_which_the_model_travels_badly_and_harms_none(fit: Fit) -> None:
    cohorts = {name: Cohort.of(shifted(name, 30 + k)) for k, name in enumerate(SHIFTS)}
    found = noised(Recalibration(ANALYSIS).of(fit), cohorts, Budget(1.0, 1e-6), 3)
    for k, name in enumerate(("near", "far")):
        fresh = shifted(name, 60 + k)
        eta = logit(fit.predict(Cohort.of(fresh)))
        a, b = found.used[name]
        before, after = log_loss(fresh["case"], expit(eta)), log_loss(fresh["case"], expit(a + b * eta))
        assert after < before + 0.002
        if name == "far":
            assert after < before - 0.02


def test_the_noisier_an_estimate_the_more_it_is_drawn_to_the_others() -> None:
    prior, other = np.diag([0.25, 0.0625]), np.array([0.0, 1.0])
    drawn = [Estimate(np.array([1.0, 0.5]), s * np.eye(2), np.zeros((2, 2))).drawn_to(other, prior) for s in (1e-6, 0.1, 1e6)]
    assert drawn[0] == pytest.approx([1.0, 0.5], abs=1e-3)
    assert drawn[2] == pytest.approx(other, abs=1e-3)
    assert 0.1 < drawn[1][0] < 0.9
