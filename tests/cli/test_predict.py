"""`ahh predict`: a model file and a table make predictions, and nothing else is touched."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.cli.main import main
from ahh_federated.lab.models.files import write_model
from tests.lab import modelling

OTHERS = modelling.rows(200, seed=9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of every kind, and a table as CSV and as Parquet."""
    folder = tmp_path_factory.mktemp("predict")
    for ask in ("plain", "case", "line"):
        modelling.results().model(ask).save(folder / f"{ask}.json")
    OTHERS.to_csv(folder / "table.csv", index=False)
    OTHERS.to_parquet(folder / "table.parquet")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(text: str) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(io.StringIO(text))
    return header, rows


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("ask", ["plain", "case"])
def test_risks_on_the_screen_are_those_of_the_estimator(ask, suffix, place, capsys):
    assert main(["predict", f"{ask}.json", f"table.{suffix}", "--key", "child"]) == 0
    printed = capsys.readouterr()
    header, rows = table(printed.out)
    assert header == ["child", "risk"]
    assert [row[0] for row in rows] == list(OTHERS["child"])
    expected = ahh.load_model(f"{ask}.json").predict_proba(OTHERS)[:, 1]
    found = np.array([float(row[1]) if row[1] else np.nan for row in rows])
    assert np.allclose(found, expected, rtol=1e-8, equal_nan=True)
    unknown = int(np.isnan(expected).sum())
    assert unknown > 0
    assert f"{unknown} of 200 rows lack a value that the model needs" in printed.err
    assert "NOT PRIVATE: fixed seed" in printed.err


def test_values_are_numbered_and_written_to_a_file(place, capsys):
    assert main(["predict", "line.json", "table.csv", "--out", "out.csv"]) == 0
    assert capsys.readouterr().out == ""
    header, rows = table(Path("out.csv").read_text())
    assert header == ["row", "prediction"]
    assert [row[0] for row in rows] == [str(k) for k in range(1, 201)]
    expected = ahh.load_model("line.json").predict(OTHERS)
    assert np.allclose([float(row[1]) if row[1] else np.nan for row in rows], expected, rtol=1e-8, equal_nan=True)


def test_levels_have_a_probability_each(place, capsys):
    write_model(modelling.network("levels", unknown=True), place / "network.json")
    assert main(["predict", "network.json", "table.csv"]) == 0
    header, rows = table(capsys.readouterr().out)
    assert header == ["row", "usual", "thin", "heavy"]
    assert all(sum(map(float, row[1:])) == pytest.approx(1.0) for row in rows)


@pytest.mark.parametrize("out", ["table.csv", "plain.json", "./table.csv"])
def test_what_it_reads_is_never_overwritten(out, place, capsys):
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert main(["predict", "plain.json", "table.csv", "--out", out]) == 2
    assert "give --out another name" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_no_message_holds_a_value(place, capsys):
    OTHERS.assign(weight="3,75", smoked="sometimes", income="-987").to_csv("odd.csv", index=False)
    assert main(["predict", "plain.json", "odd.csv"]) == 0
    printed = capsys.readouterr()
    assert "200 rows of 'weight' are not numbers" in printed.err
    assert "200 rows of 'smoked' are none of its levels ['no', 'yes', 'stopped']" in printed.err
    assert not any(value in printed.err for value in ("3,75", "sometimes", "987"))
    assert {row[1] for row in table(printed.out)[1]} == {""}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["absent.json", "table.csv"], 2, "absent.json cannot be read"),
        (["plain.json", "absent.csv"], 3, "absent.csv cannot be read"),
        (["table.csv", "table.csv"], 2, "table.csv is not JSON"),
        (["edited.json", "table.csv"], 2, "edited.json is not a model that can be used: it was changed after it was written"),
        (["plain.json", "narrow.csv"], 2, "the table lacks the column 'weight'"),
        (["plain.json", "table.csv", "--key", "name"], 2, "the table lacks the column 'name'"),
        (["plain.json", "twice.csv"], 2, "2 columns named 'sex'"),
        (["plain.json", "table.csv", "--out", "absent/out.csv"], 2, "absent/out.csv cannot be written"),
    ],
)
def test_errors_name_the_thing_and_the_fix(arguments, code, message, place, capsys):
    content = json.loads(Path("plain.json").read_text())
    content["receipt"]["epsilon"] = 0.1
    Path("edited.json").write_text(json.dumps(content))
    OTHERS.drop(columns="weight").to_csv("narrow.csv", index=False)
    pd.concat([OTHERS, OTHERS[["sex"]]], axis=1).to_csv("twice.csv", index=False)
    assert main(["predict", *arguments]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_a_table_without_rows_gives_a_header(place, capsys):
    OTHERS.head(0).to_csv("empty.csv", index=False)
    assert main(["predict", "plain.json", "empty.csv"]) == 0
    assert capsys.readouterr().out == "row,risk\n"
