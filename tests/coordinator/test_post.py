"""The post believes a signature and nothing else, asks again what was lost, and waits for nobody for ever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.audit import Audit
from ahh_federated.coordinator import post as post_module
from ahh_federated.coordinator.post import Post, SignedLink
from ahh_federated.coordinator.witness import Witness
from ahh_federated.core.releases import Status
from ahh_federated.errands import ASK, PROPOSE, Call, Checkpoint, Receipt, Standing
from ahh_federated.identity import Key
from ahh_federated.wire import Reply, Request
from tests.coordinator.carriers import Clock, Wire
from tests.node.nodes import CONSORTIUM, STUDY, approve, node, reception, spelled, spent
from tests.study.samples import request

ASKED = request(STUDY, "children")
BODY = ASKED.to_bytes()
RELEASED = Reply(ASKED.id, Status.RELEASED, 7, b"\0" * 8).to_bytes()
REFUSED = Reply(ASKED.id, Status.REFUSED, reason="budget").to_bytes()
NAMES = ("east", "north", "south")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    folder = tmp_path_factory.mktemp("keys")
    return {name: Key.create(folder / name) for name in (*NAMES, "stranger")}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(post_module, "time", made)
    return made


def mark(key: Key, seq: int = 5, mu_squared: float = 0.5) -> Checkpoint:
    ancestors = ((seq - 1, f"{seq - 1:016x}"),)
    marked = Checkpoint(key.fingerprint, key.public, seq, f"{seq:064x}", ancestors, mu_squared, 1e-9, 1.0, 4.0, 1e-6)
    return marked.signed(key)


def signer(key: Key, body: bytes = RELEASED, **fields: Any) -> Callable[[bytes], bytes]:
    """A node that answers every call with this body, signed."""

    def answer(data: bytes) -> bytes:
        content = {"node": key.fingerprint, "call": Call.from_bytes(data).id, "body": body, "checkpoint": mark(key), **fields}
        return Receipt(**content).signed(key).to_bytes()

    return answer


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    made = Witness(tmp_path / "coordinator.db")
    yield made
    made.close()


@pytest.fixture
def post(tmp_path: Path, keys: dict[str, Key], witness: Witness) -> Post:
    wire = Wire({name: signer(keys[name]) for name in NAMES})
    roster = {name: keys[name].public for name in NAMES}
    return Post(CONSORTIUM, wire, roster, witness, Audit(tmp_path / "audit.jsonl"))


def wire(post: Post) -> Wire:
    assert isinstance(post.carrier, Wire)
    return post.carrier


def ask(post: Post, deadline: float = 600.0, partners: tuple[str, ...] = NAMES) -> dict[str, bytes | Status]:
    return post.call(ASK, STUDY.digest, BODY, partners, deadline)


def rejected(post: Post) -> list[str]:
    return [str(entry["partner"]) for entry in post.audit.entries() if entry["event"] == "receipt.rejected"]


def test_every_partner_is_asked_once_and_believed(post: Post, witness: Witness, keys: dict[str, Key]) -> None:
    assert ask(post) == dict.fromkeys(NAMES, RELEASED)
    assert [name for name, _ in wire(post).sent] == list(NAMES)
    calls = [Call.from_bytes(data) for _, data in wire(post).sent]
    assert len({call.attempt for call in calls}) == 3
    assert {(call.consortium, call.action, call.study, call.body) for call in calls} == {(CONSORTIUM, ASK, STUDY.digest, BODY)}
    assert {each.node for each in witness.all()} == {keys[name].fingerprint for name in NAMES}
    ask(post)
    assert {Call.from_bytes(data).witness for _, data in wire(post).sent[3:]} == set(witness.all())


FORGERIES: dict[str, Callable[[dict[str, Key]], Callable[[bytes], bytes | None]]] = {
    "signed by a stranger": lambda keys: signer(keys["stranger"]),
    "signed by a stranger in north's name": lambda keys: signer(keys["stranger"], node=keys["north"].fingerprint),
    "signed by south": lambda keys: signer(keys["south"]),
    "signed by south in north's name": lambda keys: signer(keys["south"], node=keys["north"].fingerprint),
    "for another call": lambda keys: signer(keys["north"], call="0" * 64),
    "a stranger's checkpoint": lambda keys: signer(keys["north"], checkpoint=mark(keys["stranger"])),
    "a forged checkpoint": lambda keys: signer(keys["north"], checkpoint=dataclasses.replace(mark(keys["north"]), seq=9)),
    "a stranger's checkpoint in north's name": lambda keys: signer(
        keys["north"],
        checkpoint=dataclasses.replace(mark(keys["stranger"]), node=keys["north"].fingerprint).signed(keys["stranger"]),
    ),
    "north's checkpoint in a stranger's name": lambda keys: signer(
        keys["north"],
        checkpoint=dataclasses.replace(
            mark(keys["north"]), node=keys["stranger"].fingerprint, public=keys["stranger"].public
        ).signed(keys["north"]),
    ),
    "a release without a checkpoint": lambda keys: signer(keys["north"], checkpoint=None),
    "another body": lambda keys: lambda data: signer(keys["north"])(data).replace(b'"body":"ey', b'"body":"fy'),
    "not signed": lambda keys: (
        lambda data: dataclasses.replace(Receipt.from_bytes(signer(keys["north"])(data)), signature="").to_bytes()
    ),
    "junk": lambda keys: lambda data: b"\0junk",
    "empty": lambda keys: lambda data: b"",
    "the call itself": lambda keys: lambda data: data,
    "deep": lambda keys: lambda data: b"[" * 100_000,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_receipt_that_does_not_hold_is_that_partners_failure_alone(post: Post, keys: dict[str, Key], forgery: str) -> None:
    wire(post).nodes = {**wire(post).nodes, "north": FORGERIES[forgery](keys)}
    assert ask(post) == {"east": RELEASED, "north": Status.FAILED, "south": RELEASED}
    assert rejected(post) == ["north"]


def test_one_partner_cannot_answer_for_another(post: Post) -> None:
    """The carrier gives each of two the other's receipt."""
    nodes = wire(post).nodes
    wire(post).nodes = {**nodes, "north": nodes["south"], "south": nodes["north"]}
    assert ask(post) == {"east": RELEASED, "north": Status.FAILED, "south": Status.FAILED}


