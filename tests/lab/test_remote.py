"""A researcher and a coordinator over real TLS: submit, follow, fetch; the coordinator's own work is played by the test."""

from __future__ import annotations

import json
import threading

import pytest

from ahh_federated.coordinator.queue import State
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.lab import remote
from ahh_federated.lab.remote import connect, known, login
from ahh_federated.lab.studies import run as run_locally
from ahh_federated.runtimes.handouts import write_access
from ahh_federated.study import canonical, open_study
from tests.coordinator.coordinators import OURS, done, serving
from tests.coordinator.coordinators import desk as made_desk
from tests.study.samples import QUIET, TEXT, rows, small


@pytest.fixture(scope="module")
def study_text():
    text = TEXT
    for old, new in [OURS, ("epsilon = 2.0", "epsilon = 3.9"), ("delta = 1e-6", "delta = 1e-5"), QUIET[2]]:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def finished(tmp_path_factory, study_text):
    """A run on this machine: what the coordinator's transcript of the same study would be."""
    out = tmp_path_factory.mktemp("finished")
    (out / "study.toml").write_text(study_text)
    tables = {name: rows(6000, seed) for seed, name in enumerate(("north", "east", "south"))}
    run_locally(out / "study.toml", tables, out=out)
    return out


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("AHH_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def desk(tmp_path):
    with made_desk(tmp_path) as desk:
        yield desk


@pytest.fixture
def served(desk):
    with serving(desk):
        yield desk


@pytest.fixture
def access(desk, tmp_path):
    return write_access(desk.home, desk.roster, "an-peeters", tmp_path / "an.toml")


@pytest.fixture
def antwerp(served, access, config):
    login(access)
    return connect("antwerp")


@pytest.fixture
def study(tmp_path, study_text):
    path = tmp_path / "study.toml"
    path.write_text(study_text)
    return path


class Played:
    """A watcher that plays the coordinator's service: each step is done when the researcher has seen the one before."""

    def __init__(self, *steps):
        self.steps, self.seen, self.missed = list(steps), [], []

    def moved(self, status):
        if not self.seen or self.seen[-1] != status:
            self.seen.append(status)
            if self.steps:
                self.steps.pop(0)(status.digest)

    def lost(self, error):
        self.missed.append(error)


def progress(step, **partners):
    return {"ask": "model", "step": step, "of": 9, "asks": ["count", "model"], "partners": partners}


def test_login_keeps_the_access_for_its_owner_alone(served, access, config):
    antwerp = login(access)
    kept = config / "antwerp.toml"
    assert kept.stat().st_mode & 0o777 == 0o600 and config.stat().st_mode & 0o777 == 0o700
    assert kept.read_bytes() == access.read_bytes()
    assert known() == ["antwerp"] and connect() == connect("antwerp") == antwerp
    assert "an-peeters" in repr(antwerp) and antwerp.access.token not in repr(antwerp)
    assert [path.name for path in config.iterdir()] == ["antwerp.toml"]


def test_login_keeps_nothing_that_does_not_work(desk, access, config, tmp_path):
    with pytest.raises(Unreachable, match="does not answer"):
        login(access)
    newer = write_access(desk.home, desk.roster, "an-peeters", tmp_path / "newer.toml")
    with serving(desk):
        with pytest.raises(Misuse, match="not accepted"):
            login(access)
        with pytest.raises(Misuse, match="not an access file"):
            login(desk.home.path / "coordinator.toml")
        assert known() == []
        login(newer)
    assert known() == ["antwerp"]


def test_a_coordinator_that_is_not_known(config):
    for name in (None, "antwerp", "../antwerp"):
        with pytest.raises(Misuse, match="ahh login"):
            connect(name)


def test_the_name_may_be_left_out_when_only_one_is_known(antwerp, config):
    assert connect().access.coordinator == "antwerp"
    (config / "aalst.toml").write_bytes((config / "antwerp.toml").read_bytes())
    with pytest.raises(Misuse, match="known: aalst, antwerp"):
        connect()


def test_submit_and_status(antwerp, served, study):
    submitted = antwerp.submit(study)
    assert submitted.digest == open_study(study).digest and submitted.state is State.QUEUED
    assert (submitted.position, submitted.by, submitted.mine) == (1, "an-peeters", True)
    for name in (study, str(study), "growth", submitted.digest, submitted.digest[:9], open_study(study)):
        assert antwerp.status(name) == submitted
    assert antwerp.status() == [submitted]
    assert antwerp.submit(open_study(study)) == submitted
    with pytest.raises(Misuse, match="no study here is called 'absent'"):
        antwerp.status("absent")
    with pytest.raises(Misuse, match="no study here has this digest"):
        antwerp.status("0" * 64)


def test_others_studies_are_seen_and_not_touched(antwerp, served, study, tmp_path):
    queued = served.queue.submit(canonical(open_study(study).content), "tom-claes")
    (status,) = antwerp.status()
    assert not status.mine and (status.title, status.by, status.partners) == ("", "", {})
    with pytest.raises(Misuse, match="another researcher's"):
        antwerp.cancel(queued.digest)
    with pytest.raises(Misuse, match="another researcher's"):
        antwerp.fetch(queued.digest, tmp_path / "out")
    with pytest.raises(Misuse, match="by another researcher"):
        antwerp.submit(study)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_study_that_cannot_work_is_not_sent(antwerp, served, tmp_path):
    (tmp_path / "bad.toml").write_text("[study]")
    with pytest.raises(Misuse, match=r"bad\.toml"):
        antwerp.submit(tmp_path / "bad.toml")
    assert served.queue.studies() == []


def test_an_expired_study_is_refused_by_the_coordinator(antwerp):
    with pytest.raises(Misuse, match=r"localhost:[0-9]+ refuses: the study growth expired on 2020-01-02"):
        antwerp.submit(small(OURS, ("2030-12-31", "2020-01-02")))


def test_a_run_from_end_to_end_equals_the_run_on_one_machine(antwerp, served, study, finished, tmp_path):
    queue, transcript = served.queue, (finished / "transcript.jsonl").read_bytes()
    play = Played(
        lambda digest: (
            queue.note(digest, progress(0, north="approved", east="pending")),
            queue.set(digest, "waiting", "1 of 2"),
        ),
        lambda digest: (queue.note(digest, progress(4, north="released", east="offline")), queue.set(digest, "running")),
        lambda digest: done(served, digest, transcript),
    )
    results = antwerp.run(study, tmp_path / "out", play)
    assert [status.state for status in play.seen] == ["queued", "waiting", "running", "done"]
    assert play.seen[1].partners == {"north": "approved", "east": "pending"}
    assert play.seen[2].step == "model, 4 of 9 steps answered" and "1 of 2" in str(play.seen[1])
    expected = json.loads((finished / "results.json").read_text())
    assert results.data == expected == json.loads((tmp_path / "out" / "results.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", "results.json", "model.json", "transcript.jsonl"
    }  # fmt: skip
    for name in ("transcript.jsonl", "report.html"):
        assert (tmp_path / "out" / name).read_bytes() == (finished / name).read_bytes(), name
    models = [json.loads((folder / "model.json").read_text()) for folder in (tmp_path / "out", finished)]
    assert models[0] == models[1]
    assert results.model("model").coef_.shape[1] > 2


def test_a_run_that_keeps_nothing(antwerp, served, study, finished):
    transcript = (finished / "transcript.jsonl").read_bytes()
    results = antwerp.run(study, watcher=Played(lambda digest: done(served, digest, transcript)))
    assert results.data == json.loads((finished / "results.json").read_text())


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_run_that_came_to_nothing_says_why(antwerp, served, study, tmp_path, end):
    play = Played(lambda digest: served.queue.set(digest, end, "1 partners approved, the study needs 2"))
    with pytest.raises(Misuse, match=f"growth is {end}: 1 partners approved"):
        antwerp.run(study, tmp_path / "out", play)
    assert not (tmp_path / "out").exists()
    with pytest.raises(Misuse, match="no results yet"):
        antwerp.fetch(study, tmp_path / "out")


def test_cancel(antwerp, study):
    antwerp.submit(study)
    assert antwerp.cancel("growth").state is State.CANCELLED
    assert antwerp.wait("growth").state is State.CANCELLED
    assert antwerp.submit(study).state is State.QUEUED


@pytest.mark.parametrize("cut", [1, 2, 500])
def test_a_transcript_that_does_not_follow_is_not_kept(antwerp, served, study, finished, tmp_path, cut):
    digest = antwerp.submit(study).digest
    lines = (finished / "transcript.jsonl").read_bytes().splitlines(keepends=True)
    damaged = b"".join(lines)[:-500] if cut == 500 else b"".join(lines[:-cut][:3])
    done(served, digest, damaged)
    with pytest.raises(Breach):
        antwerp.fetch(study, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_transcript_of_another_study_is_not_kept(antwerp, served, study, finished, tmp_path):
    other = antwerp.submit(small(OURS, ("version = 1", "version = 2"))).digest
    done(served, other, (finished / "transcript.jsonl").read_bytes())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("an earlier run's")
    with pytest.raises(Breach, match="of another study: nothing of it is kept"):
        antwerp.fetch(other, tmp_path / "out")
    assert (tmp_path / "out" / "results.json").read_text() == "an earlier run's"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_waiting_survives_a_restart_of_the_coordinator(desk, access, config, study, monkeypatch):
    monkeypatch.setattr(remote, "_SLOWEST", 0.02)
    with serving(desk):
        login(access)
        digest = connect().submit(study).digest
    watcher, over = Played(), []
    waiting = threading.Thread(target=lambda: over.append(connect().wait(digest, watcher, every=0.01)))
    waiting.start()
    while not watcher.missed:
        waiting.join(0.01)
    assert waiting.is_alive()
    with serving(desk):
        while not watcher.seen:
            waiting.join(0.01)
        desk.queue.set(digest, "failed", "no partner approved")
        waiting.join(20)
    assert [status.state for status in over] == ["failed"]


def test_patience_ends(desk, access, config, study, monkeypatch):
    with serving(desk):
        login(access)
        connect().submit(study)
    monkeypatch.setattr(remote, "PATIENCE", 0.0)
    with pytest.raises(Unreachable, match="does not answer"):
        connect().wait(open_study(study).digest, every=0.01)


def test_dismissal_ends_access_at_once(antwerp, served, study):
    antwerp.submit(study)
    served.roster.dismiss("an-peeters")
    with pytest.raises(Misuse, match="not accepted"):
        antwerp.status()
    with pytest.raises(Misuse, match="not accepted"):
        antwerp.wait(study)


GOOD = {"digest": "a" * 64, "id": "growth", "state": "queued", "position": 1}


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {**GOOD, "state": "asleep"},
        {**GOOD, "position": "first"},
        {**GOOD, "progress": []},
        {**GOOD, "title": 3},
        {**GOOD, "digest": None},
    ],
)
def test_what_is_no_status(answer):
    with pytest.raises(Breach):
        remote._status(answer)


def test_nothing_of_a_coordinator_moves_the_cursor():
    strange = {"ask": "\x1b[2J", "step": "\x07", "of": None, "partners": {"a\x1b[2Jb": "c\nd", "e": 5}, "asks": 3}
    status = remote._status({**GOOD, "reason": "x\x1b]0;y", "title": "\x9b", "by": "an", "progress": strange})
    shown = [str(status), status.title, status.step, *status.partners, *status.partners.values()]
    assert all(text.isprintable() for text in shown)
