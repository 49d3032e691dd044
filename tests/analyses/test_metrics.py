"""What a table of binned risk says, against the patients it was made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, roc_auc_score

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.fit import Fit
from ahh_federated.analyses.logistic import EXACT_ROUNDS, Logistic
from ahh_federated.analyses.metrics import Bins, Score, auroc, binning_error, brier, net_benefit, observed_expected, score
from ahh_federated.analyses.scores import Scores, ScoreTable
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.releases import Pooled, Status
from tests.analyses.drivers import exactly, noised, split
from tests.analyses.populations import CASE, FEATURES, patients

THRESHOLDS = (0.05, 0.1, 0.2, 0.5)
DESIGN = Design(FEATURES)


@pytest.fixture(scope="module")
def fit() -> Fit:
    found = exactly(Logistic(DESIGN, CASE, EXACT_ROUNDS, exact=True), split(patients(3000, seed=41), 3))
    assert isinstance(found, Fit)
    return found


@pytest.fixture(scope="module")
def tested() -> dict[str, F64]:
    """Patients whom the model has not seen, and somewhat less often ill."""
    columns = patients(12_000, seed=42)
    spared = np.random.default_rng(43).random(12_000) < 0.15
    return {**columns, "case": np.where(spared, 0.0, columns["case"])}


@pytest.fixture(scope="module")
def table(fit: Fit, tested: dict[str, F64]) -> ScoreTable:
    found = exactly(Scores(Logistic(DESIGN, CASE), THRESHOLDS).of(fit), split(tested, 3), {"partner x": Status.OFFLINE})
    assert isinstance(found, ScoreTable)
    return found


@pytest.fixture(scope="module")
def risk(fit: Fit, tested: dict[str, F64]) -> F64:
    return fit.predict(Cohort.of(tested))


def overall(table: ScoreTable) -> Score:
    found = score(table.bins, table.total)
    assert found is not None
    return found


def figure(found: Score, name: str) -> float:
    value = found.figures[name].value
    assert value is not None
    return value


def test_every_patient_is_in_one_cell(table: ScoreTable, tested: dict[str, F64]) -> None:
    without, events = np.split(table.total.values, 2)
    assert events.sum() == tested["case"].sum()
    assert without.sum() + events.sum() == 12_000


def test_auroc_is_within_the_binning_error_of_the_patients(table: ScoreTable, tested: dict[str, F64], risk: F64) -> None:
    error = table.to_json()["binning_error_auroc"]
    assert 0 < error < 0.1
    assert abs(figure(overall(table), "auroc") - roc_auc_score(tested["case"], risk)) <= error


def test_the_binning_error_is_reached_by_the_worst_order() -> None:
    cells = np.array([30.0, 20.0, 5.0, 5.0, 10.0, 40.0])
    without, events = cells[:3].astype(int), cells[3:].astype(int)
    outcome = np.concatenate([np.repeat([0, 1], [a, b]) for a, b in zip(without, events, strict=True)])
    bins = np.repeat(np.arange(3), without + events)
    best = roc_auc_score(outcome, bins + 0.1 * outcome)
    worst = roc_auc_score(outcome, bins - 0.1 * outcome)
    assert auroc(cells) + binning_error(cells) == pytest.approx(best)
    assert auroc(cells) - binning_error(cells) == pytest.approx(worst)
    assert auroc(cells) == pytest.approx(roc_auc_score(outcome, bins))


def test_brier_and_observed_expected_are_near_the_patients(table: ScoreTable, tested: dict[str, F64], risk: F64) -> None:
    found = overall(table)
    assert figure(found, "brier") == pytest.approx(brier_score_loss(tested["case"], risk), abs=0.003)
    assert figure(found, "observed_expected") == pytest.approx(tested["case"].sum() / risk.sum(), rel=0.02)


def test_the_decision_curve_is_the_patients_own(table: ScoreTable, tested: dict[str, F64], risk: F64) -> None:
    """Declared thresholds are edges, so nothing is lost by binning."""
    case = tested["case"]
    for row, curve in zip(overall(table).decision, table.to_json()["decision"], strict=True):
        t = row["threshold"]
        flagged = risk >= t
        benefit = ((flagged * case).sum() - (flagged * (1 - case)).sum() * t / (1 - t)) / len(case)
        treat_all = case.mean() - (1 - case.mean()) * t / (1 - t)
        assert row["net_benefit"]["value"] == pytest.approx(benefit, abs=1e-12)
        assert row["treat_all"]["value"] == pytest.approx(treat_all, abs=1e-12)
        assert row["sensitivity"]["value"] == pytest.approx((flagged * case).sum() / case.sum(), abs=1e-12)
        assert row["ppv"]["value"] == pytest.approx((flagged * case).sum() / flagged.sum(), abs=1e-12)
        assert (curve["model"]["value"], curve["none"]) == (row["net_benefit"]["value"], 0.0)


def direct_calibration(case: F64, eta: F64) -> tuple[float, float]:
    """Slope of the outcome on the predicted logit, and the intercept with the slope held at one."""
    slope = sm.Logit(case, sm.add_constant(eta)).fit(disp=0).params[1]
    intercept = sm.GLM(case, np.ones(len(case)), family=sm.families.Binomial(), offset=eta).fit().params[0]
    return float(slope), float(intercept)


def test_calibration_is_near_the_patients_in_the_bins_as_they_are(table: ScoreTable, tested: dict[str, F64], risk: F64) -> None:
    slope, intercept = direct_calibration(tested["case"], logit(risk))
    found = overall(table)
    assert figure(found, "calibration_slope") == pytest.approx(slope, abs=0.03)
    assert figure(found, "calibration_intercept") == pytest.approx(intercept, abs=0.03)


@pytest.mark.parametrize(("mean", "sd", "slope", "shift"), [(-2.0, 1.0, 1.0, 0.0), (-1.0, 1.5, 0.6, -0.4), (0.0, 0.7, 1.4, 0.5)])
def test_with_fine_bins_every_figure_is_the_patients_own(mean: float, sd: float, slope: float, shift: float) -> None:
    rng = np.random.default_rng(44)
    eta = rng.normal(mean, sd, 20_000)
    case = (rng.random(20_000) < expit(shift + slope * eta)).astype(np.float64)
    cuts = tuple(float(cut) for cut in mean + sd * np.linspace(-4.5, 4.5, 801))
    bins = Bins.of(cuts, (0.2,), mean, sd)
    place = np.searchsorted(np.array(cuts), eta, side="right")
    cells = np.concatenate([np.bincount(place[case == y], minlength=802) for y in (0, 1)]).astype(np.float64)
    found = score(bins, Pooled(cells, 0.0))
    assert found is not None
    expected_slope, expected_intercept = direct_calibration(case, eta)
    assert figure(found, "calibration_slope") == pytest.approx(expected_slope, abs=2e-3)
    assert figure(found, "calibration_intercept") == pytest.approx(expected_intercept, abs=2e-3)
    assert figure(found, "brier") == pytest.approx(brier_score_loss(case, expit(eta)), abs=1e-4)
    assert figure(found, "auroc") == pytest.approx(roc_auc_score(case, eta), abs=1e-4)
    assert figure(found, "observed_expected") == pytest.approx(case.sum() / expit(eta).sum(), rel=1e-3)


def test_sampling_intervals_are_those_of_the_textbook() -> None:
    """Without noise, the delta method's errors equal the binomial ones, and Hanley and McNeil's for the AUROC about."""
    bins = Bins.of((-2.0, 0.0, float(logit(0.2))), (0.2,), -1.0, 1.2)
    cells = np.array([400.0, 900, 300, 200, 20, 60, 70, 90])
    found = score(bins, Pooled(cells, 0.0))
    assert found is not None
    row = found.decision[0]["sensitivity"]
    k, n = row["value"] * cells[4:].sum(), cells[4:].sum()
    half = 1.959963984540054 * math.sqrt(k * (n - k) / n**3)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.01)
    assert row["se"] == 0.0
    a, positives, negatives = auroc(cells), cells[4:].sum(), cells[:4].sum()
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    hanley = math.sqrt((a * (1 - a) + (positives - 1) * (q1 - a**2) + (negatives - 1) * (q2 - a**2)) / (positives * negatives))
    number = found.figures["auroc"]
    assert number.low is not None
    assert number.high is not None
    assert (number.high - number.low) / 2 == pytest.approx(1.96 * hanley, rel=0.25)


def test_noise_widens_every_interval_and_is_named_apart(table: ScoreTable) -> None:
    quiet, loud = overall(table), score(table.bins, Pooled(table.total.values, 15.0))
    assert loud is not None
    for name, number in quiet.figures.items():
        other = loud.figures[name]
        assert number.se == 0.0
        assert other.se is not None
        assert other.se > 0
        assert other.high - other.low > number.high - number.low


def test_too_few_events_say_nothing(table: ScoreTable) -> None:
    bins, half = table.bins, len(table.bins.centre)
    few = np.concatenate([np.full(half, 50.0), np.eye(half)[0] * 9])
    assert score(bins, Pooled(few, 0.0)) is None
    assert score(bins, Pooled(few + np.concatenate([np.zeros(half), np.eye(half)[1] * 2]), 0.0)) is not None
    assert score(bins, Pooled(few[::-1].copy(), 0.0)) is None
    assert score(bins, Pooled(np.full(2 * half, 5.0), 10.0)) is None


def test_a_partner_that_is_silent_or_small_is_said_to_be(fit: Fit, tested: dict[str, F64]) -> None:
    some = {name: values[:20] for name, values in tested.items()}
    cohorts = {**split(tested, 2), "partner tiny": Cohort.of(some)}
    found = exactly(Scores(Logistic(DESIGN, CASE), THRESHOLDS).of(fit), cohorts, {"partner x": Status.OFFLINE}).to_json()[
        "partners"
    ]
    assert found["partner tiny"] == {"status": "too few"}
    assert found["partner x"] == {"status": "offline"}
    assert found["partner 0"]["status"] == "released"


def test_the_roc_rises_from_corner_to_corner_and_encloses_the_auroc(table: ScoreTable) -> None:
    points = table.to_json()["roc"]
    fpr, tpr = (np.array([point[name] for point in points]) for name in ("fpr", "tpr"))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(figure(overall(table), "auroc"), abs=1e-12)


def test_calibration_points_lie_near_the_patients(table: ScoreTable, tested: dict[str, F64], risk: F64) -> None:
    points = table.to_json()["calibration"]
    assert len(points) >= 5
    for point in points:
        near = np.abs(logit(risk) - logit(point["predicted"])) < 0.3
        assert point["observed"]["value"] == pytest.approx(tested["case"][near].mean(), abs=0.05)


@pytest.mark.parametrize(
    "function",
    [auroc, lambda c: brier(BINS, c), lambda c: observed_expected(BINS, c), lambda c: net_benefit(BINS.above(0.2), 0.2, c)],
)
def test_figures_do_not_depend_on_the_number_of_patients(function) -> None:
    cells = np.array([40.0, 90, 30, 20, 20, 60, 70, 90])
    assert function(7 * cells) == pytest.approx(function(cells))


BINS = Bins.of((-2.0, 0.0, float(logit(0.2))), (0.2,), -1.0, 1.2)


def test_bins_carry_the_mean_and_the_share_of_what_the_model_implies() -> None:
    rng = np.random.default_rng(45)
    eta = rng.normal(-1.5, 1.1, 400_000)
    cuts = (-3.0, -2.0, -1.0, 0.5)
    bins = Bins.of(cuts, (), -1.5, 1.1)
    place = np.searchsorted(np.array(cuts), eta, side="right")
    for b in range(5):
        assert bins.share[b] == pytest.approx((place == b).mean(), abs=0.003)
        assert bins.centre[b] == pytest.approx(eta[place == b].mean(), abs=0.02)


def test_intervals_of_the_figures_hold_what_many_patients_show(fit: Fit) -> None:
    """Against the same table made of very many patients: sampling error and privacy noise together."""
    budget, analysis = Budget(2.0, 1e-6), Scores(Logistic(DESIGN, CASE), (0.2,)).of(fit)
    truth = overall(exactly(analysis, split(patients(400_000, seed=46), 2)))
    names = ("auroc", "brier", "observed_expected", "calibration_intercept", "calibration_slope")
    held = dict.fromkeys(names, 0)
    replicates = 80
    for seed in range(replicates):
        found = overall(noised(analysis, split(patients(4000, seed=1000 + seed), 4), budget, seed))
        for name in names:
            number = found.figures[name]
            assert number.low is not None
            assert number.high is not None
            held[name] += number.low <= figure(truth, name) <= number.high
    shares = {name: count / replicates for name, count in held.items()}
    assert min(shares.values()) >= 0.87, shares
    assert np.mean(list(shares.values())) >= 0.91, shares
