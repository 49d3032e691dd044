"""Calls to the partners and their signed receipts: sent, waited for, sent again, and believed only when the signature holds.

A call may be sent again at any time: a node that has answered the request gives the stored bytes.  So a node that was killed
in the middle of an answer is simply asked again when it is back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from ahh_federated.audit import Audit
from ahh_federated.coordinator.witness import Witness
from ahh_federated.core.releases import Status
from ahh_federated.errands import ASK, PROPOSE, Call, Checkpoint, Receipt, Standing
from ahh_federated.errors import Breach
from ahh_federated.identity import fingerprint
from ahh_federated.wire import Reply, Request, checked

_ATTEMPTS = 5  # of a call that a node cannot answer at all
_ABSENT = 1.0  # seconds without a sign of a node that is only to be told of a study


class Carrier(Protocol):
    """How bytes reach the partners; runtimes/flower/carrier.py goes over Flower."""

    def online(self) -> frozenset[str]: ...

    def send(self, partner: str, data: bytes) -> str:
        """A ticket, good for `collect`."""
        ...

    def collect(self, tickets: Iterable[str]) -> Mapping[str, bytes | None]:
        """Those that are finished; None where no reply will come."""
        ...


@dataclass(slots=True)
class Post:
    """One consortium's calls over one carrier.

    `roster` gives each partner's public key; `halt` is called while waiting and raises when the study is to stop.  A partner
    unheard of for `grace` seconds is offline; a call without an answer is sent again after `patience` seconds.
    """

    consortium: str
    carrier: Carrier
    roster: Mapping[str, str]
    witness: Witness
    audit: Audit
    halt: Callable[[], None] = lambda: None
    grace: float = 30.0
    patience: float = 30.0
    tick: float = 0.02
    seen: dict[str, float] = field(default_factory=dict)

    def propose(self, study: str, content: bytes, partners: Iterable[str], deadline: float) -> dict[str, Standing | Status]:
        """How a study stands at each partner; `offline` or `failed` where no standing came.

        Whoever is not there now is not waited for: a study is proposed again and again.
        """
        answers: dict[str, Standing | Status] = {}
        for name, body in self.call(PROPOSE, study, content, partners, deadline, grace=_ABSENT).items():
            answers[name] = body if isinstance(body, Status) else self._standing(name, study, body)
        return answers

    def _standing(self, name: str, study: str, body: bytes) -> Standing | Status:
        try:
            standing = Standing.from_bytes(body)
        except Breach:
            return Status.FAILED
        return standing if standing.study == study else Status.FAILED

    def call(
        self, action: str, study: str, body: bytes, partners: Iterable[str], deadline: float, *, grace: float | None = None
    ) -> dict[str, bytes | Status]:
        """The body of each partner's receipt, or why there is none.  `deadline`: seconds from now."""
        patience = self.grace if grace is None else grace
        waiting = {name: _Errand() for name in partners}
        found: dict[str, bytes | Status] = {}
        end = time.monotonic() + deadline
        while waiting:
            self.halt()
            now, online = time.monotonic(), self.carrier.online()
            self.seen |= dict.fromkeys(online, now)
            for name, errand in waiting.items():
                if name in online and name in self.roster and errand.due(now, self.patience):
                    sent = self._call(action, study, body, name)
                    errand.sent[self.carrier.send(name, sent.to_bytes())] = sent
                    errand.attempts, errand.last = errand.attempts + 1, now
            self._collect(waiting, found)
            for name, errand in waiting.items():
                if now >= end or name not in self.roster or now - self.seen.setdefault(name, now) > patience:
                    found.setdefault(name, Status.OFFLINE)
                elif not errand.sent and errand.attempts >= _ATTEMPTS:
                    found.setdefault(name, Status.FAILED)
            waiting = {name: errand for name, errand in waiting.items() if name not in found}
            if waiting:
                time.sleep(self.tick)
        return found

    def _call(self, action: str, study: str, body: bytes, name: str) -> Call:
        node = fingerprint(self.roster[name])
        kept: tuple[Checkpoint, ...] = ()
        if action == PROPOSE:  # for this node to keep, in case they are lost here
            members = {fingerprint(public) for public in self.roster.values()}
            kept = tuple(each for each in self.witness.all() if each.node != node and each.node in members)
        return Call(self.consortium, action, study, secrets.token_hex(16), body, self.witness.latest(node), kept)

    def _collect(self, waiting: Mapping[str, _Errand], found: dict[str, bytes | Status]) -> None:
        tickets = {ticket: name for name, errand in waiting.items() for ticket in errand.sent}
        for ticket, data in self.carrier.collect(tickets).items():
            name = tickets[ticket]
            call = waiting[name].sent.pop(ticket)
            if data is not None and name not in found:
                found[name] = self._receipt(name, call, data)

    def _receipt(self, name: str, call: Call, data: bytes) -> bytes | Status:
        """The body of a receipt that holds; a partner whose receipt does not hold has failed."""
        try:
            receipt = Receipt.from_bytes(data)
            receipt.check(self.roster[name], call)
            self._keep(receipt)
        except Breach as breach:
            self.audit.write("receipt.rejected", partner=name, study=call.study, action=call.action, why=str(breach))
            return Status.FAILED
        return receipt.body

    def _keep(self, receipt: Receipt) -> None:
        latest, mine = self.witness.latest(receipt.node), receipt.checkpoint
        if mine is not None:
            if latest is not None and mine.mu_squared < latest.mu_squared and _released(receipt.body):
                raise Breach("a node released from a ledger that is older than its own checkpoint")
            self.witness.keep(mine)
        elif _released(receipt.body):
            raise Breach("a release came without a checkpoint of the ledger that paid for it")
        members = {fingerprint(public) for public in self.roster.values()}
        for each in receipt.kept:  # what is wrong with them may not be this node's fault
            if each.node in members:
                with suppress(Breach):
                    each.check()
                    self.witness.keep(each)


@dataclass(slots=True)
class _Errand:
    """What has been sent to one partner in this round: call by ticket, how often, and when last."""

    sent: dict[str, Call] = field(default_factory=dict)
    attempts: int = 0
    last: float = 0.0

    def due(self, now: float, patience: float) -> bool:
        if not self.attempts:
            return True
        pause = patience if self.sent else 1.0
        return self.attempts < _ATTEMPTS and now - self.last > pause * 2 ** (self.attempts - 1)


@dataclass(frozen=True, slots=True)
class SignedLink:
    """The link of a federation: every reply comes in a signed receipt."""

    post: Post
    partners: tuple[str, ...]
    deadline: float

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        bodies = self.post.call(ASK, request.study, request.to_bytes(), partners, self.deadline)
        return {
            name: Reply(request.id, body) if isinstance(body, Status) else checked(body, request) for name, body in bodies.items()
        }


def _released(body: bytes) -> bool:
    try:
        return Reply.from_bytes(body).status is Status.RELEASED
    except Breach:
        return False
