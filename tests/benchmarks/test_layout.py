"""The data sets are laid out as partners hold them, and without data say what is lacking."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.errors import Misuse
from benchmarks import layout
from benchmarks.datasets import SETS, STUDIES, data_set
from benchmarks.tasks import MODEL, prepare

PERSONS = {"uci_heart": 740, "nhanes": 6_328, "adult": 48_842}
PARTNERS = {"uci_heart": 4, "nhanes": 8, "adult": 6}


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_study_of_every_set_is_valid_and_open(name: str) -> None:
    study = ahh.open_study(SETS[name].study)
    assert study.open_data
    assert study.ask(MODEL).name == "logistic"
    assert [ask.name for ask in study.asks if ask.model == MODEL] == ["scores"]


@pytest.mark.parametrize("name", sorted(PERSONS))
def test_a_real_set_keeps_every_person_once(name: str) -> None:
    data = data_set(name)
    try:
        frames = data.frames()
    except Misuse as error:
        pytest.skip(str(error))
    everybody = pd.concat(frames.values())
    assert len(frames) == PARTNERS[name]
    assert len(everybody) == PERSONS[name]
    assert everybody[ahh.open_study(data.study).patient.key].is_unique
    for frame in frames.values():
        assert list(frame.index) == list(range(len(frame)))


def test_nothing_of_a_real_set_lies_outside_its_declared_range() -> None:
    try:
        task = prepare(data_set("uci_heart"))
    except Misuse as error:
        pytest.skip(str(error))
    assert sum(len(cohort) for cohort in task.training().values()) == 486
    assert sum(len(cohort) for cohort in task.test().values()) == 254


def test_a_synthetic_set_is_laid_out_and_runs(tmp_path: Path) -> None:
    folder = tmp_path / "partners"
    assert layout.main(["demo2k", str(folder)]) == 0
    assert len(list(folder.glob("*.csv"))) == 8
    results = ahh.run(SETS["demo2k"].study, folder, exact=True)
    assert results.data["asks"][0]["status"] == "released"


@pytest.mark.parametrize("name", sorted(PERSONS))
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