@pytest.mark.parametrize("other", ["attempt", "round", "study", "action", "consortium"])
def test_a_receipt_of_an_earlier_call_is_refused(post: Post, keys: dict[str, Key], other: str) -> None:
    kept: list[bytes] = []
    honest = signer(keys["north"])
    wire(post).nodes = {**wire(post).nodes, "north": lambda data: kept.append(honest(data)) or kept[0]}
    earlier = {"body": b"{}"} if other == "round" else {"study": "0" * 64} if other == "study" else {}
    if other == "consortium":
        dataclasses.replace(post, consortium="haven").call(ASK, STUDY.digest, BODY, ["north"], 9.0)
    else:
        action = PROPOSE if other == "action" else ASK
        post.call(action, earlier.get("study", STUDY.digest), earlier.get("body", BODY), ["north"], 9.0)
    assert ask(post)["north"] is Status.FAILED


def test_a_release_from_a_ledger_with_less_spent_than_was_seen_is_refused(
    post: Post, keys: dict[str, Key], witness: Witness
) -> None:
    north = keys["north"]
    witness.keep(mark(north, seq=4, mu_squared=0.75))
    assert ask(post)["north"] is Status.FAILED
    latest = witness.latest(north.fingerprint)
    assert latest is not None and latest.mu_squared == 0.75
    wire(post).nodes = {**wire(post).nodes, "north": signer(north, REFUSED)}
    assert ask(post)["north"] == REFUSED


