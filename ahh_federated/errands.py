"""What a coordinator and a node exchange in a federation: calls, signed receipts, and checkpoints of ledgers.

A receipt is bound to its call by the call's SHA-256; a call names the consortium, the study, the attempt, and holds the request
with its ask, step and numbers.  So a receipt says: this node, to exactly this question, gave exactly this answer.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ahh_federated.encoding import dump, load, raw, text
from ahh_federated.errors import Breach, Reason
from ahh_federated.identity import Key, fingerprint, verify
from ahh_federated.version import VERSION

PROPOSE, ASK = "propose", "ask"
_CALL, _RECEIPT, _CHECKPOINT, _STANDING = "ahh-call/1", "ahh-receipt/1", "ahh-checkpoint/1", "ahh-standing/1"
_REASONS = ("", *Reason)
_MOST_KEPT = 1000
_MOST_ANCESTORS = 100
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})(\.[0-9A-Za-z.+-]{1,50})?")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A node's word on its ledger: the last entry, and what all entries together have cost.

    `mu_squared` and `slack` are rounded up; `epsilon` is the same at `delta_limit`.  Whoever keeps it can tell later that a
    ledger which lacks this entry is an older copy; `ancestors`, earlier entries with the beginnings of their hashes, then tell
    how much older.
    """

    node: str
    public: str
    seq: int
    hash: str
    ancestors: tuple[tuple[int, str], ...]
    mu_squared: float
    slack: float
    epsilon: float
    epsilon_limit: float
    delta_limit: float
    signature: str = ""

    def signed(self, key: Key) -> Checkpoint:
        return replace(self, signature=key.sign(_CHECKPOINT, self._spelled()))

    def check(self) -> None:
        """Raises Breach unless the node it names signed it."""
        if fingerprint(self.public) != self.node:
            raise Breach("a checkpoint is of another node than it is said to be of")
        verify(self.public, _CHECKPOINT, self._spelled(), self.signature)

    def _spelled(self) -> bytes:
        return dump({name: value for name, value in self.to_json().items() if name != "signature"})

    def to_json(self) -> dict[str, Any]:
        content = {name: getattr(self, name) for name in self.__slots__}
        return {**content, "ancestors": [list(each) for each in self.ancestors]}

    @classmethod
    def from_json(cls, content: Any) -> Checkpoint:
        if not isinstance(content, Mapping) or set(content) != set(cls.__slots__):
            raise Breach("a checkpoint names a node, its last entry and what is spent")
        texts = [content[name] for name in ("node", "public", "hash", "signature")]
        numbers = [content[name] for name in ("mu_squared", "slack", "epsilon", "epsilon_limit", "delta_limit")]
        if not all(isinstance(each, str) and len(each) <= 400 for each in texts):
            raise Breach("a checkpoint has short texts")
        if not all(type(each) is float and math.isfinite(each) and each >= 0 for each in numbers):
            raise Breach("a checkpoint has finite numbers with a decimal point")
        if not _is_entry(content["seq"]):
            raise Breach("a checkpoint has the number of an entry")
        return cls(**{**content, "ancestors": _ancestors(content["ancestors"])})


