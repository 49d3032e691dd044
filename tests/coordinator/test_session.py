"""A session: rounds over any link, partners that drop out, and peers that lie."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Outcome, Session, Silent
from ahh_federated.coordinator.transcript import Exchange, Header
from ahh_federated.core.releases import Status
from ahh_federated.errors import AhhError, Breach
from ahh_federated.runtimes.local import ExactLink, LocalLink
from ahh_federated.study import Study
from ahh_federated.wire import Reply, Request, checked
from tests.study.samples import QUIET, TODAY, cohort, desk, small

STUDY = small(*QUIET)
NAMES = ("east", "north", "south")

Forge = Callable[[str, Request, Reply], Reply | None]


@dataclass
class Bent:
    """Real desks behind a link that changes replies on their way; None for a partner that is left out."""

    study: Study
    forge: Forge
    asked: list[tuple[Request, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        held = cohort(self.study, 400)
        desks = {name: desk(self.study, held, seed=3, run="+seed3", name=name, minimum=1) for name in NAMES}
        self.link = LocalLink(desks, TODAY)

    @property
    def partners(self) -> tuple[str, ...]:
        return self.link.partners

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        names = tuple(partners)
        self.asked.append((request, names))
        replies = {name: self.forge(name, request, reply) for name, reply in self.link.exchange(request, names).items()}
        return {name: reply for name, reply in replies.items() if reply is not None}


def honest(name: str, request: Request, reply: Reply) -> Reply:
    return reply


def outcomes(forge: Forge = honest, study: Study = STUDY) -> tuple[dict[str, Outcome], Bent, list[Exchange]]:
    link, recorded = Bent(study, forge), list[Exchange]()
    session = Session(study, link, recorded.append, Silent(), "+seed3")
    return {outcome.ask.id: outcome for outcome in session.outcomes()}, link, recorded


def only(partner: str, ask: str, step: int, change: Callable[[Request, Reply], Reply | None]) -> Forge:
    def forge(name: str, request: Request, reply: Reply) -> Reply | None:
        return change(request, reply) if (name, request.ask, request.step) == (partner, ask, step) else reply

    return forge


def says(status: Status) -> Callable[[Request, Reply], Reply]:
    return lambda request, reply: Reply(request.id, status)


def test_every_ask_is_answered_in_order_by_its_schedule() -> None:
    found, link, recorded = outcomes()
    assert list(found) == [ask.id for ask in STUDY.asks]
    assert {outcome.status for outcome in found.values()} == {Status.RELEASED}
    announced = [(ask.id, step, line.kind) for ask in STUDY.asks for step, line in enumerate(ask.analysis.schedule())]
    assert [(request.ask, request.step, request.kind) for request, _ in link.asked] == announced
    assert [exchange.request for exchange in recorded] == [request for request, _ in link.asked]
    assert {outcome.ask.id: outcome.messages for outcome in found.values()} == {
        ask.id: len(ask.analysis.schedule()) for ask in STUDY.asks
    }


@pytest.mark.parametrize("status", [Status.BELOW, Status.REFUSED, Status.FAILED, Status.OFFLINE])
@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_partner_that_drops_out_of_one_ask_is_asked_the_next(status: Status, step: int) -> None:
    found, link, _ = outcomes(only("north", "model", step, says(status)))
    assert found["model"].status is Status.RELEASED
    assert found["model"].coverage == {"east": Status.RELEASED, "north": status, "south": Status.RELEASED}
    asked = [names for request, names in link.asked if request.ask == "model"]
    assert asked == [NAMES] * (step + 1) + [("east", "south")] * (3 - step)
    assert found["model"].answer.partners == ("east", "south")
    assert found["evaluation"].coverage == dict.fromkeys(NAMES, Status.RELEASED)


def test_too_few_partners_end_the_ask_and_its_evaluation() -> None:
    def forge(name: str, request: Request, reply: Reply) -> Reply:
        gone = name != "south" and (request.ask, request.step) == ("model", 1)
        return Reply(request.id, Status.REFUSED, reason="budget") if gone else reply

    found, link, _ = outcomes(forge)
    assert (found["model"].status, found["model"].answer, found["model"].messages) == (Status.REFUSED, None, 2)
    assert "1 partners released, the study needs 2" in found["model"].reason
    assert "2 refused: budget" in found["model"].reason
    assert (found["evaluation"].status, found["evaluation"].messages) == (Status.FAILED, 0)
    assert found["evaluation"].reason == "the model 'model' has no answer"
    assert [request.ask for request, _ in link.asked].count("evaluation") == 0
    assert found["spread"].status is Status.RELEASED


def test_what_is_recorded_is_recorded_before_it_is_used() -> None:
    recorded: list[Exchange] = []
    wrong = only("north", "size", 0, lambda request, reply: dataclasses.replace(reply, sigma=reply.sigma + 1))
    session = Session(STUDY, Bent(STUDY, wrong), recorded.append, Silent(), "+seed3", strict=True)
    with pytest.raises(Breach):
        session.outcomes()
    assert [exchange.request.ask for exchange in recorded] == ["children"]


LIES: dict[str, Callable[[Request, Reply], Reply | None]] = {
    "no reply": lambda request, reply: None,
    "no numbers": lambda request, reply: dataclasses.replace(reply, cells=None),
    "too few numbers": lambda request, reply: dataclasses.replace(reply, cells=(reply.cells or b"")[:-8]),
    "half a number": lambda request, reply: dataclasses.replace(reply, cells=(reply.cells or b"")[:-3]),
    "too many numbers": lambda request, reply: dataclasses.replace(reply, cells=(reply.cells or b"") + bytes(8)),
    "less noise": lambda request, reply: dataclasses.replace(reply, sigma=reply.sigma - 1),
    "no noise": lambda request, reply: dataclasses.replace(reply, sigma=0),
    "an exact sum": lambda request, reply: Reply(request.id, Status.RELEASED, exact=np.zeros(len(reply.cells or b"") // 8)),
    "an exact sum of another width": lambda request, reply: Reply(request.id, Status.RELEASED, exact=np.zeros(1)),
    "an exact sum that is none": lambda request, reply: Reply(request.id, Status.RELEASED, exact=np.full(9, math.nan)),
}


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "no reply"])
@pytest.mark.parametrize(("ask", "step"), [("children", 0), ("model", 1), ("model", 2)])
def test_a_partner_that_lies_about_the_form_has_failed_alone(lie: str, ask: str, step: int) -> None:
    found, _, recorded = outcomes(only("north", ask, step, LIES[lie]))
    assert found[ask].coverage == {"east": Status.RELEASED, "north": Status.FAILED, "south": Status.RELEASED}
    assert found[ask].answer is not None
    reply = next(each for each in recorded if (each.request.ask, each.request.step) == (ask, step)).replies["north"]
    assert (reply.status, reply.cells, reply.exact) == (Status.FAILED, None, None)


@pytest.mark.parametrize("lie", LIES)
def test_in_a_replay_it_is_a_breach(lie: str) -> None:
    link = Bent(STUDY, only("north", "model", 1, LIES[lie]))
    with pytest.raises(Breach):
        Session(STUDY, link, lambda exchange: None, Silent(), "+seed3", strict=True).outcomes()


def test_a_link_that_answers_for_others_is_a_breach() -> None:
    class Generous(Bent):
        def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
            return {**super().exchange(request, partners), "west": Reply(request.id, Status.BELOW)}

    with pytest.raises(Breach, match="exactly the partners that were asked"):
        Session(STUDY, Generous(STUDY, honest), lambda exchange: None, Silent(), "+seed3").outcomes()


def test_a_reply_to_another_request_has_failed() -> None:
    asked = Request(STUDY.digest, "", "children", 0, "count/1", {})
    for other in ("", "0" * 64, dataclasses.replace(asked, step=1).id):
        assert checked(Reply(other, Status.BELOW).to_bytes(), asked).status is Status.FAILED
    assert checked(b"not a reply", asked).status is Status.FAILED
    assert checked(Reply(asked.id, Status.BELOW).to_bytes(), asked).status is Status.BELOW


def hostile(kind: str, chance: random.Random) -> Forge:
    """A partner that sends any numbers it likes, in the right form."""

    def forge(name: str, request: Request, reply: Reply) -> Reply:
        if name != "north" or reply.cells is None:
            return reply
        cells = np.frombuffer(reply.cells, "<i8").copy()
        if kind == "random":
            cells[:] = [chance.randrange(-(2**63), 2**63) for _ in cells]
        elif kind == "spread":
            cells[:] = [chance.choice([-1, 1]) * 2 ** chance.randrange(63) for _ in cells]
        else:
            cells[:] = {"largest": 2**63 - 1, "smallest": -(2**63), "zero": 0, "negative": -(2**40)}[kind]
        return dataclasses.replace(reply, cells=cells.astype("<i8").tobytes())

    return forge


@pytest.mark.parametrize("kind", ["largest", "smallest", "zero", "negative", *["random"] * 3, *["spread"] * 6])
def test_numbers_of_a_hostile_partner_break_nothing(kind: str) -> None:
    """They spoil the answer, as any partner can; they must not end the session in an unknown way."""
    try:
        found, _, recorded = outcomes(hostile(kind, random.Random(kind)))
    except AhhError:
        return
    results = Results(Header(STUDY, NAMES, "+seed3", False), list(found.values()), recorded, {}, "test")
    assert json.loads(json.dumps(results.to_json(), allow_nan=False))


@pytest.mark.parametrize("patients", [0, 1, 20])
def test_hardly_any_patients_break_nothing(patients: int) -> None:
    """All that a node may say is noise; an answer, or the lack of one, must come of it in an orderly way."""
    for seed in range(3):
        held = cohort(STUDY, patients)
        desks = {name: desk(STUDY, held, seed=seed, run="r", name=name, minimum=1) for name in NAMES}
        recorded: list[Exchange] = []
        found = Session(STUDY, LocalLink(desks, TODAY), recorded.append, Silent(), "r").outcomes()
        results = Results(Header(STUDY, NAMES, "r", False), found, recorded, {}, "test")
        assert json.loads(json.dumps(results.to_json(), allow_nan=False))


def test_an_exact_session_agrees_with_the_patients() -> None:
    held = cohort(STUDY, 400)
    session = Session(STUDY, ExactLink(STUDY, dict.fromkeys(NAMES, held)), lambda exchange: None, Silent(), exact=True)
    found = {outcome.ask.id: outcome for outcome in session.outcomes()}
    assert {outcome.status for outcome in found.values()} == {Status.RELEASED}
    mean = found["size"].answer.to_json()["columns"]["weight"]["mean"]["value"]
    assert mean == pytest.approx(np.nanmean(held["weight"]), rel=1e-9)


def test_what_a_partner_spent_is_what_its_ledger_says() -> None:
    """Also what was paid and not released: a failure after the debit, a count below the threshold."""
    found, link, recorded = outcomes()
    results = Results(Header(STUDY, NAMES, "+seed3", False), list(found.values()), recorded, {}, "test").to_json()
    for partner in results["partners"]:
        spent = link.link.desks[partner["name"]].ledger.spent()
        assert partner["epsilon_study"] == pytest.approx(spent.epsilon(STUDY.budget.delta), rel=1e-9)


@pytest.mark.parametrize("status", [Status.BELOW, Status.FAILED])
def test_what_was_paid_and_not_released_is_counted(status: Status) -> None:
    found, link, recorded = outcomes(lambda name, request, reply: Reply(request.id, status) if name == "north" else reply)
    results = Results(Header(STUDY, NAMES, "+seed3", False), list(found.values()), recorded, {}, "test").to_json()
    north = next(partner for partner in results["partners"] if partner["name"] == "north")
    assert north["epsilon_study"] >= link.link.desks["north"].ledger.spent().epsilon(STUDY.budget.delta) * (1 - 1e-9)
