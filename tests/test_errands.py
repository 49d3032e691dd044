"""Calls, receipts and checkpoints: one spelling each, every field under the signature, and bound to exactly one call."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ahh_federated.core.releases import Status
from ahh_federated.encoding import dump, load, raw, text
from ahh_federated.errands import ASK, PROPOSE, Call, Checkpoint, Receipt, Standing, compatible, newest
from ahh_federated.errors import Breach, Reason
from ahh_federated.identity import Key
from ahh_federated.wire import Reply

Json = dict[str, Any]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "node.key")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key.create(tmp_path_factory.mktemp("keys") / "other.key")


def checkpoint(key: Key, **fields: Any) -> Checkpoint:
    about = {
        "node": key.fingerprint,
        "public": key.public,
        "seq": 7,
        "hash": "ab" * 32,
        "ancestors": ((5, "cd" * 8), (6, "ef" * 8)),
    }
    spent = {"mu_squared": 0.5, "slack": 1e-9, "epsilon": 2.0, "epsilon_limit": 4.0, "delta_limit": 1e-6}
    return Checkpoint(**{**about, **spent, **fields}).signed(key)


def call(key: Key, **fields: Any) -> Call:
    content = {"consortium": "harbour", "action": ASK, "study": "0" * 64, "attempt": "1", "body": b"{}"}
    return Call(**{**content, "witness": checkpoint(key), "kept": (checkpoint(key, seq=3),), **fields})


def receipt(key: Key, to: Call, **fields: Any) -> Receipt:
    content = {"node": key.fingerprint, "call": to.id, "body": b"a body", "checkpoint": checkpoint(key), "kept": ()}
    return Receipt(**{**content, **fields}).signed(key)


def test_what_is_sent_comes_back_the_same(key: Key) -> None:
    for asked in (call(key), call(key, witness=None, kept=(), action=PROPOSE, body=bytes(range(256)))):
        assert Call.from_bytes(asked.to_bytes()) == asked
        for made in (receipt(key, asked), receipt(key, asked, checkpoint=None, kept=(checkpoint(key),), body=b"")):
            assert Receipt.from_bytes(made.to_bytes()) == made
            made.check(key.public, asked)
    for standing, reason in (("approved", ""), ("pending", "paused"), ("refused", "column")):
        assert Standing.from_bytes(Standing("x", standing, reason).to_bytes()) == Standing("x", standing, reason)


MESSAGES: dict[str, Callable[[Key], tuple[bytes, Callable[[bytes], object]]]] = {
    "call": lambda key: (call(key).to_bytes(), Call.from_bytes),
    "receipt": lambda key: (receipt(key, call(key)).to_bytes(), Receipt.from_bytes),
    "standing": lambda key: (Standing("x", "approved").to_bytes(), Standing.from_bytes),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_there_is_one_spelling(message: str, key: Key) -> None:
    data, read = MESSAGES[message](key)
    content = json.loads(data)
    others = [
        b" " + data,
        data + b"\n",
        json.dumps(content, sort_keys=True).encode(),
        json.dumps(dict(reversed(content.items())), separators=(",", ":")).encode(),
        data.replace(b"{", b'{"format":"x",', 1),
        data.replace(b'"ahh', b'"\\u0061hh', 1),
        data.decode().encode("utf-16"),
        b"\xef\xbb\xbf" + data,
        b"",
        b"null",
        b"[]",
    ]
    for each in others:
        with pytest.raises(Breach):
            read(each)
    read(data)


@pytest.mark.parametrize("message", MESSAGES)
def test_nothing_may_lack_or_be_there_besides(message: str, key: Key) -> None:
    data, read = MESSAGES[message](key)
    content = json.loads(data)
    for name in content:
        with pytest.raises(Breach):
            read(dump({each: value for each, value in content.items() if each != name}))
    with pytest.raises(Breach):
        read(dump({**content, "more": 1}))
    with pytest.raises(Breach):
        read(dump({**content, "format": content["format"].replace("/1", "/2")}))


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("value", [7, 0.5, True, [], {}, ["x"], {"x": 1}, "x" * 201, "\ud800" * 201, [[[]]], -1, 10**40])
def test_a_value_of_another_kind_is_a_breach(message: str, value: Any, key: Key) -> None:
    data, read = MESSAGES[message](key)
    content = json.loads(data)
    for name in content:
        if (name, value) not in (("kept", []), ("body", "x" * 201)):
            with pytest.raises(Breach):
                read(dump({**content, name: value}))


@pytest.mark.parametrize("body", ["A", "AAA", "AB==", "AAAA\n", " AAAA", "AA=A", "é", None])
def test_a_body_has_one_spelling_in_base64(body: Any, key: Key) -> None:
    content = json.loads(call(key).to_bytes())
    with pytest.raises(Breach):
        Call.from_bytes(dump({**content, "body": body}))


def test_deep_nesting_is_a_breach_at_every_depth() -> None:
    """Reading and spelling end at depths of their own."""
    for depth in [*range(1, 100, 9), *range(900, 1000), 10_000, 100_000]:
        for inner in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
            with pytest.raises(Breach):
                Standing.from_bytes(b'{"format":"ahh-standing/1","reason":"","standing":"approved","study":' + inner + b"}")


def test_too_large_a_message_is_not_even_read() -> None:
    with pytest.raises(Breach, match="larger than"):
        load(b" " * ((64 << 20) + 1), "ahh-call/1", set())


CHECKPOINT_FAULTS: list[Json] = [
    *(
        {name: value}
        for name in ("mu_squared", "slack", "epsilon", "epsilon_limit", "delta_limit")
        for value in (1, -0.5, "1", None, True)
    ),
    *({"seq": value} for value in (-1, 1.0, "1", True, None, 2**53)),
    *({name: value} for name in ("node", "public", "hash", "signature") for value in ("x" * 401, 1, None, [])),
    *({"ancestors": value} for value in (None, {}, "", 1, [1], ["ab"], [[]], [[1]], [[1, "ab", 2]], [{"1": "ab"}])),
    *({"ancestors": [value]} for value in ([1.0, "ab"], [-1, "ab"], [True, "ab"], [2**53, "ab"], [1, 2], [1, None], ["1", "ab"])),
    {"ancestors": [[1, "x" * 65]]},
    {"ancestors": [[k, "ab"] for k in range(101)]},
    {"more": 1},
]


@pytest.mark.parametrize("fault", CHECKPOINT_FAULTS, ids=str)
def test_a_malformed_checkpoint_spoils_its_message(fault: Json, key: Key) -> None:
    content = json.loads(call(key).to_bytes())
    bad = {**content["witness"], **fault}
    for place in ({"witness": bad}, {"kept": [bad]}):
        with pytest.raises(Breach):
            Call.from_bytes(dump({**content, **place}))
    with pytest.raises(Breach):
        Checkpoint.from_json({**content["witness"], "mu_squared": math.inf})


def test_the_ancestors_of_a_checkpoint_come_back_the_same(key: Key) -> None:
    for ancestors in ((), ((0, ""),), tuple((k, f"{k:016x}") for k in range(100))):
        asked = call(key, witness=checkpoint(key, ancestors=ancestors))
        again = Call.from_bytes(asked.to_bytes()).witness
        assert again == asked.witness and again is not None and hash(again) == hash(asked.witness)
        again.check()


def test_more_checkpoints_than_anybody_has_are_a_breach(key: Key) -> None:
    mark = checkpoint(key)
    Call.from_bytes(call(key, kept=(mark,) * 1000).to_bytes())
    with pytest.raises(Breach):
        Call.from_bytes(call(key, kept=(mark,) * 1001).to_bytes())


CHANGES: Json = {
    "node": "SHA256:x",
    "public": "ecdsa-sha2-nistp256 AAAA",
    "seq": 8,
    "hash": "cd" * 32,
    "ancestors": ((5, "cd" * 8),),
    "mu_squared": 0.25,
    "slack": 0.0,
    "epsilon": 1.0,
    "epsilon_limit": 5.0,
    "delta_limit": 1e-5,
}


def test_every_field_of_a_checkpoint_is_signed(key: Key) -> None:
    assert {*CHANGES, "signature"} == set(Checkpoint.__slots__)
    mark = checkpoint(key)
    mark.check()
    for name, value in CHANGES.items():
        with pytest.raises(Breach):
            dataclasses.replace(mark, **{name: value}).check()


def test_a_checkpoint_made_up_by_another_is_none(key: Key, other: Key) -> None:
    """Whoever signs for a node has the node's own key: another's key, named beside it or not, does not do."""
    mark = checkpoint(key)
    checkpoint(other).check()
    for forged in (
        checkpoint(other, node=key.fingerprint),
        checkpoint(other, node=key.fingerprint, public=key.public),
        checkpoint(other, public=key.public),
        dataclasses.replace(checkpoint(other), node=key.fingerprint),
        dataclasses.replace(mark, node=other.fingerprint),
        dataclasses.replace(mark, node=other.fingerprint, public=other.public),
        *(dataclasses.replace(mark, signature=each) for each in ("", "AAAA", "\ud800", checkpoint(other).signature)),
        *(dataclasses.replace(mark, public=each) for each in ("", "\ud800", key.public.split()[0], key.public[:-4])),
    ):
        with pytest.raises(Breach):
            forged.check()


def test_one_spelling_of_a_key_is_signed(key: Key) -> None:
    """The same key with a comment has the same fingerprint."""
    mark = checkpoint(key)
    with pytest.raises(Breach):
        dataclasses.replace(mark, public=mark.public + " a comment").check()


def test_every_field_of_a_receipt_is_signed(key: Key, other: Key) -> None:
    asked = call(key)
    made = receipt(key, asked, kept=(checkpoint(other),))
    changes: Json = {
        "node": other.fingerprint,
        "call": "0" * 64,
        "body": b"another body",
        "checkpoint": checkpoint(key, seq=8),
        "kept": (),
        "version": "0.1.1",
    }
    assert {*changes, "signature"} == set(Receipt.__slots__)
    for name, value in changes.items():
        with pytest.raises(Breach):
            dataclasses.replace(made, **{name: value}).check(key.public, asked)
    with pytest.raises(Breach):
        dataclasses.replace(made, checkpoint=None).check(key.public, asked)


def test_a_receipt_is_for_one_call_and_no_other(key: Key) -> None:
    asked = call(key)
    made = receipt(key, asked)
    differing: Json = {
        "consortium": "haven",
        "action": PROPOSE,
        "study": "1" * 64,
        "attempt": "2",
        "body": b"[]",
        "witness": None,
        "kept": (),
        "version": "0.2.0",
    }
    assert set(differing) == set(Call.__slots__)
    for name, value in differing.items():
        another = dataclasses.replace(asked, **{name: value})
        assert another.id != asked.id
        with pytest.raises(Breach):
            made.check(key.public, another)


def test_a_receipt_of_another_node_is_refused(key: Key, other: Key) -> None:
    asked = call(key)
    for forged in (
        receipt(other, asked),
        receipt(other, asked, node=key.fingerprint),
        receipt(key, asked, node=other.fingerprint),
        receipt(key, asked, checkpoint=checkpoint(other)),
        receipt(key, asked, checkpoint=checkpoint(other, node=key.fingerprint)),
        receipt(key, asked, checkpoint=checkpoint(key, node=other.fingerprint, public=other.public)),
    ):
        with pytest.raises(Breach):
            forged.check(key.public, asked)


def test_a_signature_of_one_kind_is_none_of_another(key: Key) -> None:
    """The bytes of a checkpoint signed as a receipt, and the other way round."""
    mark, made = checkpoint(key), receipt(key, call(key))
    spelled = dump({name: value for name, value in mark.to_json().items() if name != "signature"})
    with pytest.raises(Breach):
        dataclasses.replace(mark, signature=key.sign("ahh-receipt/1", spelled)).check()
    spelled = dataclasses.replace(made, signature="").to_bytes()
    with pytest.raises(Breach):
        dataclasses.replace(made, signature=key.sign("ahh-checkpoint/1", spelled)).check(key.public, call(key))


@pytest.mark.parametrize("standing", ["", "Approved", "decided", "released"])
def test_a_standing_is_one_of_three(standing: str) -> None:
    with pytest.raises(Breach):
        Standing.from_bytes(Standing("x", standing).to_bytes())


@pytest.mark.parametrize("reason", ["because of Mary", "Budget", " "])
def test_a_reason_is_out_of_the_closed_list(reason: str) -> None:
    with pytest.raises(Breach):
        Standing.from_bytes(Standing("x", "refused", reason).to_bytes())
    with pytest.raises(Breach):
        Reply.from_bytes(Reply("x", Status.REFUSED, reason=reason).to_bytes())
    for each in Reason:
        assert Standing.from_bytes(Standing("x", "refused", str(each)).to_bytes()).reason == each


@pytest.mark.parametrize(
    ("theirs", "fits"),
    [("0.3.9", True), ("0.2.0", True), ("0.4.0", True), ("0.5.0", False), ("0.1.0", False), ("1.3.0", False), ("0.3", True)]
    + [("0.3.0.dev1", True), ("0.4.0rc1+local-2", True), ("0.3." + "0" * 49, True), ("0.03.0", True)]
    + [(each, False) for each in ("", "0", "x.y", "0.x", ".", "3", "-1.3", "0.", "0.3e1", "9" * 199)]
    + [(each, False) for each in ("0.3.", "0.3 ", " 0.3", "0.3\n", "0.3.1\n", "0_0.3", "+0.3", "0.3.1 ", "0.3.1;x", "0.3.é")]
    + [(each, False) for each in ("٠.٣.0", "0.3.\ud800", "0.0000003", "0." + "3" * 5000, "0.3." + "0" * 51, "0.3.1/../x")],
)
def test_versions_fit_within_one_minor(theirs: str, fits: bool) -> None:
    assert compatible(theirs, "0.3.1") is fits


def test_the_newest_has_the_most_spent(key: Key, other: Key) -> None:
    """A ledger that was put back and has burned what it lost goes on from a lower entry."""
    lost, after, theirs = checkpoint(key, seq=50), checkpoint(key, seq=30, mu_squared=0.6), checkpoint(other, seq=1)
    for order in ((lost, after, theirs), (after, theirs, lost)):
        assert newest(order) == {key.fingerprint: after, other.fingerprint: theirs}
    later = checkpoint(key, seq=31, mu_squared=0.6)
    assert newest((later, after))[key.fingerprint] == later


def test_of_two_clones_at_the_same_height_the_newest_does_not_depend_on_the_order(key: Key) -> None:
    """Otherwise each would be shown the other's, or its own, as it happens."""
    one, two = checkpoint(key, hash="ab" * 32), checkpoint(key, hash="cd" * 32)
    assert newest((one, two)) == newest((two, one)) == {key.fingerprint: two}


def test_bytes_as_text() -> None:
    assert (text(None), raw(None)) == (None, None)
    assert raw(text(b"\x00\xff")) == b"\x00\xff"


def test_a_key_signs_what_a_file_of_it_verifies(tmp_path: Path) -> None:
    made = Key.create(tmp_path / "k")
    checkpoint(Key.load(tmp_path / "k"), node=made.fingerprint).check()
