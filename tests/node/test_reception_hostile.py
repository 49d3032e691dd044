"""Hostile tables and hostile messages: no patient's cell shows in a status or a word, and no message breaks a node."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ahh_federated.audit import verify_audit
from ahh_federated.core.releases import Status
from ahh_federated.encoding import dump
from ahh_federated.errands import Call, Receipt
from ahh_federated.errors import Breach
from ahh_federated.node import reception as reception_module
from ahh_federated.node.home import NodeHome
from ahh_federated.node.sources import file_source
from ahh_federated.wire import Reply
from tests.node.nodes import CONSORTIUM, STUDY, approve, asking, node, proposing, receipt, reception, reply, spent
from tests.node.receptions import WORD, hastened
from tests.study.samples import fitting, rows


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return node(tmp_path)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    hastened(monkeypatch)


def test_an_error_nobody_thought_of_is_failed_without_a_word(home: NodeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    approve(home)
    told: list[str] = []

    def fail(*of: object) -> Any:
        raise RuntimeError(f"{WORD}: Mary")

    monkeypatch.setattr(reception_module, "load_cohort", fail)
    data = reception(home, told.append).answer(CONSORTIUM, asking().to_bytes())
    assert Reply.from_bytes(Receipt.from_bytes(data).body).status is Status.FAILED
    assert WORD not in told[-1]
    assert WORD.encode() not in data


HOSTILE = {
    "weight": ["NaN", "1e999", "3,2", WORD, "-inf", "٣", "0x10", "9" * 5000],
    "bmi": ["", "99999", "-0", "1e-400", f'"{WORD}', "19\t", "\0", "19"],
    "sex": ["", "GIRL", WORD, "girl ", "\ud7ff", "é", "null", "boy"],
    "seen": ["", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", WORD, "2026-13-01", "1e999", "NaT", "2026-01"],
}


def test_no_status_depends_on_what_one_patients_cells_hold(tmp_path: Path) -> None:
    """A table that one cell could make unreadable would tell, for nothing, whether the cell is there."""
    found = set()
    for k in range(9):
        table = rows(40)
        if k:
            strange = {name: values[k - 1] for name, values in HOSTILE.items()}
            table = pd.concat([table, pd.DataFrame([{**table.iloc[0].to_dict(), "child": f"{WORD}{k}", **strange}] * 2)])
        home = node(tmp_path, f"n{k}", table=table)
        approve(home)
        asked = reception(home)
        found.add(tuple(reply(asked, home, asking(ask)).status for ask in ("children", "size", "bins")))
    assert found == {(Status.RELEASED,) * 3}


@pytest.mark.parametrize("bad", [b"", b"child;x\n", b"\xff\xfe\x00", b'"', b"child,child,sex,smoked,weight,bmi,seen\n"])
def test_a_file_that_is_no_table_is_a_reason_about_no_patient(home: NodeHome, bad: bytes) -> None:
    approve(home)
    path = home.path / "table.csv"
    path.write_bytes(bad)
    home.connect(file_source(path))
    before = spent(home)
    assert reply(reception(home), home, asking()).reason == "table"
    assert spent(home) == before


def planted(table: pd.DataFrame) -> pd.DataFrame:
    """Canary words wherever a table can hold them, each in cells that count as not known."""
    words = [f"{WORD}{k}" for k in range(len(table))]
    table = table.assign(child=words, name=words)
    for name in ("smoked", "weight", "sex"):
        table.loc[table.index % 3 == 0, name] = [word for k, word in enumerate(words) if k % 3 == 0]
    return table


class Fuzzed:
    """A node that has answered its whole study: from then on every message is refused or a replay."""

    def __init__(self, home: NodeHome, told: list[str]) -> None:
        self.home, self.told = home, told
        approve(home)
        self.asked = reception(home, told.append)
        steps = [(ask.id, step) for ask in STUDY.asks for step in range(len(ask.analysis.schedule()))]
        self.calls = [asking(ask, step, fitting(STUDY, ask, step)) for ask, step in steps] + [proposing()]
        self.witness = receipt(self.asked, home, self.calls[-1]).checkpoint
        for call in self.calls[:-1]:
            assert reply(self.asked, home, call).status in (Status.RELEASED, Status.BELOW)
        self.before = spent(home)

    def throw(self, data: bytes) -> None:
        answer = self.asked.answer(CONSORTIUM, data)
        found = Receipt.from_bytes(answer)
        assert found.node == self.home.key.fingerprint
        try:
            found.check(self.home.key.public, Call.from_bytes(data))
        except Breach:  # no call at all: the receipt is for these bytes all the same
            assert found.call == hashlib.sha256(data).hexdigest()
            assert found.checkpoint is None
        assert WORD.encode() not in answer
        assert WORD.encode() not in found.body
        body = json.loads(found.body)
        assert body.get("status", body.get("standing")) != "failed"

    def over(self) -> None:
        assert spent(self.home) == self.before
        with self.home.ledger() as ledger:
            assert ledger.verify().ok
        assert verify_audit(self.home.audit_path)[0]
        assert WORD not in self.home.audit_path.read_text()
        assert not any(WORD in each or "report this" in each for each in self.told)


STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    2**63,
    1e308,
    5e-324,
    0.1,
    "",
    "x",
    "é\ud800\u0000",
    "../../etc/passwd",
    "0" * 64,
    "x" * 10_000,
    [],
    [[]],
    {},
    {"": {}},
    [1.0] * 1000,
]


def surgery(content: Any, rng: random.Random) -> Any:
    """One place of a JSON value replaced, dropped or doubled."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        name = rng.choice(sorted(content))
        act = rng.random()
        if act < 0.1:
            return {key: value for key, value in content.items() if key != name}
        if act < 0.2:
            return {**content, str(rng.choice(["x", "__class__", "body", ""])): content[name]}
        return {**content, name: surgery(content[name], rng)}
    if isinstance(content, list) and content and rng.random() < 0.8:
        place = rng.randrange(len(content))
        return [*content[:place], surgery(content[place], rng), *content[place + 1 :]] * rng.choice([1, 1, 2])
    return rng.choice(STRANGE)


