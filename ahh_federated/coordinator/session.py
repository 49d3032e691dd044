"""A session: the coordinator runs every ask of a study over a link, round by round, and collects the answers.

The link is the only thing that differs between a run on one machine, a run over Flower and a replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.linalg import LinAlgError

from ahh_federated.analyses.models import Model
from ahh_federated.coordinator.transcript import Exchange
from ahh_federated.core.programs import Line, drive
from ahh_federated.core.queries import Query
from ahh_federated.core.releases import Answer, Exact, Release, Round, Status
from ahh_federated.core.sums import step
from ahh_federated.errors import AhhError, Breach
from ahh_federated.study import Ask, Study
from ahh_federated.wire import Reply, Request


class Link(Protocol):
    """How requests reach the partners."""

    @property
    def partners(self) -> tuple[str, ...]: ...

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        """One reply from each of the partners; one that did not answer has the status `offline`."""
        ...


class Watcher(Protocol):
    """Told of progress: an ask begins, a step was answered, an ask ended."""

    def began(self, ask: Ask, steps: int) -> None: ...

    def stepped(self, ask: Ask, number: int, replies: Mapping[str, Reply]) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...


class Silent:
    """A watcher that says nothing."""

    def began(self, ask: Ask, steps: int) -> None:
        pass

    def stepped(self, ask: Ask, number: int, replies: Mapping[str, Reply]) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        pass


_SINGULAR = "more than one model fits: a feature is constant, or follows from the others; leave it out"


class _TooFew(AhhError):
    """Fewer partners released than the study needs."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one ask came out.  `answer` has `to_json`; `coverage` says of every partner whether it is in."""

    ask: Ask
    status: Status
    reason: str
    answer: Any
    coverage: Mapping[str, Status]
    messages: int


@dataclass(slots=True)
class Session:
    """One study over one link.  `record` is given every exchange, in order, before it is used.

    A partner whose reply has not the form of a release has failed; in a replay (`strict`) it is a Breach: the record was changed.
    """

    study: Study
    link: Link
    record: Callable[[Exchange], None]
    watcher: Watcher
    run: str = ""
    exact: bool = False
    strict: bool = False
    _models: dict[str, Model] = field(default_factory=dict)

    def outcomes(self) -> list[Outcome]:
        """Run every ask in the study's order."""
        outcomes = []
        for ask in self.study.asks:
            outcome = self._outcome(ask)
            self.watcher.ended(outcome)
            outcomes.append(outcome)
        return outcomes

    def _outcome(self, ask: Ask) -> Outcome:
        absent = [name for name in ask.models if name not in self._models]
        if absent:
            coverage = dict.fromkeys(self.link.partners, Status.FAILED)
            return Outcome(ask, Status.FAILED, f"the model {absent[0]!r} has no answer", None, coverage, 0)
        asking = _Asking(self, ask)
        analysis = ask.runnable(self._models, exact=self.exact)
        self.watcher.began(ask, len(analysis.schedule()))
        try:
            answer = drive(analysis, asking.round)
        except _TooFew as error:
            return Outcome(ask, _commonest(asking.coverage.values()), str(error), None, asking.coverage, asking.messages)
        except LinAlgError:
            return Outcome(ask, Status.FAILED, _SINGULAR, None, asking.coverage, asking.messages)
        if isinstance(answer, Model):
            self._models[ask.id] = answer
        return Outcome(ask, Status.RELEASED, "", answer, asking.coverage, asking.messages)


@dataclass(slots=True)
class _Asking:
    """The rounds of one ask.  A partner that does not release once is not asked again."""

    session: Session
    ask: Ask
    coverage: dict[str, Status] = field(init=False)
    messages: int = 0

    def __post_init__(self) -> None:
        self.coverage = dict.fromkeys(self.session.link.partners, Status.RELEASED)

    def round(self, number: int, line: Line, query: Query) -> Round:
        session = self.session
        parameters = {name: [float(value) for value in values] for name, values in query.parameters().items()}
        request = Request(session.study.digest, session.run, self.ask.id, number, query.kind, parameters)
        asked = [name for name, status in self.coverage.items() if status is Status.RELEASED]
        received = session.link.exchange(request, asked)
        if set(received) != set(asked):
            raise Breach("a link answers for exactly the partners that were asked")
        sigma = 0 if session.exact else session.study.event(self.ask, line).sigma
        decode = _strictly if session.strict else _leniently
        decoded = {name: decode(reply, query, sigma, session.exact) for name, reply in received.items()}
        replies = {name: reply for name, (reply, _) in decoded.items()}
        session.record(Exchange(request, replies))
        session.watcher.stepped(self.ask, number, replies)
        self.messages += 1
        self.coverage |= {name: reply.status for name, reply in replies.items()}
        answers: dict[str, Answer | Status] = {**self.coverage, **{name: answer for name, (_, answer) in decoded.items()}}
        released = [name for name, status in self.coverage.items() if status is Status.RELEASED]
        if len(released) < session.study.minimum_partners:
            why = _reasons(replies.values())
            raise _TooFew(f"{len(released)} partners released, the study needs {session.study.minimum_partners} ({why})")
        return Round(query, answers)


def _strictly(reply: Reply, query: Query, sigma: int, exact: bool) -> tuple[Reply, Answer | Status]:
    return reply, _decode(reply, query, sigma, exact)


def _leniently(reply: Reply, query: Query, sigma: int, exact: bool) -> tuple[Reply, Answer | Status]:
    """One partner's fault is that partner's alone: it has failed, and the others' answers count."""
    try:
        return reply, _decode(reply, query, sigma, exact)
    except Breach:
        return Reply(reply.request, Status.FAILED), Status.FAILED


def _decode(reply: Reply, query: Query, sigma: int, exact: bool) -> Answer | Status:
    if reply.status is not Status.RELEASED:
        if reply.cells is not None or reply.exact is not None or reply.sigma:
            raise Breach(f"a reply that is {reply.status} carries numbers")
        return reply.status
    if exact and reply.exact is not None:
        if reply.exact.shape != (query.width,) or not np.isfinite(reply.exact).all():
            raise Breach(f"an exact answer to {query.kind} is {query.width} finite numbers")
        return Exact(reply.exact)
    if exact or reply.exact is not None or reply.cells is None or reply.sigma != sigma:
        raise Breach("a release lacks its numbers, or has other noise than the study says")
    return Release.from_bytes(reply.cells, width=query.width, step=step(query), sigma=sigma)


def _reasons(replies: Iterable[Reply]) -> str:
    """How many partners said what, like "3 refused: budget"."""
    said = Counter(f"{reply.status}: {reply.reason}" if reply.reason else str(reply.status) for reply in replies)
    return ", ".join(f"{count} {what}" for what, count in sorted(said.items()) if what != str(Status.RELEASED))


def _commonest(statuses: Iterable[Status]) -> Status:
    """Why an ask has no answer: what most of the partners that did not release say, ties in the order of the list."""
    found: list[Status] = [status for status in statuses if status is not Status.RELEASED]
    order: tuple[Status, ...] = (Status.REFUSED, Status.FAILED, Status.OFFLINE, Status.BELOW)
    return max(order, key=lambda status: found.count(status)) if found else Status.FAILED
