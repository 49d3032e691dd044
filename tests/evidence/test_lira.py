"""Does a finished network tell who was trained on?  The likelihood ratio attack, with protection and without.

The twins are one program: the same study, network, steps and patients.  The unprotected one is the laboratory's exact run,
without clip, grid and noise; the protected one went through desk, ledger and gate with fresh noise of this machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ahh_federated.analyses.models import Model
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.runtimes.local import ExactLink, LocalLink
from ahh_federated.study import Study, parse_study
from tests.evidence.lira import Bools, auroc, confidence, halves, likelihood_ratios, true_positives, with_error

F64 = NDArray[np.float64]

DAY = date(2026, 1, 1)
EPSILON, DELTA = 2.0, 1e-5
PERSONS, FEATURES, MODELS = 600, 20, 32
NAMES = [f"x{j}" for j in range(FEATURES)]


@dataclass(frozen=True, slots=True)
class Attacked:
    """What the attack found, with standard errors, and how often the models were right about people they had not seen."""

    auroc: tuple[float, float]
    true_positives: tuple[float, float]
    accuracy: float


def study() -> Study:
    """A network with more numbers than there are patients: without protection it learns them by heart."""
    about: dict[str, Any] = {"title": "Leaks", "purpose": "Attack.", "version": 1, "consortium": "none", "data": "synthetic"}
    ask = {"id": "model", "analysis": "neural", "way": "sgd", "outcome": "y", "features": NAMES, "share": 1.0}
    return parse_study(
        {
            "study": {"id": "leaks", **about, "minimum_partners": 1, "expires": DAY},
            "requester": {"name": "nobody", "organisation": "none", "permit": "none"},
            "privacy": {"epsilon": EPSILON, "delta": DELTA, "neighbours": "add-or-remove-one", "noise": "each-node"},
            "patient": {"key": "id"},
            "columns": {**{name: {"range": [-3.0, 3.0], "unit": "sd"} for name in NAMES}, "y": {"levels": ["no", "yes"]}},
            "ask": [{**ask, "hidden": [32], "rounds": 100, "sampling_rate": 0.25}],
        }
    )


def everybody() -> Cohort:
    """Three features say much of the outcome, and chance the rest, which can only be learnt by heart."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(FEATURES, PERSONS)).clip(-3, 3)
    y = (rng.random(PERSONS) < 1 / (1 + np.exp(-1.5 * x[:3].sum(axis=0)))).astype(np.float64)
    return Cohort.of({**dict(zip(NAMES, x, strict=True)), "y": y})


def exposed(asked: Study, patients: Cohort) -> Model:
    return _model(asked, ExactLink(asked, {"hospital": patients}), exact=True)


def protected(asked: Study, patients: Cohort) -> Model:
    """As a node releases it: paid from a ledger, sampled and noised with entropy of the operating system."""
    policy = Policy(Budget(EPSILON, DELTA), data=asked.data)
    ledger = Ledger.in_memory(dataset="hospital", budget=policy.budget)
    try:
        desk = Desk("hospital", asked, patients, ledger, policy, Entropy.system(), "")
        return _model(asked, LocalLink({"hospital": desk}, DAY), exact=False)
    finally:
        ledger.close()


def _model(asked: Study, link: ExactLink | LocalLink, *, exact: bool) -> Model:
    (outcome,) = Session(asked, link, lambda exchange: None, Silent(), "", exact).outcomes()
    assert isinstance(outcome.answer, Model), outcome.reason
    return outcome.answer


def attacked(train: Any) -> Attacked:
    asked, persons, member = study(), everybody(), halves(MODELS, PERSONS, seed=2)
    log_odds = np.array([train(asked, persons.keep(inside)).linear(persons) for inside in member])
    confidences = confidence(log_odds, persons["y"])
    ratios = likelihood_ratios(confidences, member)
    return Attacked(
        with_error(auroc, ratios, member), with_error(true_positives, ratios, member), float((confidences[~member] > 0).mean())
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_protected_network_does_not_tell_who_was_in_it() -> None:
    pytest.importorskip("torch", reason="needs torch: install the extra `neural`")
    pytest.importorskip("opacus", reason="needs opacus: install the extra `neural`")
    promised = math.exp(EPSILON) * 0.01 + DELTA  # of true positives among members, at 1 % false ones
    naked, noised = attacked(exposed), attacked(protected)
    print(f"exposed {naked}\nprotected {noised}\npromised {promised:.3f}")
    assert naked.auroc[0] > 0.75
    assert naked.true_positives[0] > promised + 2 * naked.true_positives[1]
    assert noised.auroc[0] <= 0.60
    assert noised.true_positives[0] <= promised
    assert noised.accuracy > 0.65  # it is not safe because it is useless


def simulated(gain: float, models: int = 32, persons: int = 400) -> tuple[F64, Bools]:
    """Confidences that are `gain` standard deviations higher for members."""
    rng, member = np.random.default_rng(3), halves(models, persons, seed=4)
    return rng.normal(size=persons) * 3 + rng.normal(size=member.shape) + gain * member, member


def test_the_attack_finds_what_there_is_to_find() -> None:
    confidences, member = simulated(2.0)
    ratios = likelihood_ratios(confidences, member)
    # The best test between N(0, 1) and N(2, 1) has an area of Phi(2 / sqrt 2) = .921 and finds Phi(2 - 2.33) = .372 at 1 %.
    assert auroc(ratios, member) == pytest.approx(0.921, abs=0.02)
    assert true_positives(ratios, member) == pytest.approx(0.372, abs=0.06)


def test_the_attack_finds_nothing_where_there_is_nothing() -> None:
    confidences, member = simulated(0.0)
    (area, error), (found, spread) = (
        with_error(figure, likelihood_ratios(confidences, member), member) for figure in (auroc, true_positives)
    )
    assert area == pytest.approx(0.5, abs=4 * error) and error < 0.01
    assert found == pytest.approx(0.01, abs=4 * spread)


def test_every_person_is_in_half_of_the_models() -> None:
    member = halves(8, 50, seed=0)
    assert (member.sum(axis=0) == 4).all() and (member.sum(axis=1) == 25).all()