def operated(call: Call, rng: random.Random) -> bytes:
    """A call, or the request or study in it, after surgery; spelled canonically, so that it is read."""
    content = json.loads(call.to_bytes())
    if rng.random() < 0.7:
        inner = dump(surgery(json.loads(call.body), rng) or {})
        content["body"] = base64.b64encode(inner).decode()
        if rng.random() < 0.5:
            content["study"] = hashlib.sha256(inner).hexdigest()
    else:
        content = surgery(content, rng)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def message(fuzzed: Fuzzed, rng: random.Random) -> bytes:
    call = rng.choice(fuzzed.calls)
    data, act = call.to_bytes(), rng.randrange(20)
    if act < 2:
        return operated(call, rng)
    if act == 2:
        return rng.randbytes(rng.randrange(200))
    if act == 3:
        return data[: rng.randrange(len(data))]
    if act == 4:
        depth = rng.choice([10, 985, 990, 995, 100_000])
        return data.replace(b'"kept":[]', b'"kept":' + b"[" * depth + b"]" * depth)
    if act == 5:
        number = rng.choice([b"1e999", b"-0", b"1" * 5000, b"NaN", b"Infinity", b"0.1e-999", b"1E5"])
        return data.replace(b'"kept":[]', b'"kept":[' + number + b"]")
    if act == 6:
        mark = dataclasses.replace(fuzzed.witness, seq=rng.randrange(2**53))
        return dataclasses.replace(call, witness=mark, kept=(mark,) * rng.randrange(3)).to_bytes()
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def fuzz(home: NodeHome, messages: int) -> None:
    rng, told = random.Random(20270102), []
    fuzzed = Fuzzed(home, told)
    for _ in range(messages):
        fuzzed.throw(message(fuzzed, rng))
    fuzzed.over()


def test_ten_thousand_hostile_messages(tmp_path: Path, fast: None) -> None:
    fuzz(node(tmp_path, table=planted(rows(300))), 10_000)


@pytest.mark.slow
def test_a_hundred_thousand_hostile_messages(tmp_path: Path, fast: None) -> None:
    fuzz(node(tmp_path, table=planted(rows(300))), 100_000)
