"""The utility benchmark runs, its rows have the agreed keys, and its figures are what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import methods, utility
from benchmarks.datasets import data_set
from benchmarks.metrics import calibration_slope, quality
from benchmarks.results import Row, Run
from benchmarks.tasks import pooled, prepare

KEYS = ["set", "method", "mode", "epsilon", "delta", "seeds", "auroc", "accuracy", "logloss", "slope"]
KEYS += ["rounds", "messages", "cpu_s", "auroc_sd", "gain", "gain_se"]
OURS = "ahh logistic,ahh logistic summed,pooled sklearn"


@pytest.fixture
def opacus() -> None:
    pytest.importorskip("torch", reason="the baseline FedAvg needs torch: install the extra `neural`")
    pytest.importorskip("opacus", reason="the baseline FedAvg needs opacus: install the extra `neural`")


def rows_of(tmp_path: Path, *arguments: str) -> list[dict[str, object]]:
    path = tmp_path / "rows.json"
    assert utility.main([*arguments, "--seeds", "1", "--json", str(path)]) == 0
    found: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("opacus")
def test_every_method_gives_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = f"{OURS},ahh additive,FedAvg Opacus"
    rows = rows_of(tmp_path, "--sets", "demo2k", "--epsilon", "8,none", "--delta", "1e-4", "--methods", named)
    assert [list(row) for row in rows] == [KEYS] * len(rows)
    assert [(row["method"], row["mode"], row["epsilon"], row["delta"]) for row in rows] == [
        ("pooled sklearn", "pooled", None, None),
        ("ahh logistic", "each-node", 8, 1e-4),
        ("ahh logistic summed", "summed", 8, 1e-4),
        ("ahh additive", "each-node", 8, 1e-4),
        ("FedAvg Opacus", "each-node", 8, 1e-4),
        ("ahh logistic", "exact", None, None),
        ("ahh additive", "exact", None, None),
        ("FedAvg Opacus", "not private", None, None),
    ]
    assert [row["messages"] for row in rows[1:3]] == [4, 4]
    assert rows[4]["messages"] == 20
    assert all(row["seeds"] == 1 and row["auroc"] > 0.55 for row in rows)
    assert "demo2k" in capsys.readouterr().out


def test_without_noise_the_federated_model_is_the_pooled_one(tmp_path: Path) -> None:
    plain, exact = rows_of(tmp_path, "--sets", "demo2k", "--epsilon", "none", "--methods", OURS)
    assert (plain["method"], exact["mode"]) == ("pooled sklearn", "exact")
    # scikit-learn's default ridge parts them a little.
    assert exact["auroc"] == pytest.approx(plain["auroc"], abs=0.005)
    assert exact["logloss"] == pytest.approx(plain["logloss"], abs=0.005)


def test_splits_are_put_together_and_compared_one_by_one(tmp_path: Path) -> None:
    asked = ["--sets", "nutrition2k", "--epsilon", "8", "--methods", "ahh logistic summed,pooled sklearn", "--splits"]
    _, one = rows_of(tmp_path, *asked, "1")
    pooled, both = rows_of(tmp_path, *asked, "2")
    assert (one["seeds"], both["seeds"], one["gain"]) == (1, 2, None)
    assert one["auroc"] != both["auroc"]
    assert both["gain"] == pytest.approx(both["auroc"] - pooled["auroc"])
    assert (pooled["gain"], pooled["gain_se"]) == (0, 0)


def test_a_gain_is_of_the_same_splits() -> None:
    def run(auroc: float, split: int) -> Run:
        return Run({"auroc": auroc}, 1, 0.1, 1, split)

    pooled = Row("set", "pooled", "pooled", None, None, (run(0.5, 0), run(0.7, 1), run(0.9, 2)))
    ours = Row("set", "ours", "each-node", 1.0, 1e-5, (run(0.6, 0), run(0.8, 0), run(0.7, 1)), failed=3)
    gain = ours.gain(pooled)
    assert gain is not None
    assert gain == pytest.approx((0.1, 0.1))  # of the splits 0.2 and 0.0


def test_a_set_without_data_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AHH_DATA", str(tmp_path))
    assert utility.main(["--sets", "adult", "--methods", OURS]) == 2
    assert "adult is left out" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--sets", "iris"], ["--methods", "magic"]])
def test_an_unknown_name_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        utility.main(wrong)
    assert "is not one of" in capsys.readouterr().err


def test_quality_of_risks_on_a_hand_worked_example() -> None:
    outcomes = [np.array([0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])]
    risks = [np.array([0.2, 0.8]), np.array([0.6, 0.4, 0.9, 0.1])]
    found = quality("binary", outcomes, risks)
    assert found["auroc"] == pytest.approx(8 / 9)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["logloss"] == pytest.approx(-np.mean(np.log([0.8, 0.8, 0.4, 0.4, 0.9, 0.9])))
    assert quality("binary", outcomes, risks, by_partner=True)["accuracy"] == pytest.approx((1 + 2 / 4) / 2)


def test_quality_of_measured_predictions_on_a_hand_worked_example() -> None:
    found = quality("continuous", [np.array([1.0, 2.0]), np.array([3.0])], [np.array([1.0, 3.0]), np.array([3.0])])
    assert found == {"r2": pytest.approx(0.5), "rmse": pytest.approx((1 / 3) ** 0.5)}


def test_methods_apply_where_they_say_something() -> None:
    task = prepare(data_set("demo2k"))
    assert methods.applies(task, "ahh logistic", None)
    assert not methods.applies(task, "ahh logistic summed", None)
    assert not methods.applies(task, "ahh linear", 1.0)
    assert not methods.applies(task, methods.CENTRAL, None)


def test_the_private_model_of_others_is_compared_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("interpret", reason="the central DP-EBM needs interpret-core, which no extra installs")
    (row,) = rows_of(tmp_path, "--sets", "demo2k", "--epsilon", "8,none", "--methods", methods.CENTRAL)
    assert row["mode"] == "central" and row["auroc"] > 0.5


def test_calibration_slope_of_overconfident_risks_is_the_shrinkage_they_need() -> None:
    rng = np.random.default_rng(1)
    eta = rng.normal(size=200_000)
    y = (rng.random(eta.size) < 1 / (1 + np.exp(-eta))).astype(float)
    assert calibration_slope(y, 1 / (1 + np.exp(-2 * eta))) == pytest.approx(0.5, abs=0.02)


def test_the_pooled_cohort_holds_every_child_of_every_partner() -> None:
    task = prepare(data_set("demo2k"))
    everybody = pooled(task.cohorts)
    assert len(everybody) == sum(len(cohort) for cohort in task.cohorts.values())
    assert np.nansum(everybody["bmi_2y"]) == pytest.approx(sum(np.nansum(cohort["bmi_2y"]) for cohort in task.cohorts.values()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("opacus")
def test_the_baseline_pays_for_all_steps_of_all_rounds() -> None:
    from opacus.accountants import PRVAccountant

    from benchmarks.baselines import ROUNDS, noise_multiplier

    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier(1.0, 1e-4, 4), 1 / 4, 4 * ROUNDS)]
    assert 0.9 < accountant.get_epsilon(1e-4) <= 1.0
