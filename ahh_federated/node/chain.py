"""The ledger's entries, their hash chain, and the sums over them: no file is touched here.

Each entry carries the SHA-256 of itself and of the one before.  The chain shows any edited, dropped, swapped
or inserted entry.  It cannot show that the last entries were cut off or rewritten, nor that the whole file
gave way to an older copy: for that, a head must be kept elsewhere (a witness).

The filter adds up mu^2 over everything ever debited, whoever asked and however the questions were chosen:
valid under fully adaptive choice (Smith & Thakurta, "Fully adaptive composition for Gaussian differential
privacy", 2022).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from ahh_federated.core.costs import SAMPLED, Budget, Event, Spent
from ahh_federated.errors import Misuse, Reason, Refusal

RESTORE = "stop the node, verify the ledger, and restore the file from a copy no older than the last release"


class Kind(StrEnum):
    """What an entry records."""

    BUDGET = "budget"  # the data set's budget from here on
    DEBIT = "debit"  # a release is paid for
    RELEASE = "release"  # the bytes of a paid release
    BURN = "burn"  # what a witness saw spent and this copy of the ledger has lost


@dataclass(frozen=True, slots=True)
class Head:
    """The place of an entry in the chain and its hash; the last one stands for the whole ledger."""

    seq: int
    hash: str


GENESIS = Head(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.  `time` is UTC and for reading only: no rule looks at it.

    `epsilon` and `delta` are the data set's budget in a budget entry and the study's ceiling in a debit;
    `debit` is the entry that paid for a release; `bytes_hash` is the SHA-256 of the bytes released.  In a burn, `debit` and
    `request` are the lost entry's number and hash.  Only messages of a plan (core/costs.py) have the last four.
    """

    seq: int = 0
    kind: str = ""
    time: str = ""
    dataset: str = ""
    request: str | None = None
    study: str | None = None
    ask: str | None = None
    query: str | None = None
    mechanism: str | None = None
    sensitivity: int | None = None
    sigma: int | None = None
    width: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    debit: int | None = None
    bytes_hash: str | None = None
    previous: str = ""
    hash: str = ""
    rate: int | None = None
    count: int | None = None
    place: int | None = None
    steps: int | None = None

    @property
    def event(self) -> Event | None:
        """What a debit paid for.  ValueError if this version has no price for it."""
        if self.mechanism is None or self.sensitivity is None or self.sigma is None or self.width is None:
            return None
        plan = {name: getattr(self, name) for name in PLAN if getattr(self, name) is not None}
        return Event(self.sensitivity, self.sigma, self.width, self.mechanism, **plan)

    @property
    def budget(self) -> Budget | None:
        """The data set's budget (budget entry) or the study's ceiling (debit)."""
        return None if self.epsilon is None or self.delta is None else Budget(self.epsilon, self.delta)


