"""A coordinator that lies to a researcher: what it sends is held against what was asked before it is computed with or shown."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from ahh_federated.cli import tables
from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import Header, Recorder, read_transcript
from ahh_federated.core.releases import Status
from ahh_federated.errors import Breach
from ahh_federated.lab import remote
from ahh_federated.lab.remote import Coordinator
from ahh_federated.lab.studies import StudyResults
from ahh_federated.runtimes.handouts import Access
from ahh_federated.runtimes.https import Peer
from ahh_federated.wire import Reply
from tests.study.samples import QUIET, small

NAMES = ("east", "north", "south")


class Invented:
    """Partners whose numbers are what `cells` says; nobody can tell from a release whether it is true."""

    def __init__(self, study, cells, partners=NAMES):
        self.study, self.cells, self.partners = study, cells, partners

    def exchange(self, request, partners):
        ask = self.study.ask(request.ask)
        line = ask.analysis.schedule()[request.step]
        cells = np.asarray(self.cells(line.width)).astype("<i8").tobytes()
        sigma = self.study.event(ask, line).sigma
        return {name: Reply(request.id, Status.RELEASED, sigma, cells) for name in partners}


def invent(folder, study, cells=lambda width: np.full(width, 2**35), partners=NAMES):
    """The folder of a run in which partners said this."""
    with Recorder(Header(study, partners, "", False), folder) as recorder:
        Session(study, Invented(study, cells, partners), recorder.record, Silent()).outcomes()
        recorder.finish({})
    return folder


@pytest.fixture(scope="module")
def study():
    return small(QUIET[2])


@pytest.fixture
def liar(tmp_path, monkeypatch):
    """A coordinator that sends the transcript in `sent`, whatever is asked."""
    monkeypatch.setattr(
        Peer, "download", lambda self, path, to: to.write_bytes((tmp_path / "sent/transcript.jsonl").read_bytes())
    )
    return Coordinator(Access("antwerp", "an", "127.0.0.1:1", "", "secret"))


def refuse_to_compute(monkeypatch):
    def never(out):
        raise AssertionError("it was computed with")

    monkeypatch.setattr(remote, "replay", never)


def test_a_study_that_was_submitted_is_the_one_that_is_followed(liar, study, monkeypatch):
    answer = {"digest": "0" * 64, "id": study.id, "state": "queued", "position": 1}
    monkeypatch.setattr(Peer, "post", lambda self, path, body: answer)
    with pytest.raises(Breach, match="another study"):
        liar.submit(study)
    with pytest.raises(Breach, match="another study"):
        liar.run(study)


def test_nothing_is_computed_about_another_study(liar, study, tmp_path, monkeypatch):
    invent(tmp_path / "sent", small(QUIET[2], ("version = 1", "version = 2")))
    refuse_to_compute(monkeypatch)
    with pytest.raises(Breach, match="another study"):
        liar.fetch(study, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["[/bold]", "[link=https://example.org]east[/link]", "../east", "east west", "x" * 100])
def test_a_partner_has_a_name(liar, study, tmp_path, monkeypatch, name):
    invent(tmp_path / "sent", study, partners=("east", "north", name))
    refuse_to_compute(monkeypatch)
    with pytest.raises(Breach, match="no names"):
        liar.fetch(study, tmp_path / "out")


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\u202eeast"])
def test_no_transcript_steers_a_terminal(study, tmp_path, name):
    invent(tmp_path, study, partners=("east", "north", name))
    with pytest.raises(Breach):
        read_transcript(tmp_path / "transcript.jsonl")


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"[red]much"', "[1]", "true", "null"])
def test_what_was_spent_is_a_number(liar, study, tmp_path, value):
    invent(tmp_path / "sent", study)
    path = tmp_path / "sent" / "transcript.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[-1] = '{"spending":{"east":{"delta_limit":1e-06,"epsilon":VALUE,"epsilon_limit":4.0}}}\n'.replace("VALUE", value)
    path.write_text("".join(lines))
    with pytest.raises(Breach):
        liar.fetch(study, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "cells",
    [
        lambda width: np.full(width, 2**63 - 1),
        lambda width: np.full(width, -(2**63)),
        lambda width: np.where(np.arange(width) % 2, 2**63 - 1, -(2**63)),
        lambda width: np.zeros(width),
        lambda width: np.random.default_rng(width).integers(-(2**40), 2**40, width),
        lambda width: np.random.default_rng(width).integers(-(2**28), 2**28, width),
    ],
    ids=["largest", "least", "both", "nothing", "large", "middling"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_partners_invent_there_is_a_report(liar, study, tmp_path, cells):
    invent(tmp_path / "sent", study, cells)
    results = liar.fetch(study, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results.data))
    assert (tmp_path / "out" / "report.html").exists()


def test_a_failed_fetch_leaves_what_was_there(liar, study, tmp_path, monkeypatch):
    invent(tmp_path / "sent", study)
    liar.fetch(study, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fault(self, out):
        raise OverflowError("math range error")

    monkeypatch.setattr(StudyResults, "save", fault)
    with pytest.raises(OverflowError):
        liar.fetch(study, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_names_are_no_markup_in_tables(study, tmp_path):
    """On one machine a partner is named after its file."""
    partners = ("[/bold]", "[red]east", "north")
    exchanges = []
    outcomes = Session(
        study, Invented(study, lambda width: np.full(width, 2**35), partners), exchanges.append, Silent()
    ).outcomes()
    results = StudyResults(Results(Header(study, partners, "", False), outcomes, exchanges, {}, "0"))
    out = io.StringIO()
    tables.answers(Console(file=out, width=200), results.data)
    scored = any(ask["analysis"] == "scores" and ask["status"] == "released" for ask in results.data["asks"])
    assert scored and "[/bold]" in out.getvalue() and "[red]east" in out.getvalue()
