"""The wire: one message has one byte form, golden and kept; whatever else arrives is a Breach and nothing worse."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated import encoding
from ahh_federated.core.releases import Status
from ahh_federated.errors import Breach, Reason
from ahh_federated.node.desk import Desk
from ahh_federated.study import open_study
from ahh_federated.study.declarations import Folds
from ahh_federated.wire import Reply, Request
from tests.study.samples import TODAY, debits, desk, fitting, request, small

ROOT = Path(__file__).parent
REQUESTS, REPLIES, STUDY = (
    json.loads((ROOT / "vectors" / f"{name}.json").read_text()) for name in ("requests", "replies", "study")
)


def named(vectors: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


@named(REQUESTS["valid"])
def test_golden_requests(vector: dict[str, Any]) -> None:
    data = vector["bytes"].encode()
    request = Request.from_bytes(data)
    assert request.to_json() == vector["fields"]
    assert request.to_bytes() == data
    assert Request.from_json(vector["fields"]).to_bytes() == data
    assert request.id == vector["id"]


@named(REPLIES["valid"])
def test_golden_replies(vector: dict[str, Any]) -> None:
    data = vector["bytes"].encode()
    reply = Reply.from_bytes(data)
    assert reply.to_bytes() == data
    assert (reply.request, str(reply.status), reply.sigma, reply.reason) == tuple(
        vector[name] for name in ("request", "status", "sigma", "reason")
    )
    cells = None if reply.cells is None else np.frombuffer(reply.cells, "<i8").tolist()
    exact = None if reply.exact is None else reply.exact.tolist()
    assert (cells, str(exact)) == (vector["cells"], str(vector["exact"]))


@named(REQUESTS["invalid"])
def test_requests_that_are_none(vector: dict[str, Any]) -> None:
    with pytest.raises(Breach):
        Request.from_bytes(vector["bytes"].encode())


@named(REPLIES["invalid"])
def test_replies_that_are_none(vector: dict[str, Any]) -> None:
    with pytest.raises(Breach):
        Reply.from_bytes(vector["bytes"].encode())


def test_there_are_enough_negative_vectors() -> None:
    assert len(REQUESTS["invalid"]) >= 30
    assert len(REPLIES["invalid"]) >= 20


def test_golden_study_digest() -> None:
    assert open_study(ROOT.parent / STUDY["file"]).digest == STUDY["digest"]


@pytest.mark.parametrize("vector", STUDY["folds"], ids=str)
def test_golden_folds(vector: dict[str, Any]) -> None:
    folds = Folds(tuple(vector["shares"]), tuple(vector["shares"].values()))
    assert {key: folds.names[folds.of(vector["study"], key)] for key in vector["patients"]} == vector["patients"]


ODD_BYTES = [
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\x00",
    b"\xc3\x28",
    b'"',
    b"{}",
    b"true",
]


@pytest.mark.parametrize("data", ODD_BYTES, ids=lambda data: repr(data[:8]))
def test_odd_bytes(data: bytes) -> None:
    for message in (Request, Reply):
        with pytest.raises(Breach):
            message.from_bytes(data)


def test_a_message_too_large_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Reply("", Status.FAILED).to_bytes()
    monkeypatch.setattr(encoding, "LARGEST", len(data) - 1)
    monkeypatch.setattr(encoding.json, "loads", lambda data: pytest.fail("it was parsed"))
    with pytest.raises(Breach, match="is larger than"):
        Reply.from_bytes(data)


def test_utf_16_is_not_the_canonical_form() -> None:
    with pytest.raises(Breach):
        Request.from_bytes(REQUESTS["valid"][0]["bytes"].encode("utf-16"))


TEXTS = st.text(max_size=200)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ANY_REQUEST = st.builds(
    Request,
    TEXTS,
    TEXTS,
    TEXTS,
    st.integers(0, 10_000),
    TEXTS,
    st.dictionaries(st.text(), st.lists(FLOATS, max_size=5), max_size=4),
)
ANY_REPLY = st.builds(
    Reply,
    st.text(),
    st.sampled_from(Status),
    st.integers(),
    st.none() | st.binary(),
    st.none() | st.lists(st.floats(), max_size=6).map(np.array),
    st.sampled_from(["", *map(str, Reason)]),
)


@given(ANY_REQUEST)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_every_request_survives_the_wire(request: Request) -> None:
    again = Request.from_bytes(request.to_bytes())
    assert again == request
    assert again.id == request.id


@given(ANY_REPLY)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_every_reply_survives_the_wire(reply: Reply) -> None:
    again = Reply.from_bytes(reply.to_bytes())
    assert again.to_bytes() == reply.to_bytes()
    for name in ("request", "status", "sigma", "cells", "reason"):
        assert getattr(again, name) == getattr(reply, name)
    assert (again.exact is None) == (reply.exact is None)
    assert again.exact is None or again.exact.tobytes() == np.asarray(reply.exact, "<f8").tobytes()


@given(ANY_REQUEST, ANY_REQUEST)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_two_requests_have_two_ids(one: Request, other: Request) -> None:
    assert (one.id == other.id) == (one.to_bytes() == other.to_bytes())


JUNK: list[Any] = [None, True, 0, -1, 1.5, 1e308, 10**30, "", "x" * 300, "\ud800", [], {}, [1], ["a"], [[0.5]], [float("nan")]]
JUNK += [
    [1e308] * 5,
    [0.0] * 5,
    [-1e308] * 4,
    {"beta": [0.1]},
    {"": []},
    "model",
    "children",
    "glm.score/2",
    5,
    "released",
    "AAAA",
]


def mutants(originals: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Bytes flipped, cut, doubled; keys dropped, renamed, given other values."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(originals))
        way = chance.randrange(6)
        if way == 0:
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        elif way == 1:
            del data[chance.randrange(len(data)) :]
        elif way == 2:
            start = chance.randrange(len(data))
            data[start:start] = data[chance.randrange(len(data)) :][:40]
        elif way == 3:
            data = bytearray(chance.randbytes(chance.randrange(200)))
        else:
            data = bytearray(_other_value(json.loads(bytes(data)), chance, deep=way == 5))
        yield bytes(data)


def _other_value(content: dict[str, Any], chance: random.Random, deep: bool) -> bytes:
    inside = content.get("parameters") if deep else None
    place = inside if inside else content
    key = chance.choice(list(place))
    if chance.random() < 0.15:
        place[chance.choice(["", "exact", "beta", "format"])] = place.pop(key)
    else:
        place[key] = chance.choice(JUNK)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


@pytest.fixture(scope="module")
def asked() -> Desk:
    return desk(small(), 60)


def test_two_thousand_odd_messages_to_a_desk(asked: Desk) -> None:
    study = asked.study
    steps = [("children", 0), ("model", 2), ("model", 1), ("evaluation", 0)]
    originals = [request(study, ask, step, fitting(study, ask, step)) for ask, step in steps]
    statuses = []
    for data in mutants([each.to_bytes() for each in originals], 2000, seed=1):
        reply = Reply.from_bytes(asked.answer(data, TODAY))
        statuses.append(reply.status)
        assert reply.status is not Status.FAILED, data
        assert reply.reason in ("", "query", "schedule", "study", "budget")
    assert statuses.count(Status.REFUSED) > 1500
    assert debits(asked.ledger) <= sum(len(ask.analysis.schedule()) for ask in study.asks)


def test_two_thousand_odd_replies() -> None:
    originals = [vector["bytes"].encode() for vector in REPLIES["valid"]]
    read = 0
    for data in mutants(originals, 2000, seed=2):
        try:
            reply = Reply.from_bytes(data)
        except Breach:
            continue
        read += 1
        assert reply.to_bytes() == data
    assert 0 < read < 400


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_random_bytes_are_refused(data: bytes) -> None:
    for message in (Request, Reply):
        with pytest.raises(Breach):
            message.from_bytes(data)


def test_no_pickle_and_no_code_in_a_message() -> None:
    bomb = base64.b64encode(b"cos\nsystem\n(S'true'\ntR.").decode()
    reply = Reply.from_json({"request": "", "status": "released", "sigma": 1, "cells": bomb, "exact": None, "reason": ""})
    assert reply.cells == b"cos\nsystem\n(S'true'\ntR."
