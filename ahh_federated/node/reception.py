"""Where calls arrive at a serving node: bytes in, a signed receipt out, whatever the bytes are.

The reception settles what concerns the node as a whole: is it paused, does the version fit, is this study approved and in
time, does the policy allow its columns, is the ledger the newest.  What remains is the desk's, which answers one study.
Each check is made anew for each call, so a steward's word holds from the next call on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import final

from ahh_federated.audit import Fact
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.releases import Status
from ahh_federated.errands import PROPOSE, Call, Checkpoint, Receipt, Standing, compatible
from ahh_federated.errors import AhhError, Breach, Misuse, Reason, Refusal
from ahh_federated.node.desk import Desk
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.policy import Policy
from ahh_federated.node.quota import Quota
from ahh_federated.node.reading import read
from ahh_federated.node.stewardship import Decision, propose, recall
from ahh_federated.node.tables import load_cohort
from ahh_federated.study import Study, read_canonical
from ahh_federated.version import VERSION
from ahh_federated.wire import Reply, Request

_DESKS = 4  # studies whose patients are held in memory at a time
_LINES = 120  # a minute in the audit log, beside one for each payment
_STUDIES = 1000  # whose last standing is remembered


def today() -> date:
    return datetime.now(UTC).date()


@final
class Reception:
    """A node's answers to all its coordinators.  Not safe under several threads: one loop serves them in turn.

    Args:
        home: an open node.
        tell: given, for whoever runs the node, what was refused and why; none of it crosses the wire.
        clock: today's date.
    """

    def __init__(self, home: NodeHome, tell: Callable[[str], None], clock: Callable[[], date] = today) -> None:
        self._home, self._tell, self._clock = home, tell, clock
        self._key = home.key
        self._memory = Memory(home.witness_path, self._key)
        self._desks: dict[str, Desk] = {}
        self._without: frozenset[str] = frozenset()
        self._ledger: Ledger | None = None
        self._policy: Policy | None = None
        self._told: dict[str, str] = {}
        self._rules_now: Policy | None = None
        self._quota = Quota(_LINES)

    def answer(self, consortium: str, data: bytes) -> bytes:
        """The receipt for one call.  Nothing but a status and a closed list of reasons tells why there is no release."""
        self._rules_now = None
        call_id = hashlib.sha256(data).hexdigest()
        shown: Checkpoint | None = None
        kept: tuple[Checkpoint, ...] = ()
        try:
            call = Call.from_bytes(data)
        except Breach as breach:
            self._note(consortium, "", "", Reason.QUERY, str(breach))
            body = Reply("", Status.REFUSED, reason=str(Reason.QUERY)).to_bytes()
        else:
            body = self._body(consortium, call)
            shown = self._checkpoint()
            kept = self._kept(consortium, call)
        return Receipt(self._key.fingerprint, call_id, body, shown, kept).signed(self._key).to_bytes()

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger, self._desks = None, {}

    def _body(self, consortium: str, call: Call) -> bytes:
        try:
            self._admit(consortium, call)
            return self._propose(consortium, call) if call.action == PROPOSE else self._ask(consortium, call)
        except Refusal as refusal:
            reason, why = refusal.reason, str(refusal)
        except Breach as breach:
            reason, why = Reason.QUERY, str(breach)
        except Misuse as misuse:  # a file of this node that has to be mended
            reason, why = Reason.TABLE, str(misuse)
        except Exception as error:  # its text could quote a patient: only its kind is told, and none of it leaves
            self._tell(f"an answer failed with {type(error).__name__}: report this as a fault of the software")
            return _failed(call)
        self._note(consortium, call.study, call.action, reason, why)
        return _refused(call, reason)

    def _admit(self, consortium: str, call: Call) -> None:
        if call.consortium != consortium:
            raise Refusal(Reason.STUDY, f"a call for {call.consortium!r} came through {consortium!r}")
        if not compatible(call.version):
            fix = "bring node and coordinator to versions that differ by one minor version at most"
            raise Refusal(Reason.VERSION, f"the coordinator has version {call.version!r}, this node {VERSION}: {fix}")

    def _propose(self, consortium: str, call: Call) -> bytes:
        """How a study stands here.  It is kept for the steward the first time it comes."""
        self._memory.learn(consortium, call.kept)
        if hashlib.sha256(call.body).hexdigest() != call.study:
            raise Refusal(Reason.STUDY, "a study came with the digest of another one")
        try:
            study = read_canonical(call.body)
            if study.consortium != consortium:
                raise Refusal(Reason.STUDY, f"the study {study.id} of {study.consortium} came through {consortium}")
            made = propose(self._home, call.body, consortium).decision
        except Misuse as misuse:
            raise Refusal(Reason.STUDY, f"a study came that this version cannot read: {misuse}") from None
        self._permit(study)
        if made is None or self._home.paused:
            return self._standing(consortium, study, "pending", Reason.PAUSED if self._home.paused else "")
        self._uphold(study, made)
        self._memory.require(self._books(), _own(call))
        self._desk(study, made)  # a table that is gone is better known before the first question
        return self._standing(consortium, study, "approved", "")

    def _standing(self, consortium: str, study: Study, standing: str, reason: str) -> bytes:
        if self._news(study.digest, standing):
            self._log("propose", consortium=consortium, study=study.digest, id=study.id, decision=standing)
            self._tell(f"the study {study.id} ({study.digest[:12]}) of {consortium} is {standing}")
        return Standing(study.digest, standing, reason).to_bytes()

    def _ask(self, consortium: str, call: Call) -> bytes:
        request = Request.from_bytes(call.body)
        if request.study != call.study:
            raise Refusal(Reason.STUDY, "a request is about another study than its call")
        if self._home.paused:
            raise Refusal(Reason.PAUSED, "this node is paused: `ahh node resume` ends it")
        proposal = recall(self._home, request.study)
        if proposal is None or proposal.study.consortium != consortium or proposal.decision is None:
            raise Refusal(Reason.APPROVAL, "a request came for a study that nobody here has approved")
        self._permit(proposal.study)
        self._uphold(proposal.study, proposal.decision)
        self._memory.require(self._books(), _own(call))
        before = self._books().head()
        body = self._desk(proposal.study, proposal.decision).answer(call.body, self._clock())
        self._record(consortium, request, Reply.from_bytes(body), paid=self._books().head() != before)
        return body

    def _permit(self, study: Study) -> None:
        if self._clock() > study.expires:
            raise Refusal(Reason.EXPIRED, f"the study {study.id} expired on {study.expires}")
        objections = self._rules().objections(study)
        if objections:
            reason = Reason.COLUMN if self._rules().forbidden(study) else Reason.APPROVAL
            raise Refusal(reason, f"the policy forbids the study {study.id}: {'; '.join(objections)}")

    def _uphold(self, study: Study, made: Decision) -> None:
        if made.verdict != "approved":
            raise Refusal(Reason.APPROVAL, f"the study {study.id} was {made.verdict} by {made.by}")
        if self._clock() > made.expires:
            raise Refusal(Reason.EXPIRED, f"the approval of the study {study.id} ended on {made.expires}")

    def _desk(self, study: Study, made: Decision) -> Desk:
        """The desk of a study; its patients are read once and held until other studies take their place."""
        without = self._home.optouts
        if without != self._without:  # whoever has opted out is gone from the next call on
            self._desks, self._without = {}, without
        found = self._desks.pop(study.digest, None)
        if found is None:
            faults: list[str] = []
            cohort = load_cohort(read(self._home.source, faults), study, self._home.name, faults, without=without)
            for fault in faults:
                self._tell(fault)
            while len(self._desks) >= _DESKS:
                self._desks.pop(next(iter(self._desks)))
            found = Desk(self._home.name, study, cohort, self._books(), self._rules(), Entropy.system(), tell=self._tell)
        found.ledger, found.policy = self._books(), self._rules()
        found.ceiling = Budget(min(made.ceiling, study.budget.epsilon), study.budget.delta)
        self._desks[study.digest] = found
        return found

    def _rules(self) -> Policy:
        """The policy, read once a call."""
        if self._rules_now is None:
            self._rules_now = self._home.policy
        return self._rules_now

    def _books(self) -> Ledger:
        """The one ledger, opened again when the steward has changed the budget."""
        policy = self._rules()
        if self._ledger is None or self._policy is None or policy.budget != self._policy.budget:
            self.close()
            self._ledger = self._home.ledger()
            self._policy = policy
        return self._ledger

    def _checkpoint(self) -> Checkpoint | None:
        try:
            return checkpoint(self._books(), self._rules(), self._key)
        except AhhError as error:
            self._tell(str(error))
            return None

    def _kept(self, consortium: str, call: Call) -> tuple[Checkpoint, ...]:
        try:
            return self._memory.others(consortium) if call.action == PROPOSE else ()
        except AhhError as error:
            self._tell(str(error))
            return ()

    def _record(self, consortium: str, request: Request, reply: Reply, *, paid: bool) -> None:
        self._log(
            "ask",
            always=paid,
            consortium=consortium,
            study=request.study,
            ask=f"{request.ask}:{request.step}"[:80],
            query=request.kind[:80],
            decision=str(reply.status),
            reason=reply.reason,
            spent=min(self._books().spent().epsilon(self._rules().budget.delta), 1e6),
        )

    def _note(self, consortium: str, study: str, action: str, reason: Reason, why: str) -> None:
        """Say and log a refusal.  A study that stays refused and is proposed again and again is logged once."""
        if action == PROPOSE and not self._news(study, reason):
            return
        self._tell(f"refused: {why}")
        try:
            self._log("refused", consortium=consortium, study=study[:64], action=action, reason=str(reason))
        except Misuse as misuse:  # refused all the same
            self._tell(str(misuse))

    def _news(self, study: str, standing: str) -> bool:
        """Whether a study stands otherwise than when it was last proposed."""
        if self._told.get(study) == standing:
            return False
        if len(self._told) >= _STUDIES:
            self._told = {}
        self._told[study] = standing
        return True

    def _log(self, event: str, *, always: bool = False, **facts: Fact) -> None:
        """Whoever calls may fill the log with what was paid for, and with so many other lines a minute."""
        if not always and not self._quota.allows():
            return
        if self._quota.withheld:
            self._home.audit.write("withheld", lines=self._quota.withheld)
            self._quota.withheld = 0
        self._home.audit.write(event, **facts)


def _own(call: Call) -> tuple[Checkpoint, ...]:
    return () if call.witness is None else (call.witness,)


def _refused(call: Call, reason: Reason) -> bytes:
    if call.action == PROPOSE:
        return Standing(call.study, "refused", str(reason)).to_bytes()
    return Reply(_request_id(call), Status.REFUSED, reason=str(reason)).to_bytes()


def _failed(call: Call) -> bytes:
    if call.action == PROPOSE:
        return Standing(call.study, "pending").to_bytes()
    return Reply(_request_id(call), Status.FAILED).to_bytes()


def _request_id(call: Call) -> str:
    """A request's id is the SHA-256 of its canonical bytes, which the body is or is not."""
    return hashlib.sha256(call.body).hexdigest()