def test_a_ledger_that_burned_what_it_lost_goes_on_from_a_lower_entry(post: Post, keys: dict[str, Key], witness: Witness) -> None:
    witness.keep(mark(keys["north"], seq=50, mu_squared=0.4))
    assert ask(post)["north"] == RELEASED
    latest = witness.latest(keys["north"].fingerprint)
    assert latest is not None and latest.seq == 5


def test_a_refusal_may_come_without_a_checkpoint(post: Post, keys: dict[str, Key]) -> None:
    """A node whose ledger is gone has none to show."""
    wire(post).nodes = {**wire(post).nodes, "north": signer(keys["north"], REFUSED, checkpoint=None)}
    assert ask(post)["north"] == REFUSED


def test_checkpoints_that_a_node_kept_of_others_are_believed_by_signature(
    post: Post, keys: dict[str, Key], witness: Witness
) -> None:
    south, newer = keys["south"], mark(keys["south"], seq=40, mu_squared=0.9)
    forged = dataclasses.replace(mark(keys["east"], seq=90), mu_squared=9.0)
    planted = dataclasses.replace(mark(keys["stranger"], mu_squared=9.0), node=south.fingerprint)
    older = mark(south, seq=90, mu_squared=0.8)
    kept = (forged, mark(keys["stranger"]), newer, older, planted, planted.signed(keys["stranger"]))
    wire(post).nodes = {"north": signer(keys["north"], kept=kept)}
    assert ask(post, partners=("north",)) == {"north": RELEASED}
    assert witness.latest(south.fingerprint) == newer
    assert {each.node for each in witness.all()} == {keys["north"].fingerprint, south.fingerprint}


def test_a_node_that_brings_thousands_of_made_up_ones_fills_nothing(post: Post, keys: dict[str, Key], witness: Witness) -> None:
    """A checkpoint names its own key, so anybody can make a valid one: of a member alone it is believed."""
    kept = tuple(mark(keys["stranger"], seq=seq) for seq in range(1, 1001))
    wire(post).nodes = {"north": signer(keys["north"], kept=kept)}
    assert ask(post, partners=("north",)) == {"north": RELEASED}
    assert [each.node for each in witness.all()] == [keys["north"].fingerprint]


def test_a_proposal_brings_the_others_newest_and_the_nodes_own(post: Post, keys: dict[str, Key], witness: Witness) -> None:
    marks = {name: mark(keys[name], seq=seq, mu_squared=0.4) for seq, name in enumerate((*NAMES, "stranger"), 4)}
    for name, each in marks.items():
        witness.keep(dataclasses.replace(each, seq=3, mu_squared=0.3).signed(keys[name]))
        witness.keep(each)
    post.propose(STUDY.digest, spelled(), ["north"], 9.0)
    call = Call.from_bytes(wire(post).sent[0][1])
    assert (call.witness, set(call.kept)) == (marks["north"], {marks["east"], marks["south"]})
    ask(post)
    for call in (Call.from_bytes(data) for _, data in wire(post).sent[1:]):
        assert call.kept == ()


def test_whoever_left_is_handed_on_no_more(post: Post, keys: dict[str, Key], witness: Witness) -> None:
    for name in NAMES:
        witness.keep(mark(keys[name]))
    post.roster = {name: keys[name].public for name in ("east", "north")}
    post.propose(STUDY.digest, spelled(), ["north"], 9.0)
    assert Call.from_bytes(wire(post).sent[0][1]).kept == (mark_of(witness, keys["east"]),)


def mark_of(witness: Witness, key: Key) -> Checkpoint:
    found = witness.latest(key.fingerprint)
    assert found is not None
    return found


