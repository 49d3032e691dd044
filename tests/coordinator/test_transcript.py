"""The transcript: everything that crossed the wire, enough to compute every number again, and nothing that was edited."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Session, Silent
from ahh_federated.coordinator.transcript import (
    Exchange,
    Header,
    Spending,
    dump_exchange,
    dump_header,
    dump_spending,
    read_transcript,
)
from ahh_federated.core.releases import Status
from ahh_federated.errors import AhhError, Breach, Misuse
from ahh_federated.runtimes.local import LocalLink
from ahh_federated.runtimes.replay import ReplayLink
from ahh_federated.wire import Request
from tests.study.samples import QUIET, TODAY, cohort, desk, small

STUDY = small(*QUIET)
NAMES = ("east", "north", "south")
SPENDING = {"north": Spending(1.25, 4.0, 1e-5)}
Line = dict[str, Any]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    """A run in which `south` falls out of one ask, written as it happened."""
    path = tmp_path_factory.mktemp("run") / "transcript.jsonl"
    header = Header(STUDY, NAMES, "", False)
    desks = {name: desk(STUDY, cohort(STUDY, 500, seed), name=name, minimum=1) for seed, name in enumerate(NAMES)}
    desks["south"].ledger.debit(  # the step is spent on another request, so the desk refuses it
        request="0" * 64,
        study=STUDY.digest,
        ask="size:0",
        query="moments/1",
        event=STUDY.event(STUDY.ask("size"), STUDY.ask("size").analysis.schedule()[0]),
        ceiling=STUDY.budget,
    )
    exchanges: list[Exchange] = []
    with path.open("w", encoding="utf-8") as file:
        file.write(dump_header(header))

        def record(exchange: Exchange) -> None:
            exchanges.append(exchange)
            file.write(dump_exchange(exchange))

        outcomes = Session(STUDY, LocalLink(desks, TODAY), record, Silent()).outcomes()
        file.write(dump_spending(SPENDING))
    return path, Results(header, outcomes, exchanges, SPENDING, "test")


def replayed(path: Path) -> Results:
    header, exchanges, spending = read_transcript(path)
    link = ReplayLink(header, exchanges)
    session = Session(header.study, link, lambda exchange: None, Silent(), header.run, header.exact, strict=True)
    return Results(header, session.outcomes(), exchanges, spending, "test")


def lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, content: list[Line]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
    return path


def at(content: list[Line], ask: str, step: int = 0) -> Line:
    return next(line for line in content if (line.get("request") or {}).get("ask") == ask and line["request"]["step"] == step)


def test_everything_is_read_back_as_it_was(played: tuple[Path, Results]) -> None:
    path, results = played
    header, exchanges, spending = read_transcript(path)
    assert header.study.digest == STUDY.digest
    assert (header.partners, header.stamp, header.run, header.exact) == (NAMES, "", "", False)
    assert spending == SPENDING
    written = "".join([dump_header(header), *map(dump_exchange, exchanges), dump_spending(spending)])
    assert written == path.read_text(encoding="utf-8")
    for ours, theirs in zip(exchanges, results.exchanges, strict=True):
        assert ours.request.id == theirs.request.id
        assert {name: reply.to_bytes() for name, reply in ours.replies.items()} == {
            name: reply.to_bytes() for name, reply in theirs.replies.items()
        }


def test_a_replay_gives_every_number_bit_for_bit(played: tuple[Path, Results]) -> None:
    path, results = played
    assert json.dumps(replayed(path).to_json()) == json.dumps(results.to_json())


def test_a_refusal_is_part_of_it(played: tuple[Path, Results]) -> None:
    assert replayed(played[0]).outcome("size").coverage["south"] is Status.REFUSED


def test_labels_stay_with_their_numbers(played: tuple[Path, Results]) -> None:
    """The header is written with sorted keys: folds and levels must not change places on the way."""
    train = {
        tuple(sorted(levels.items())): number.value
        for results in (played[1], replayed(played[0]))
        for levels, number, _ in results.outcome("children").answer.cells
        if levels["fold"] == "train"
    }
    assert sum(value or 0 for value in train.values()) == pytest.approx(3 * 500 * 0.7, rel=0.15)


Edit = Callable[[list[Line]], object]


def nudge(ask: str, step: int, name: str, by: float) -> Edit:
    def edit(content: list[Line]) -> None:
        values = at(content, ask, step)["request"]["parameters"][name]
        values[0] += by

    return edit


def reply(ask: str, step: int = 0, partner: str = "north", **change: Any) -> Edit:
    return lambda content: at(content, ask, step)["replies"][partner].update(change)


def cells(ask: str, step: int, change: Callable[[Any], Any]) -> Edit:
    def edit(content: list[Line]) -> None:
        kept = at(content, ask, step)["replies"]["north"]
        numbers = change(np.frombuffer(base64.b64decode(kept["cells"]), "<i8").copy())
        kept["cells"] = base64.b64encode(numbers.astype("<i8").tobytes()).decode()

    return edit


def swap(content: list[Line]) -> None:
    one, other = at(content, "children")["replies"], at(content, "spread")["replies"]
    one["north"], other["north"] = other["north"], one["north"]


def again(content: list[Line]) -> None:
    """The same step twice, with other numbers the second time."""
    extra = copy.deepcopy(at(content, "children"))
    content.insert(3, extra)
    cells("children", 0, lambda numbers: numbers + 2**22)([extra])


EDITS: dict[str, Edit] = {
    "a parameter": nudge("model", 2, "beta", 1e-3),
    "a centre": nudge("model", 1, "centre", 1e-5),
    "an edge": nudge("evaluation", 0, "edges", 1e-4),
    "a parameter dropped": lambda content: at(content, "model", 2)["request"]["parameters"].pop("beta"),
    "a parameter shortened": lambda content: at(content, "model", 2)["request"]["parameters"]["beta"].pop(),
    "a parameter added": lambda content: at(content, "model", 2)["request"]["parameters"].update(extra=[1.0]),
    "a parameter to nan": lambda content: at(content, "model", 2)["request"]["parameters"].update(beta=[float("nan")] * 5),
    "the kind": lambda content: at(content, "children")["request"].update(kind="histogram/1"),
    "the step": lambda content: at(content, "model", 2)["request"].update(step=3),
    "the ask": lambda content: at(content, "children")["request"].update(ask="size"),
    "the study": lambda content: at(content, "children")["request"].update(study="0" * 64),
    "the run": lambda content: at(content, "children")["request"].update(run="+seed1"),
    "a step dropped": lambda content: content.remove(at(content, "model", 3)),
    "an ask dropped": lambda content: content.remove(at(content, "spread")),
    "a partner dropped": lambda content: at(content, "children")["replies"].pop("north"),
    "all partners dropped": lambda content: at(content, "children")["replies"].clear(),
    "the noise": reply("children", sigma=17),
    "the status": reply("children", status="fine"),
    "the reason": reply("size", partner="south", reason="a patient of 3.1 kg"),
    "no numbers": reply("children", cells=None),
    "half a number": reply("children", cells="AAAA"),
    "an exact sum": reply("children", cells=None, exact=base64.b64encode(bytes(8 * 9)).decode()),
    "whose request": reply("children", request="0" * 64),
    "a number of the model": cells("model", 1, lambda numbers: numbers + 2**36),
    "a number fewer": cells("children", 0, lambda numbers: numbers[:-1]),
    "two replies swapped": swap,
    "a step twice": again,
    "a reply that is a list": lambda content: at(content, "children")["replies"].update(north=[]),
    "replies that are a list": lambda content: at(content, "children").update(replies=[]),
    "a request that is a text": lambda content: at(content, "children").update(request="children"),
    "the format": lambda content: content[0].update(format="ahh-transcript/2"),
    "the header dropped": lambda content: content.pop(0),
    "the header twice": lambda content: content.insert(1, content[0]),
    "a partner more": lambda content: content[0].update(partners=[*NAMES, "west"]),
    "a partner fewer": lambda content: content[0].update(partners=["east", "north"]),
    "partners as a text": lambda content: content[0].update(partners="east"),
    "the study's version": lambda content: content[0]["study"]["study"].update(version=2),
    "the study's share": lambda content: content[0]["study"]["ask"][0].update(share=0.04),
    "the study's folds": lambda content: content[0]["study"]["patient"].update(folds={"train": 0.3, "test": 0.7}),
    "the study without a date": lambda content: content[0]["study"]["study"].pop("expires"),
    "the study with another date": lambda content: content[0]["study"]["study"].update(expires="soon"),
    "no study": lambda content: content[0].pop("study"),
    "the study as a list": lambda content: content[0].update(study=[1]),
    "spending of another form": lambda content: content[-1].update(spending={"north": {"epsilon": 1.0}}),
    "spending as a list": lambda content: content[-1].update(spending=[1]),
    "a line of another kind": lambda content: content.insert(2, {"note": "nothing to see"}),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_transcript_is_a_breach(name: str, played: tuple[Path, Results], tmp_path: Path) -> None:
    content = lines(played[0])
    EDITS[name](content)
    with pytest.raises(Breach):
        replayed(write(tmp_path / "transcript.jsonl", content))


def test_a_study_in_it_that_cannot_work_is_named(played: tuple[Path, Results], tmp_path: Path) -> None:
    content = lines(played[0])
    content[0]["study"]["privacy"]["epsilon"] = -1
    with pytest.raises(AhhError, match=r"privacy\.epsilon"):
        replayed(write(tmp_path / "transcript.jsonl", content))


def test_unedited_lines_in_other_spacing_are_the_same_transcript(played: tuple[Path, Results], tmp_path: Path) -> None:
    path = write(tmp_path / "transcript.jsonl", lines(played[0]))
    assert path.read_bytes() != played[0].read_bytes()
    assert replayed(path).to_json() == played[1].to_json()


def test_another_machine_may_differ_in_the_last_digits(played: tuple[Path, Results], tmp_path: Path) -> None:
    content = lines(played[0])
    nudge("model", 2, "beta", 1e-10)(content)
    for line in content:
        if line.get("request", {}).get("step") == 2:  # the other machine's nodes answered the other machine's request
            for reply in line["replies"].values():
                reply["request"] = Request.from_json(line["request"]).id
    assert replayed(write(tmp_path / "transcript.jsonl", content)).to_json() == played[1].to_json()


@pytest.mark.parametrize("data", [b"", b"\n", b"{}", b"[]", b"null\n", b"x", b"[" * 100_000, b'{"format":"ahh-transcript/1"}'])
def test_not_a_transcript(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    path.write_bytes(data)
    with pytest.raises(Breach):
        read_transcript(path)


@pytest.mark.parametrize("data", [None, b"\xff\xfe", "é".encode("latin-1")])
def test_not_a_text_file(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(Misuse, match="give the folder"):
        read_transcript(path)


def test_a_transcript_cut_off_is_a_breach(played: tuple[Path, Results], tmp_path: Path) -> None:
    data = played[0].read_bytes()
    for share in (0.1, 0.5, 0.9):
        path = tmp_path / "transcript.jsonl"
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(Breach):
            replayed(path)


def test_random_damage_is_a_breach_or_changes_nothing_else(played: tuple[Path, Results], tmp_path: Path) -> None:
    data, chance = played[0].read_bytes(), random.Random(5)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(32, 127)
        path = tmp_path / "transcript.jsonl"
        path.write_bytes(damaged)
        try:
            read_transcript(path)
        except AhhError as error:
            assert len(str(error)) < 500
