"""Proposals and decisions: one byte changed, an edited file or a forged signature is no approval."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.errors import AhhError, Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node import stewardship
from ahh_federated.node.home import NodeHome, create_home
from ahh_federated.node.policy import allow
from ahh_federated.node.stewardship import decide, decision, find, proposals, propose, recall
from ahh_federated.study import canonical, read_canonical
from tests.study.samples import TEXT, TODAY, small

STUDY = small()
CONTENT = canonical(STUDY.content)
NEXT = small(("version = 1", "version = 2"))


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    made = create_home(tmp_path / "node", "north")
    allow(made.policy_path, [*STUDY.columns, "seen"])
    return made


def approve(home: NodeHome, digest: str = STUDY.digest, **how: object) -> stewardship.Decision:
    return decide(home, digest, "approved", by="An", today=TODAY, **how)


def complaint(act: object) -> str:
    with pytest.raises(AhhError) as caught:
        act()
    return f"{type(caught.value).__name__}: {caught.value}"


def test_a_proposal_is_kept_as_it_came(home: NodeHome) -> None:
    proposal = propose(home, CONTENT, "harbour")
    assert (proposal.consortium, proposal.decision) == ("harbour", None)
    assert proposal.study.digest == STUDY.digest
    assert proposal.study.expires == STUDY.expires
    assert (home.studies / f"{STUDY.digest}.json").read_bytes() == CONTENT
    for again in (propose(home, CONTENT, "harbour"), propose(home, CONTENT, "another"), recall(home, STUDY.digest)):
        assert again is not None
        assert (again.consortium, again.received, again.decision) == ("harbour", proposal.received, None)
        assert again.study.digest == STUDY.digest
    assert [each.study.digest for each in proposals(home)] == [STUDY.digest]


def test_a_study_handed_over_as_a_file_is_the_one_that_comes_later(home: NodeHome) -> None:
    assert propose(home, CONTENT, "").consortium == ""
    made = approve(home)
    proposal = propose(home, CONTENT, "harbour")
    assert (proposal.consortium, proposal.decision) == ("harbour", made)
    assert propose(home, CONTENT, "").consortium == "harbour"


BAD = {
    "empty": (b"", "is not a study as canonical JSON"),
    "toml": (TEXT.encode(), "is not a study as canonical JSON"),
    "spaces": (CONTENT.replace(b'":', b'": ', 1), "is not in its canonical form"),
    "twice": (CONTENT.replace(b'{"ask"', b'{"zz":1,"ask"').replace(b'"zz":1,', b'"study":1,', 1), "canonical"),
    "no-study": (b"{}", "is not a study as canonical JSON"),
    "list": (b"[]", "is not a study as canonical JSON"),
    "deep": (b"[" * 100_000, "is not a study as canonical JSON"),
    "large": (b" " * ((1 << 20) + 1), "is larger than a megabyte"),
    "no-day": (CONTENT.replace(b"2030-12-31", b"2030-13-31"), "is not a study as canonical JSON"),
    "other-day": (CONTENT.replace(b"2030-12-31", b"20301231"), "is not in its canonical form"),
    "unknown-key": (CONTENT.replace(b'"version":1', b'"version":1,"zz":1'), "is not a known key"),
    "nan": (CONTENT.replace(b'"epsilon":2.0', b'"epsilon":NaN'), "epsilon"),
    "hidden": (CONTENT.replace(b"Growth of", "Growth\u202e of".encode()), "control character"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_study_is_not_kept(home: NodeHome, name: str) -> None:
    content, says = BAD[name]
    assert content != CONTENT
    said = complaint(lambda: propose(home, content, "harbour"))
    assert said.startswith("Misuse") and says in said
    assert list(home.studies.iterdir()) == []


@given(place=st.integers(0, len(CONTENT) - 1), byte=st.integers(0, 255))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_one_byte_changed_is_another_study_or_none(place: int, byte: int) -> None:
    changed = CONTENT[:place] + bytes([byte]) + CONTENT[place + 1 :]
    try:
        study = read_canonical(changed)
    except Misuse:
        return
    assert (study.digest == STUDY.digest) == (changed == CONTENT)


def test_a_coordinator_cannot_fill_the_disk(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stewardship, "MOST_WAITING", 1)
    propose(home, CONTENT, "harbour")
    assert "1 studies wait for a decision" in complaint(lambda: propose(home, canonical(NEXT.content), "harbour"))
    propose(home, CONTENT, "harbour")
    approve(home)
    propose(home, canonical(NEXT.content), "harbour")


def test_what_one_consortium_left_waiting_does_not_block_another(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stewardship, "MOST_WAITING", 2)
    studies = [canonical(small(("version = 1", f"version = {k}")).content) for k in range(1, 10)]
    for consortium in ("harbour", "haven", ""):
        for _ in range(2):
            propose(home, studies.pop(), consortium)
        assert "2 studies wait for a decision" in complaint(lambda consortium=consortium: propose(home, studies[-1], consortium))
    assert len(proposals(home)) == 6
    waits = [each for each in proposals(home) if each.consortium == "haven"]
    decide(home, waits[0].study.digest, "refused", by="An")
    assert propose(home, studies.pop(), "haven").consortium == "haven"
    assert "2 studies wait" in complaint(lambda: propose(home, studies[-1], "harbour"))


def test_a_study_is_found_by_id_digest_or_file(home: NodeHome, tmp_path: Path) -> None:
    path = tmp_path / "growth.toml"
    path.write_text(TEXT)
    assert find(home, str(path)).received == ""
    assert "no study 'growth' was proposed here" in complaint(lambda: find(home, "growth"))
    propose(home, CONTENT, "harbour")
    for name in ("growth", STUDY.digest, STUDY.digest[:6], str(path)):
        assert find(home, name).consortium == "harbour"
    assert "(growth)" in complaint(lambda: find(home, STUDY.digest[:5]))
    propose(home, canonical(NEXT.content), "harbour")
    said = complaint(lambda: find(home, "growth"))
    assert "names 2 studies" in said
    assert f"{STUDY.digest[:12]} (version 1)" in said and f"{NEXT.digest[:12]} (version 2)" in said
    assert "cannot be read" in complaint(lambda: find(home, str(tmp_path / "absent.toml")))
    assert "no study '../x' " in complaint(lambda: find(home, "../x")) or "cannot be read" in complaint(
        lambda: find(home, "../x")
    )


def test_an_approval_is_signed_kept_and_logged(home: NodeHome) -> None:
    propose(home, CONTENT, "harbour")
    assert decision(home, STUDY.digest) is None
    made = approve(home, ceiling=1.5, expires=date(2028, 1, 1))
    assert decision(home, STUDY.digest) == made
    assert (made.verdict, made.ceiling, made.expires, made.by) == ("approved", 1.5, date(2028, 1, 1), "An")
    last = list(home.audit.entries())[-1]
    assert (last["event"], last["study"], last["ceiling"], last["until"], last["by"]) == (
        "approved",
        STUDY.digest,
        1.5,
        "2028-01-01",
        "An",
    )


def test_without_more_the_study_says_how_much_and_until_when(home: NodeHome) -> None:
    propose(home, CONTENT, "harbour")
    made = approve(home, expires=date(2099, 1, 1))
    assert (made.ceiling, made.expires) == (STUDY.budget.epsilon, STUDY.expires)


def test_approved_refused_revoked(home: NodeHome) -> None:
    propose(home, CONTENT, "harbour")
    assert "nothing to revoke" in complaint(lambda: decide(home, STUDY.digest, "revoked", by="An"))
    assert decide(home, STUDY.digest, "refused", by="An").verdict == "refused"
    assert "nothing to revoke" in complaint(lambda: decide(home, STUDY.digest, "revoked", by="An"))
    approve(home, ceiling=1.0)
    made = decide(home, STUDY.digest, "revoked", by="Bo")
    assert (made.verdict, made.ceiling) == ("revoked", 1.0)
    assert decision(home, STUDY.digest) == made
    assert [entry["event"] for entry in home.audit.entries()][-3:] == ["refused", "approved", "revoked"]


def test_what_makes_no_sense_is_not_approved(home: NodeHome) -> None:
    assert "no study" in complaint(lambda: approve(home))
    assert "64 hexadecimal digits" in complaint(lambda: approve(home, "../../etc/passwd"))
    propose(home, CONTENT, "harbour")
    for ceiling in (0.0, -1.0, 11.0, float("nan"), float("inf")):
        assert "is not an epsilon" in complaint(lambda ceiling=ceiling: approve(home, ceiling=ceiling))
    with pytest.raises(Refusal) as caught:
        approve(home, expires=date(2026, 12, 31))
    assert caught.value.reason == Reason.EXPIRED
    assert decision(home, STUDY.digest) is None
    assert [entry["event"] for entry in home.audit.entries()] == ["init"]


def test_the_policy_stands_above_the_steward(home: NodeHome) -> None:
    propose(home, CONTENT, "harbour")
    allow(home.policy_path, ["sex", "weight"])
    with pytest.raises(Refusal, match=r"outside the policy \(bmi, smoked, seen\): add them to columns.allowed") as caught:
        approve(home)
    assert caught.value.reason == Reason.COLUMN
    allow(home.policy_path, [*STUDY.columns, "seen"])
    home.policy_path.write_text(home.policy_path.read_text().replace("organisations = []", 'organisations = ["Elsewhere"]'))
    assert "the organisation 'A university' may not ask here" in complaint(lambda: approve(home))
    decide(home, STUDY.digest, "refused", by="An")


def test_an_edited_decision_is_none(home: NodeHome) -> None:
    propose(home, CONTENT, "harbour")
    made = decide(home, STUDY.digest, "refused", by="An")
    path = home.studies / f"{STUDY.digest}.decision.json"
    sound = path.read_bytes()
    other = Key.create(home.path / "other.key")
    forged = replace(made, verdict="approved")
    forged = replace(forged, signature=other.sign("ahh-decision/1", forged.spelled()))
    edits = [
        sound.replace(b'"refused"', b'"approved"'),
        sound.replace(b'"ceiling":2.0', b'"ceiling":9.0'),
        sound.replace(b'"ceiling":2.0', b'"ceiling":true'),
        sound.replace(b"2030", b"2031"),
        sound.replace(b'"An"', b'"Bo"'),
        sound[:-1],
        b"",
        b"{}",
        b"[]",
        canonical({**json.loads(sound), "more": 1}),
        canonical(asdict(forged)),
        canonical({**json.loads(sound), "signature": home.key.sign("ahh-receipt/1", made.spelled())}),
    ]
    for edited in edits:
        assert edited != sound
        path.write_bytes(edited)
        with pytest.raises(Refusal, match="is not as this node signed it") as caught:
            decision(home, STUDY.digest)
        assert caught.value.reason == Reason.APPROVAL
    path.write_bytes(sound)
    assert decision(home, STUDY.digest) == made


def test_the_decision_on_one_study_is_none_on_another(home: NodeHome) -> None:
    for study in (STUDY, NEXT):
        propose(home, canonical(study.content), "harbour")
    approve(home)
    text = (home.studies / f"{STUDY.digest}.decision.json").read_bytes()
    (home.studies / f"{NEXT.digest}.decision.json").write_bytes(text)
    with pytest.raises(Refusal) as caught:
        decision(home, NEXT.digest)
    assert caught.value.reason == Reason.APPROVAL


def test_a_proposal_changed_on_the_disk_is_refused(home: NodeHome) -> None:
    propose(home, CONTENT, "harbour")
    path = home.studies / f"{STUDY.digest}.json"
    path.write_bytes(CONTENT.replace(b'"epsilon":2.0', b'"epsilon":3.0'))
    with pytest.raises(Refusal, match="was changed after it came") as caught:
        recall(home, STUDY.digest)
    assert caught.value.reason == Reason.STUDY
    (home.studies / f"{STUDY.digest}.origin.json").write_text("[]")
    assert "was changed after it came" in complaint(lambda: recall(home, STUDY.digest))
    path.write_bytes(CONTENT)
    for origin in ("[]", "", "{}", "[" * 100_000):
        (home.studies / f"{STUDY.digest}.origin.json").write_text(origin)
        assert "the origin of" in complaint(lambda: recall(home, STUDY.digest))


def test_unknown_digests_are_unknown(home: NodeHome) -> None:
    for digest in ("", "0" * 64, "../node", "A" * 64):
        assert recall(home, digest) is None