def test_a_coordinator_that_lost_its_checkpoints_has_them_back_from_the_nodes(
    post: Post, tmp_path: Path, keys: dict[str, Key], witness: Witness
) -> None:
    """And a node whose ledger is the older copy is then not believed."""
    home = node(tmp_path)
    asked = reception(home)
    post.roster = {**post.roster, "north": home.key.public}
    wire(post).nodes = {**wire(post).nodes, "north": lambda data: asked.answer(CONSORTIUM, data)}
    newest = mark(keys["south"], seq=40, mu_squared=0.9)
    witness.keep(newest)
    post.propose(STUDY.digest, spelled(), ["north"], 9.0)
    with closing(Witness(tmp_path / "lost.db")) as empty:
        lost = dataclasses.replace(post, witness=empty)
        lost.propose(STUDY.digest, spelled(), ["north"], 9.0)
        assert empty.latest(keys["south"].fingerprint) == newest
        assert ask(lost, partners=("south",)) == {"south": Status.FAILED}


STANDINGS: list[tuple[bytes, object]] = [
    (Standing(STUDY.digest, "approved").to_bytes(), Standing(STUDY.digest, "approved")),
    (Standing(STUDY.digest, "pending", "paused").to_bytes(), Standing(STUDY.digest, "pending", "paused")),
    (Standing("0" * 64, "approved").to_bytes(), Status.FAILED),
    (Standing(STUDY.digest, "yes").to_bytes(), Status.FAILED),
    (RELEASED, Status.FAILED),
    (b"", Status.FAILED),
]


@pytest.mark.parametrize(("body", "said"), STANDINGS)
def test_a_standing_is_about_the_study_proposed(post: Post, keys: dict[str, Key], body: bytes, said: object) -> None:
    wire(post).nodes = {"north": signer(keys["north"], body)}
    assert post.propose(STUDY.digest, spelled(), ["north"], 9.0) == {"north": said}


@pytest.mark.parametrize("lost", [1, 4])
@pytest.mark.parametrize("how", [None, ...], ids=["no reply will come", "nothing comes"])
def test_what_was_lost_is_asked_again(post: Post, lost: int, how: object) -> None:
    wire(post).fate = lambda partner, number, reply: how if number < lost and partner == "north" else reply
    assert ask(post) == dict.fromkeys(NAMES, RELEASED)
    assert [wire(post).to(name) for name in NAMES] == [1, lost + 1, 1]
    calls = [Call.from_bytes(data) for name, data in wire(post).sent if name == "north"]
    assert len({call.attempt for call in calls}) == lost + 1
    assert {call.body for call in calls} == {BODY}


def test_a_partner_that_cannot_answer_has_failed_after_some_attempts(post: Post, clock: Clock) -> None:
    began = clock.now
    wire(post).fate = lambda partner, number, reply: None if partner == "north" else reply
    assert ask(post) == {"east": RELEASED, "north": Status.FAILED, "south": RELEASED}
    assert wire(post).to("north") == 5
    assert 10 < clock.now - began < 60


def test_a_late_answer_to_an_earlier_attempt_counts(post: Post) -> None:
    carrier = wire(post)
    carrier.fate = lambda partner, number, reply: (
        ... if partner == "north" and number == 0 else None if partner == "north" else reply
    )

    def arrive(now: float) -> None:
        late = [ticket for ticket, reply in carrier.replies.items() if reply is ...]
        if carrier.to("north") == 3 and late:
            carrier.replies[late[0]] = carrier.nodes["north"](carrier.sent[int(late[0]) - 1][1])

    post_module.time.during = arrive
    assert ask(post)["north"] == RELEASED


def test_an_answer_in_the_very_moment_of_the_deadline_counts(post: Post, clock: Clock) -> None:
    """It was paid for."""
    began, carrier = clock.now, wire(post)
    carrier.fate = lambda partner, number, reply: ... if partner == "north" else reply

    def arrive(now: float) -> None:
        if now - began >= 9.0:
            carrier.replies = {
                ticket: carrier.nodes["north"](carrier.sent[int(ticket) - 1][1]) if reply is ... else reply
                for ticket, reply in carrier.replies.items()
            }

    clock.during = arrive
    assert ask(post, deadline=9.0) == dict.fromkeys(NAMES, RELEASED)