COLUMNS = tuple(field.name for field in fields(Entry))
PLAN = ("rate", "count", "place", "steps")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk over the chain found: how many entries are sound, the last of these, and what comes wrong.

    `first_bad` is where the first bad entry is or should have been; None when all is well or the file is
    damaged as a whole.
    """

    ok: bool
    entries: int
    head: Head
    first_bad: int | None
    why: str


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest(entry: Entry) -> str:
    """SHA-256 over the canonical JSON of every field but `hash`, and but those of a plan where there is none."""
    row = {name: getattr(entry, name) for name in COLUMNS if name != "hash"}
    row = {name: value for name, value in row.items() if value is not None or name not in PLAN}
    # repr: a field edited into a type of its own must hash to something, not raise
    return sha256(json.dumps(row, sort_keys=True, separators=(",", ":"), default=repr).encode())


def chained(entry: Entry, head: Head, time: str) -> Entry:
    """The entry as the successor of `head`."""
    placed = replace(entry, seq=head.seq + 1, previous=head.hash, time=time)
    return replace(placed, hash=digest(placed))


def flaw(entry: Entry, before: Head) -> str:
    """What is wrong with an entry as the successor of `before`; empty when it is sound."""
    if entry.seq != before.seq + 1:
        return f"entry {before.seq + 1} is missing or out of place"
    if entry.previous != before.hash:
        return "it does not follow the entry before it: one of the two was swapped, inserted or rewritten"
    if entry.hash != digest(entry):
        return "its content does not match its hash: it was edited"
    if entry.kind not in tuple(Kind):
        return f"this version knows no entry of kind {entry.kind!r}"
    if before == GENESIS and entry.kind != Kind.BUDGET:
        return "a ledger begins with a budget"
    return ""


def distrust(dataset: str, what: str) -> Refusal:
    return Refusal(Reason.LEDGER, f"ledger of data set {dataset!r}: {what}")


def broken(dataset: str, seq: int, why: str) -> Refusal:
    return distrust(dataset, f"entry {seq}: {why}; {RESTORE}")


def walk(rows: Iterable[tuple[Entry, object]], witness: Head | None) -> Verdict:
    """Judge a whole chain, each entry with its stored bytes or None, against a witnessed head if any."""
    head, paid, witnessed = GENESIS, dict[int | None, str | None](), witness in (None, GENESIS)
    for entry, released in rows:
        why = flaw(entry, head) or _misfit(entry, released, paid)
        if why:
            return Verdict(False, head.seq, head, head.seq + 1, why)
        if entry.kind == Kind.DEBIT:
            paid[entry.seq] = entry.request
        head = Head(entry.seq, entry.hash)
        witnessed = witnessed or head == witness
    if head == GENESIS:
        return Verdict(False, 0, head, 1, "there is no entry at all: a ledger begins with a budget")
    if witness is None:
        why = "a tail cut off or rewritten would not show without a witness"
        return Verdict(True, head.seq, head, None, f"{head.seq} entries are sound; {why}")
    if not witnessed:
        first_bad = min(witness.seq, head.seq + 1)
        return Verdict(False, head.seq, head, first_bad, "the witnessed entry is gone or rewritten")
    return Verdict(True, head.seq, head, None, f"{head.seq} entries are sound and hold the witnessed one")


def _misfit(entry: Entry, released: object, paid: dict[int | None, str | None]) -> str:
    if entry.kind != Kind.RELEASE:
        return "it holds bytes but is no release" if released is not None else ""
    if entry.debit not in paid or paid.pop(entry.debit) != entry.request:
        return "it was released without a debit of its own"
    if not isinstance(released, bytes):
        return "its bytes are gone"
    return "" if sha256(released) == entry.bytes_hash else "its bytes are not the ones released"


class Plans:
    """Which messages of plans were debited: each time a plan is paid for, each of its places may be asked once.

    A plan belongs to an ask of a study.  A burn ends them all: what was lost may have gone on with them.
    """

    __slots__ = ("_debited",)

    def __init__(self) -> None:
        self._debited: Counter[tuple[str | None, str, Event]] = Counter()

    def admits(self, study: str | None, step: str | None, event: Event) -> bool:
        paid, used = (self._debited[_key(study, step, each)] for each in (event.first, event))
        return not event.place or used < paid

    def follow(self, entry: Entry, event: Event) -> None:
        if entry.kind == Kind.BURN:
            self._debited.clear()
        elif event.mechanism == SAMPLED:
            self._debited[_key(entry.study, entry.ask, event)] += 1

    def unfinished(self, opened: Iterable[Entry] = ()) -> Spent:
        """What those cost of which messages are left, and what `opened` cost: debits whose release has not been drawn."""
        made: Counter[tuple[str | None, str, Event]] = Counter()
        for (study, ask, event), times in self._debited.items():
            made[(study, ask, event.first)] += times
        left = [plan for plan, times in made.items() if times * plan[2].steps < self._debited[plan] * plan[2].count]
        events = [plan[2] for plan in left for _ in range(self._debited[plan])]
        for entry in opened:
            if entry.event is not None and _key(entry.study, entry.ask, entry.event.first) not in left:
                events.append(entry.event.first)
        return Spent.of(events)


def _key(study: str | None, step: str | None, event: Event) -> tuple[str | None, str, Event]:
    return study, (step or "").rpartition(":")[0], event  # the ask of an "ask:step"


class Totals:
    """Running sums over a chain up to `head`, for the data set and for each study."""

    __slots__ = ("_plans", "budget", "dataset", "head", "studies", "whole")

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self.head = GENESIS
        self.budget: Budget | None = None
        self.whole = Spent()
        self.studies: dict[str, Spent] = {}
        self._plans = Plans()

    def study(self, name: str) -> Spent:
        return self.studies.get(name, Spent())

    def follow(self, entry: Entry) -> None:
        """Take in the next entry; Refusal if it does not fit or has no price."""
        why = flaw(entry, self.head)
        if why:
            raise broken(self.dataset, entry.seq, why)
        try:
            event, budget = entry.event, entry.budget
            cost = Spent.of([event] if event is not None else [])
        except ValueError as error:
            raise broken(self.dataset, entry.seq, f"this version cannot price it ({error})") from error
        except Misuse as error:
            raise distrust(self.dataset, f"entry {entry.seq} cannot be priced: {error}") from None
        if entry.kind == Kind.BUDGET:
            self.budget = budget
        if entry.kind == Kind.DEBIT:
            if event is None or entry.study is None:
                raise broken(self.dataset, entry.seq, "a debit names its study and its event")
            if not self._plans.admits(entry.study, entry.ask, event):
                raise broken(self.dataset, entry.seq, "it belongs to a plan that was not paid for")
            self.studies[entry.study] = self.study(entry.study) + cost
        if entry.kind in (Kind.DEBIT, Kind.BURN) and event is not None:
            self._plans.follow(entry, event)
            self.whole += cost
        self.head = Head(entry.seq, entry.hash)

    def admit(self, study: str, ask: str, event: Event, ceiling: Budget) -> None:
        """Refusal with what is left, if the event would pass the data set's budget or the study's ceiling.

        A later message of a plan costs nothing, and is refused unless the same ask has paid for the same plan.
        """
        if self.budget is None:
            raise broken(self.dataset, 1, "a ledger begins with a budget")
        if not self._plans.admits(study, ask, event):
            what = f"step {ask} belongs to a plan of sampled sums that was not paid, or not with these numbers"
            raise Refusal(Reason.SCHEDULE, f"{self.dataset}: {what}: begin with its first message, or raise the study's version")
        if event.place:
            return
        whole, own, cost = self.whole, self.study(study), Spent.of([event])
        if not (whole + cost).within(self.budget):
            fix = "ask for less, or let the data steward raise the budget in policy.toml"
            raise _exceeded(f"data set {self.dataset!r}", whole, self.budget, event, fix)
        if not (own + cost).within(ceiling):
            raise _exceeded(f"study {study!r}", own, ceiling, event, "ask for less, or have a higher ceiling approved")


def _exceeded(name: str, spent: Spent, cap: Budget, event: Event, fix: str) -> Refusal:
    now, then = spent.epsilon(cap.delta), (spent + event).epsilon(cap.delta)
    said = f"epsilon {now:.4g} of {cap.epsilon:g} at delta {cap.delta:g} is spent, and this answer would make it {then:.4g}"
    return Refusal(Reason.BUDGET, f"{name}: {said}; {fix}")
