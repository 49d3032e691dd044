"""The verbs of a researcher, over real TLS; the test plays the coordinator's own work."""

from __future__ import annotations

import io
import json
import threading

import pytest
from rich.console import Console

from ahh_federated.cli import researcher_verbs
from ahh_federated.cli.main import main
from ahh_federated.coordinator.queue import State
from ahh_federated.errors import Unreachable
from ahh_federated.lab.following import Following
from ahh_federated.lab.remote import Coordinator, StudyStatus
from ahh_federated.lab.studies import run as run_locally
from ahh_federated.runtimes.handouts import write_access
from tests.coordinator.coordinators import OURS, done, serving
from tests.coordinator.coordinators import desk as made_desk
from tests.study.samples import TEXT, rows

PROGRESS = {
    "ask": "model",
    "step": 3,
    "of": 9,
    "asks": ["counts", "model", "evaluation"],
    "partners": {"hospital-zas": "released", "zone-noord": "refused: budget"},
}


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setenv("AHH_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "growth.toml").write_text(TEXT.replace(*OURS))
    with made_desk(tmp_path) as desk, serving(desk):
        write_access(desk.home, desk.roster, "an-peeters", tmp_path / "an.toml")
        yield desk


@pytest.fixture
def ahh(desk, capsys):
    def run(*words: str, status: int = 0) -> str:
        assert main(list(words)) == status
        printed = capsys.readouterr()
        return printed.out if not printed.err else printed.err

    run("login", "an.toml")
    return run


@pytest.fixture(scope="module")
def transcript(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    (out / "growth.toml").write_text(TEXT.replace(*OURS))
    run_locally(out / "growth.toml", {name: rows(4000, seed) for seed, name in enumerate(("north", "east"))}, out=out)
    return (out / "transcript.jsonl").read_bytes()


def test_login(desk, capsys):
    assert main(["login", "an.toml"]) == 0
    printed = capsys.readouterr().out
    assert "an-peeters has access to the coordinator antwerp at localhost:" in printed and "delete an.toml" in printed
    assert main(["login", "growth.toml"]) == 2
    assert "not an access file" in capsys.readouterr().err


def test_submit_status_cancel(ahh, desk):
    printed = ahh("submit", "growth.toml")
    digest = desk.queue.studies()[0].digest
    assert f"growth: queued, place 1 in the queue (digest {digest[:12]})" in printed and f"`ahh wait {digest[:12]}`" in printed
    listed = ahh("status")
    assert "growth" in listed and "queued, place 1" in listed and digest[:12] in listed
    desk.queue.note(digest, PROGRESS)
    desk.queue.set(digest, "running")
    shown = ahh("status", "growth", "--coordinator", "antwerp")
    assert "growth: running, model, 3 of 9 steps answered" in shown
    rows_of = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "released" in rows_of["hospital-zas"] and "refused: budget" in rows_of["zone-noord"]
    assert "growth: cancelled" in ahh("cancel", "growth")
    assert "over already" not in ahh("cancel", "growth")
    assert ahh("wait", "growth", status=3).strip() == "growth: cancelled, the researcher stopped it"


def test_the_list_fits_eighty_columns(ahh, desk):
    ahh("submit", "growth.toml")
    assert max(len(line) for line in ahh("status").splitlines()) <= 80


def test_wait_and_fetch(ahh, desk, transcript, tmp_path):
    ahh("submit", "growth.toml")
    digest = desk.queue.studies()[0].digest
    assert "no results yet: it is queued" in ahh("fetch", "growth", "--out", "out", status=2)
    done(desk, digest, transcript)
    assert "growth: done" in ahh("wait", "growth")
    printed = ahh("fetch", "growth", "--out", "out")
    assert "Written to out" in printed and "report.html" in printed
    assert main(["replay", "out"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["study"]["digest"] == digest


class Serves(threading.Thread):
    """Does a coordinator's work as soon as there is a study."""

    def __init__(self, desk, work):
        super().__init__(daemon=True)
        self.desk, self.work, self.over = desk, work, threading.Event()

    def run(self):
        while not self.over.wait(0.01):
            for queued in self.desk.queue.waiting():
                self.work(queued.digest)


@pytest.fixture
def serves(desk):
    threads = []

    def start(work):
        threads.append(Serves(desk, work))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.over.set()
        thread.join(10)


def test_run(ahh, desk, serves, transcript, tmp_path):
    serves(lambda digest: done(desk, digest, transcript))
    printed = ahh("run", "growth.toml", "--coordinator", "antwerp", "--out", "out")
    assert "Written to out" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "results.json", "transcript.jsonl"}
    again = ahh("run", "growth.toml", "--coordinator", "antwerp", "--out", "again")  # done already: fetched
    assert "Written to again" in again


def test_a_run_that_fails_says_why(ahh, desk, serves, tmp_path):
    serves(lambda digest: desk.queue.set(digest, "failed", "1 partners approved, the study needs 2"))
    assert "growth: failed, 1 partners approved" in ahh(
        "run", "growth.toml", "--coordinator", "antwerp", "--out", "out", status=3
    )
    assert not (tmp_path / "out").exists()


def test_stopping_to_follow_is_not_cancelling(ahh, desk, monkeypatch, capsys):
    ahh("submit", "growth.toml")

    def stop(self, study, watcher):
        raise KeyboardInterrupt

    monkeypatch.setattr(Coordinator, "wait", stop)
    assert main(["wait", "growth"]) == 130
    assert "the study goes on at the coordinator" in capsys.readouterr().err
    assert desk.queue.studies()[0].state is State.QUEUED


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status", "absent"], "no study here is called 'absent'"),
        (["status", "--coordinator", "aalst"], "no coordinator is called 'aalst' (known: antwerp)"),
        (["submit", "absent.toml"], "absent.toml cannot be read"),
        (["wait", "absent.toml"], "absent.toml cannot be read"),
        (["login", "absent.toml"], "absent.toml cannot be read"),
        (["fetch", "growth", "--out", "an.toml"], "no study here"),
    ],
)
def test_errors(ahh, words, message):
    assert message in ahh(*words, status=2)


def test_a_coordinator_that_is_gone_gives_status_2(ahh, desk, capsys, tmp_path):
    file = tmp_path / "config" / "antwerp.toml"
    file.write_text(file.read_text().replace(desk.home.address, "localhost:1"))
    assert "localhost:1 does not answer" in ahh("status", status=2)


def status(state: str, **other) -> StudyStatus:
    content = {"digest": "a" * 64, "id": "growth", "position": None, "title": "", "by": "an-peeters", "submitted": ""}
    return StudyStatus(**{**content, "state": State(state), "reason": "", "progress": {}, **other})


def followed(*moves) -> tuple[str, dict[str, tuple]]:
    """What was printed, and each line of the progress: done, of how many, note."""
    console = Console(width=100, force_terminal=True, record=True, file=io.StringIO())
    with Following(console) as watcher:
        for move in moves:
            if isinstance(move, Unreachable):
                watcher.lost(move)
            else:
                watcher.moved(move)
        lines = {task.description: (task.completed, task.total, task.fields["note"]) for task in watcher._progress.tasks}
    return console.export_text(), lines


def test_the_live_view_of_a_whole_run():
    approvals = {"partners": {"a": "approved", "b": "pending", "c": "refused: column", "d": "offline"}}
    moves = [
        status("queued", position=3),
        status("waiting", position=1, progress=approvals),
        status("running", progress={**PROGRESS, "ask": "counts", "step": 0, "of": 1}),
        status("running", progress=PROGRESS),
    ]
    _, lines = followed(*moves)
    assert lines["queue"] == (1, 1, "")
    assert lines["approvals"] == (4, 4, "")
    assert lines["counts"] == (1, 1, "")
    assert lines["model"] == (3, 9, "1 of 2 partners")
    _, before = followed(*moves[:2])
    assert before["approvals"] == (1, 4, "to come: b, d")
    _, after = followed(*moves, status("done", progress=PROGRESS))
    assert after["model"] == (9, 9, "") and after["evaluation"] == (1, 1, "")


def test_the_live_view_tells_an_outage_once():
    error = Unreachable("localhost:8443 does not answer: [check]")
    text, _ = followed(status("running", progress=PROGRESS), error, error, status("running", progress=PROGRESS), error)
    assert text.count("does not answer: [check]") == 2 and text.count("answers again") == 1


@pytest.mark.parametrize(
    "progress", [{}, {"asks": 3}, {"asks": ["x"], "ask": "y", "step": "z"}, {"asks": [None], "ask": "[red]"}]
)
def test_the_live_view_takes_any_progress(progress):
    followed(status("waiting", progress=progress), status("running", progress=progress), status("done", progress=progress))


def test_the_verbs_are_all_there():
    assert all(
        callable(getattr(researcher_verbs, each)) for each in ("login", "submit", "status", "wait", "fetch", "cancel", "run")
    )