def test_nobody_is_waited_for_beyond_the_deadline(post: Post, clock: Clock) -> None:
    began = clock.now
    wire(post).fate = lambda partner, number, reply: ... if partner == "north" else reply
    assert ask(post, deadline=100.0) == {"east": RELEASED, "north": Status.OFFLINE, "south": RELEASED}
    assert clock.now - began < 101


def test_a_partner_that_is_away_is_waited_for_as_long_as_the_grace(post: Post, clock: Clock) -> None:
    began = clock.now
    wire(post).down = {"north"}
    assert ask(post) == {"east": RELEASED, "north": Status.OFFLINE, "south": RELEASED}
    assert post.grace < clock.now - began < post.grace + 1
    assert wire(post).to("north") == 0
    again = clock.now
    assert ask(post)["north"] is Status.OFFLINE
    assert clock.now - again < 1


def test_one_that_comes_back_in_time_is_asked(post: Post, clock: Clock) -> None:
    carrier, began = wire(post), clock.now
    carrier.down = {"north"}
    clock.during = lambda now: carrier.down.clear() if now - began > 20 else None
    assert ask(post) == dict.fromkeys(NAMES, RELEASED)


def test_one_that_goes_away_in_the_middle_is_offline_after_the_grace(post: Post, clock: Clock) -> None:
    carrier, began = wire(post), clock.now
    carrier.fate = lambda partner, number, reply: ... if partner == "north" else reply
    clock.during = lambda now: carrier.down.add("north") if now - began > 10 else None
    assert ask(post)["north"] is Status.OFFLINE
    assert 10 + post.grace - 1 < clock.now - began < 10 + post.grace + 1


def test_a_partner_that_is_not_in_the_roster_is_never_called(post: Post, keys: dict[str, Key]) -> None:
    wire(post).nodes = {**wire(post).nodes, "stranger": signer(keys["stranger"])}
    assert ask(post, partners=(*NAMES, "stranger"))["stranger"] is Status.OFFLINE
    assert wire(post).to("stranger") == 0


class Halted(Exception):
    pass


def test_a_study_that_is_to_stop_stops_while_waiting(post: Post, clock: Clock) -> None:
    began = clock.now

    def halt() -> None:
        if clock.now - began > 5:
            raise Halted

    post.halt = halt
    wire(post).fate = lambda partner, number, reply: ...
    with pytest.raises(Halted):
        ask(post)
    assert clock.now - began < 6


def test_a_link_gives_each_reply_to_its_request(post: Post, keys: dict[str, Key]) -> None:
    other = Reply("0" * 64, Status.RELEASED, 7, b"\0" * 8).to_bytes()
    wire(post).nodes = {"east": signer(keys["east"]), "north": signer(keys["north"], other), "south": lambda data: None}
    link = SignedLink(post, NAMES, 600.0)
    found = link.exchange(ASKED, NAMES)
    assert {name: reply.status for name, reply in found.items()} == {
        "east": Status.RELEASED,
        "north": Status.FAILED,
        "south": Status.FAILED,
    }
    assert {reply.request for reply in found.values()} == {ASKED.id}


def test_a_real_node_is_asked_again_and_pays_once(post: Post, tmp_path: Path) -> None:
    home = node(tmp_path)
    approve(home)
    asked = reception(home)
    post.roster = {"north": home.key.public}
    wire(post).nodes = {"north": lambda data: asked.answer(CONSORTIUM, data)}
    wire(post).fate = lambda partner, number, reply: None if number < 3 else reply
    found = SignedLink(post, ("north",), 600.0).exchange(ASKED, ["north"])
    assert found["north"].status is Status.RELEASED
    assert (wire(post).to("north"), spent(home)[1:]) == (4, (1, 1))
    later = dataclasses.replace(ASKED, parameters={"x": [1.0]})
    assert SignedLink(post, ("north",), 600.0).exchange(later, ["north"])["north"].reason == "query"
    assert isinstance(later, Request)
