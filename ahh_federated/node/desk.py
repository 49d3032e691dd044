"""Where requests arrive at a node: checked against the approved study, released through the gate, answered in bytes.

The desk rebuilds each query from its own copy of the study; from a request it takes only an ask's name, a step and
numbers.  It accepts the schedule that the study announces and nothing else; the ledger sees to it that each step is
paid for one request only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import final

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.queries import Query
from ahh_federated.core.releases import Release, Status, part_told
from ahh_federated.errors import Breach, Reason, Refusal
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import OPEN, Policy
from ahh_federated.study import Ask, Study
from ahh_federated.wire import Reply, Request


@final
@dataclass(slots=True)
class Desk:
    """One partner's answers about one study.

    `entropy` is the machine's own unless the study declares its data synthetic or public; `run` names a seeded run.
    `tell` is given, for whoever runs the node, why a request was refused; none of it crosses the wire.  `ceiling` is what the
    steward allows this study, if less than it asks for.
    """

    partner: str
    study: Study
    cohort: Cohort = field(repr=False)
    ledger: Ledger = field(repr=False)
    policy: Policy
    entropy: Entropy = field(repr=False)
    run: str = ""
    tell: Callable[[str], None] = field(repr=False, default=lambda message: None)
    ceiling: Budget | None = None
    _own: Entropy = field(init=False, repr=False)

    def __post_init__(self) -> None:
        seeded = bool(self.run) or not self.entropy.private
        if seeded and not (self.study.open_data and self.policy.data in OPEN):
            said = "the study or this node's policy says that the data are real"
            raise Refusal(Reason.SEED, f"{self.partner}: {said}, and a fixed seed would undo its noise")
        self._own = self.entropy.derive(self.partner.encode())

    @property
    def _account(self) -> str:
        """Under which name the ledger keeps this study's own ceiling."""
        return self.study.digest + self.run

    def answer(self, data: bytes, today: date) -> bytes:
        """Bytes in, bytes out.  Nothing but a status and a closed list of reasons tells why there is no release."""
        try:
            request = Request.from_bytes(data)
        except Breach as breach:
            self.tell(f"{self.partner}: {breach}")
            return Reply("", Status.REFUSED, reason=str(Reason.QUERY)).to_bytes()
        try:
            return self._release(request, today).to_bytes()
        except Refusal as refusal:
            self.tell(f"{self.partner}: {refusal}")
            return Reply(request.id, Status.REFUSED, reason=str(refusal.reason)).to_bytes()
        except Breach as breach:
            self.tell(f"{self.partner}: {breach}")
            return Reply(request.id, Status.REFUSED, reason=str(Reason.QUERY)).to_bytes()
        except Exception as error:  # its text could quote a patient: only its kind is told, and none of it leaves
            self.tell(f"{self.partner}: an answer failed with {type(error).__name__}: report this as a fault of the software")
            return Reply(request.id, Status.FAILED).to_bytes()

    def _release(self, request: Request, today: date) -> Reply:
        ask, query, order = self._accept(request, today)
        released = release(
            query,
            self.cohort,
            where=ask.where,
            order=order,
            books=self.ledger,
            entropy=self._own,
        )
        if self._too_small(query, released):
            return Reply(request.id, Status.BELOW)
        return Reply(request.id, Status.RELEASED, released.sigma, released.to_bytes())

    def _accept(self, request: Request, today: date) -> tuple[Ask, Query, Order]:
        if (request.study, request.run) != (self.study.digest, self.run):
            raise Refusal(Reason.STUDY, f"{self.partner} has not approved this study: its digest differs")
        if today > self.study.expires:
            raise Refusal(Reason.STUDY, f"the study {self.study.id} expired on {self.study.expires}: ask for a new approval")
        asks = {ask.id: ask for ask in self.study.asks}
        if request.ask not in asks:
            raise Refusal(Reason.SCHEDULE, "the study has no such ask")
        ask = asks[request.ask]
        if ask.lacks:  # known from the start: nothing is to be paid for a model that cannot be finished
            raise Refusal(Reason.QUERY, ask.lacks)
        lines = ask.lines
        if request.step >= len(lines) or lines[request.step].kind != request.kind:
            raise Refusal(Reason.SCHEDULE, f"step {request.step} of {ask.id} is not what the study announced")
        line = lines[request.step]
        query = ask.analysis.query(request.kind, request.parameters)
        if not line.covers(query):
            raise Refusal(Reason.SCHEDULE, f"step {request.step} of {ask.id} has another size than the study announced")
        if query.parameters() != request.parameters:
            raise Refusal(Reason.QUERY, f"step {request.step} of {ask.id} carries numbers that the query does not have")
        order = Order(
            request=request.id,
            study=self._account,
            ask=f"{ask.id}:{request.step}",
            event=self.study.event(ask, line),
            ceiling=self.ceiling or self.study.budget,
        )
        return ask, query, order

    def _too_small(self, query: Query, released: Release) -> bool:
        """Judged on the paid, noised count only: an exact count would flip with one patient and has no price."""
        first, told = part_told(query, released, 0)
        patients = first.patients(told.values)
        return patients is not None and patients < self.policy.minimum_cohort
