"""The command line: outputs, exit codes and messages."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from ahh_federated.cli.main import main
from ahh_federated.lab.synthetic import write_partners

STUDY = str(Path(__file__).parents[2] / "examples" / "child-overweight.toml")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_partners(folder / "partners", children=4_000, seed=1)
    assert main(["run", STUDY, "--partners", str(folder / "partners"), "--out", str(folder / "out"), "--engine", "flower"]) == 0
    return folder


def test_run_leaves_the_report_the_results_the_model_and_the_transcript(done):
    assert {path.name for path in (done / "out").iterdir()} == {"report.html", "results.json", "model.json", "transcript.jsonl"}


def test_run_again_over_the_other_engine_reads_the_stored_releases(done, capsys):
    before = json.loads((done / "out" / "results.json").read_text())
    assert main(["run", STUDY, "--partners", str(done / "partners"), "--out", str(done / "again")]) == 0
    assert json.loads((done / "again" / "results.json").read_text()) == before
    assert "odds ratio" in capsys.readouterr().out


def test_replay_and_report(done, capsys):
    assert main(["replay", str(done / "out")]) == 0
    assert "all equal results.json" in capsys.readouterr().out
    first = (done / "out" / "report.html").read_bytes()
    (done / "out" / "report.html").unlink()
    assert main(["report", str(done / "out")]) == 0
    assert (done / "out" / "report.html").read_bytes() == first


def test_replay_finds_a_changed_number(done, tmp_path, capsys):
    for name in ("results.json", "transcript.jsonl"):
        (tmp_path / name).write_bytes((done / "out" / name).read_bytes())
    results = json.loads((tmp_path / "results.json").read_text())
    results["asks"][0]["answer"]["cells"][0]["overall"]["value"] += 1e-3
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert main(["replay", str(tmp_path)]) == 2
    assert "asks[0].answer.cells[0].overall.value" in capsys.readouterr().err


def test_quote_prints_the_bill(capsys):
    assert main(["quote", STUDY, "--patients", "300,600"]) == 0
    printed = capsys.readouterr().out
    for word in ("children", "model", "evaluation", "epsilon alone", "600", "all together"):
        assert word in printed


def test_ledger_show_and_verify(done, capsys):
    assert main(["ledger", "show", str(done / "partners")]) == 0
    assert capsys.readouterr().out.count("of 4 at delta 1e-05") == 8
    assert main(["ledger", "verify", str(done / "partners")]) == 0
    assert capsys.readouterr().out.count("whole") == 8
    assert main(["ledger", "verify", str(done / "partners" / ".ahh" / "zone-zuid.ledger")]) == 0


def test_ledger_verify_finds_a_changed_entry(done, tmp_path, capsys):
    for path in (done / "partners" / ".ahh").glob("zone-zuid.ledger*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with sqlite3.connect(tmp_path / "zone-zuid.ledger") as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute("UPDATE entries SET sigma = sigma * 2 WHERE seq = 4")
    db.close()
    assert main(["ledger", "verify", str(tmp_path / "zone-zuid.ledger")]) == 3
    assert "BROKEN at entry 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["quote", "absent.toml"], 2, "absent.toml cannot be read"),
        (["replay", "absent"], 2, "cannot be read"),
        (["report", "absent"], 2, "cannot be read"),
        (["ledger", "show", "absent"], 2, "holds no ledger"),
        (["run", STUDY, "--partners", "absent", "--out", "out"], 3, "absent is not a folder"),
    ],
)
def test_errors_name_the_thing_and_the_fix(arguments, code, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["fly"], ["quote", STUDY, "--patients", "many"], ["run", STUDY]])
def test_wrong_calls_exit_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


def test_a_run_with_a_refused_mode_writes_nothing(tmp_path, capsys):
    real = tmp_path / "real.toml"
    real.write_text(Path(STUDY).read_text().replace('data = "synthetic"', 'data = "real"'))
    code = main(["run", str(real), "--partners", str(tmp_path), "--out", str(tmp_path / "out"), "--seed", "1"])
    assert code == 2
    assert "a fixed seed works only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