@dataclass(frozen=True, slots=True)
class Call:
    """From the coordinator.  `body` is a study (to propose) or a request (to ask).

    `attempt` makes every try of a call another one.  `witness` is the coordinator's newest checkpoint of the node called;
    `kept` are those of the other partners, for this node to keep as well.
    """

    consortium: str
    action: str
    study: str
    attempt: str
    body: bytes
    witness: Checkpoint | None = None
    kept: tuple[Checkpoint, ...] = ()
    version: str = VERSION

    @property
    def id(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        content = {
            "format": _CALL,
            "version": self.version,
            "consortium": self.consortium,
            "action": self.action,
            "study": self.study,
            "attempt": self.attempt,
            "body": text(self.body),
            "witness": None if self.witness is None else self.witness.to_json(),
            "kept": [each.to_json() for each in self.kept],
        }
        return dump(content)

    @classmethod
    def from_bytes(cls, data: bytes) -> Call:
        content = load(data, _CALL, {"version", "consortium", "action", "study", "attempt", "body", "witness", "kept"})
        names = ("consortium", "action", "study", "attempt", "version")
        texts = [content[name] for name in names]
        if not all(isinstance(each, str) and len(each) <= 200 for each in texts) or content["action"] not in (PROPOSE, ASK):
            raise Breach("a call names consortium, action, study, attempt and version as short texts")
        witness = None if content["witness"] is None else Checkpoint.from_json(content["witness"])
        return cls(
            **dict(zip(names, texts, strict=True)), body=_body(content["body"]), witness=witness, kept=_kept(content["kept"])
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """From a node, signed.  `body` is a standing (to a proposal) or a reply (to an ask)."""

    node: str
    call: str
    body: bytes
    checkpoint: Checkpoint | None = None
    kept: tuple[Checkpoint, ...] = ()
    version: str = VERSION
    signature: str = ""

    def signed(self, key: Key) -> Receipt:
        return replace(self, signature=key.sign(_RECEIPT, self._spelled()))

    def check(self, public: str, call: Call) -> None:
        """Raises Breach unless the owner of this public key signed it as the answer to this very call."""
        if self.call != call.id or fingerprint(public) != self.node:
            raise Breach("a receipt is for another call, or of another node")
        verify(public, _RECEIPT, self._spelled(), self.signature)
        if self.checkpoint is not None:
            if self.checkpoint.node != self.node:
                raise Breach("a receipt holds another node's checkpoint for its own")
            self.checkpoint.check()

    def _spelled(self) -> bytes:
        return replace(self, signature="").to_bytes()

    def to_bytes(self) -> bytes:
        content = {
            "format": _RECEIPT,
            "version": self.version,
            "node": self.node,
            "call": self.call,
            "body": text(self.body),
            "checkpoint": None if self.checkpoint is None else self.checkpoint.to_json(),
            "kept": [each.to_json() for each in self.kept],
            "signature": self.signature,
        }
        return dump(content)

    @classmethod
    def from_bytes(cls, data: bytes) -> Receipt:
        content = load(data, _RECEIPT, {"version", "node", "call", "body", "checkpoint", "kept", "signature"})
        names = ("node", "call", "version", "signature")
        texts = [content[name] for name in names]
        if not all(isinstance(each, str) and len(each) <= 200 for each in texts):
            raise Breach("a receipt names node, call, version and signature as short texts")
        checkpoint = None if content["checkpoint"] is None else Checkpoint.from_json(content["checkpoint"])
        return cls(
            **dict(zip(names, texts, strict=True)),
            body=_body(content["body"]),
            checkpoint=checkpoint,
            kept=_kept(content["kept"]),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """How a study stands at a node: "approved", "pending" (nobody has decided) or "refused", with a public reason."""

    study: str
    standing: str
    reason: str = ""

    def to_bytes(self) -> bytes:
        return dump({"format": _STANDING, "study": self.study, "standing": self.standing, "reason": self.reason})

    @classmethod
    def from_bytes(cls, data: bytes) -> Standing:
        content = load(data, _STANDING, {"study", "standing", "reason"})
        known = content["standing"] in ("approved", "pending", "refused") and content["reason"] in _REASONS
        if not isinstance(content["study"], str) or len(content["study"]) > 200 or not known:
            raise Breach("a standing is approved, pending or refused, with a reason out of the closed list")
        return cls(content["study"], content["standing"], content["reason"])


def compatible(theirs: str, mine: str = VERSION) -> bool:
    """Versions work together when they differ by one minor version at most."""
    found = [_VERSION.fullmatch(each) for each in (theirs, mine)]
    if found[0] is None or found[1] is None:
        return False
    (major, minor), (my_major, my_minor) = ((int(each[1]), int(each[2])) for each in found if each)
    return major == my_major and abs(minor - my_minor) <= 1


def _is_entry(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _ancestors(content: Any) -> tuple[tuple[int, str], ...]:
    if not isinstance(content, list) or len(content) > _MOST_ANCESTORS:
        raise Breach("the ancestors of an entry are a short list")
    for each in content:
        fine = isinstance(each, list) and len(each) == 2 and _is_entry(each[0]) and isinstance(each[1], str)
        if not fine or len(each[1]) > 64:
            raise Breach("an ancestor is the number of an entry and the beginning of its hash")
    return tuple((seq, start) for seq, start in content)


def _body(value: Any) -> bytes:
    try:
        body = raw(value)
    except (ValueError, TypeError):
        raise Breach("a body is bytes in base64") from None
    if body is None:
        raise Breach("a call and a receipt have a body")
    return body


def _kept(content: Any) -> tuple[Checkpoint, ...]:
    if not isinstance(content, list) or len(content) > _MOST_KEPT:
        raise Breach("the checkpoints of others are a list")
    return tuple(Checkpoint.from_json(each) for each in content)


def newest(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """By node, the checkpoint with the most spent, then the highest entry: what is spent never shrinks.  Of equals, the last."""
    return {each.node: each for each in sorted(checkpoints, key=lambda each: (each.mu_squared, each.seq, each.hash))}
