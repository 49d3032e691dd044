"""The coordinator at work: it proposes queued studies, waits for the stewards, runs each study, and keeps its transcript.

A study's whole state is its place in the queue and its transcript.  After a crash it goes on from there: what was answered is
not asked again, and what was asked and not answered gets the bytes that the nodes have stored.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from ahh_federated.coordinator.home import CoordinatorHome
from ahh_federated.coordinator.post import Carrier, Post, SignedLink
from ahh_federated.coordinator.queue import Queue, Queued, State
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.session import Link, Outcome, Session
from ahh_federated.coordinator.transcript import TRANSCRIPT, Exchange, Header, Recorder, Spending
from ahh_federated.coordinator.witness import Witness
from ahh_federated.core.releases import Status
from ahh_federated.errands import Standing
from ahh_federated.errors import AhhError, Breach, Unreachable
from ahh_federated.study import Ask, Study, read_canonical
from ahh_federated.wire import Reply, Request

_PROPOSING = 20.0  # seconds a proposal waits for a node
_FIRST, _LONGEST = 1.0, 15.0  # seconds between two proposals of a study that waits


class Engine(Protocol):
    """What runs the work of one study; runtimes/flower/superlink.py is the one there is."""

    def run(self, work: Callable[[Carrier], None]) -> None: ...


class Halted(AhhError):
    """The study was cancelled, or the coordinator is stopping."""


@dataclass(slots=True)
class Service:
    """`tell` is given one line an event, for whoever runs the coordinator."""

    home: CoordinatorHome
    roster: Roster
    queue: Queue
    witness: Witness
    engine: Engine
    tell: Callable[[str], None]
    stop: threading.Event
    _due: dict[str, float] = field(default_factory=dict)
    _pause: dict[str, float] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)

    def serve(self) -> None:
        """Until `stop` is set."""
        self.queue.resume()
        while not self.stop.is_set():
            self._turn(self.queue.waiting())

    def finish(self, digest: str) -> None:
        """One study, until it is over."""
        self.queue.resume()
        while not self.stop.is_set() and (found := [each for each in self.queue.waiting() if each.digest == digest]):
            self._turn(found)

    def _turn(self, waiting: Sequence[Queued]) -> None:
        for queued in waiting:
            if self._due.get(queued.digest, 0.0) <= time.monotonic() and not self.stop.is_set():
                self._advance(queued)
        self.stop.wait(0.1)

    def _advance(self, queued: Queued) -> None:
        """One try at a study: propose it, and run it when the partners have decided."""
        try:
            study = read_canonical(queued.content)
            self.engine.run(lambda carrier: self._work(queued, study, carrier))
        except Halted:
            return
        except (Unreachable, OSError) as error:  # the machine's fault, not the study's
            self.tell(f"{queued.id}: {error}; trying again")
            self._due[queued.digest] = time.monotonic() + _LONGEST
            self.queue.resume()
        except AhhError as error:
            self._fail(queued, str(error))
        except Exception as error:  # the kind is enough for the researcher
            self._fail(queued, f"a fault of the software ({type(error).__name__}): report it with the coordinator's log")
            self.tell(f"{queued.id}: {type(error).__name__}: {error}")

    def _fail(self, queued: Queued, reason: str) -> None:
        self._move(queued, State.FAILED, reason)

    def _move(self, queued: Queued, state: State, reason: str = "") -> None:
        before = self.queue.get(queued.digest)
        if before is None or (before.state, before.reason) == (state, reason) or not self.queue.set(queued.digest, state, reason):
            return
        self.home.audit.write("study", study=queued.digest, id=queued.id, by=queued.by, state=str(state), reason=reason)
        self.tell(f"{queued.id} ({queued.digest[:12]}): {state}{f', {reason}' if reason else ''}")

    def _work(self, queued: Queued, study: Study, carrier: Carrier) -> None:
        roster = {partner.name: partner.public for partner in self.roster.partners() if not partner.revoked}
        post = Post(
            self.home.name, carrier, roster, self.witness, self.home.audit, lambda: self._halt(queued.digest), seen=self._seen
        )
        partners = self._begun(queued) or self._agreed(queued, study, post)
        if partners:
            self._move(queued, State.RUNNING)
            self._run(queued, study, partners, post)

    def _halt(self, digest: str) -> None:
        found = self.queue.get(digest)
        if self.stop.is_set() or found is None or found.state.over:
            raise Halted("the study is to stop")

    def _begun(self, queued: Queued) -> tuple[str, ...]:
        """The partners of a study whose transcript has begun."""
        path = self.home.run(queued.digest) / TRANSCRIPT
        if not path.exists() or b"\n" not in path.read_bytes():
            return ()
        return Recorder.mended(path)[0].partners

    def _agreed(self, queued: Queued, study: Study, post: Post) -> tuple[str, ...]:
        """All partners, once enough have approved and all have decided or the time for it is over; none while it must wait.

        Those that did not approve are in it to say so: their nodes refuse, and the results show it.
        """
        if datetime.now(UTC).date() > study.expires:
            raise Breach(f"the study expired on {study.expires}")
        standings = post.propose(study.digest, queued.content, sorted(post.roster), _PROPOSING)
        approved = tuple(name for name, standing in sorted(standings.items()) if _says(standing) == "approved")
        undecided = [name for name, standing in standings.items() if _says(standing) not in ("approved", "refused")]
        self.queue.note(queued.digest, _progress(study, {name: _words(each) for name, each in standings.items()}))
        hours = timedelta(hours=study.approval_hours)
        over = datetime.now(UTC) - datetime.fromisoformat(queued.submitted) > hours
        said = f"{len(approved)} of {len(standings)} partners have approved, the study needs {study.minimum_partners}"
        refused = Counter(_words(each) for each in standings.values() if _says(each) == "refused")
        said += "".join(f"; {count} {what}" for what, count in sorted(refused.items()))
        if over or (standings and not undecided):
            if len(approved) >= study.minimum_partners:
                return tuple(sorted(standings))
            raise Breach(said)
        self._move(queued, State.WAITING, said)
        pause = self._pause.get(queued.digest, _FIRST)
        self._due[queued.digest], self._pause[queued.digest] = time.monotonic() + pause, min(2 * pause, _LONGEST)
        return ()

    def _run(self, queued: Queued, study: Study, partners: tuple[str, ...], post: Post) -> None:
        out = self.home.run(queued.digest)
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        note = _Noting(self.queue, study, dict.fromkeys(partners, "approved"))
        with Recorder.resume(Header(study, partners, "", False), out) as recorder:
            link = Resumed(SignedLink(post, partners, study.round_deadline), tuple(recorder.exchanges))
            outcomes = Session(study, link, recorder.record, note).outcomes()
            recorder.finish(self._spending(partners, post.roster))
        answered = any(outcome.status is Status.RELEASED for outcome in outcomes)
        self._move(queued, State.DONE, "" if answered else f"but no ask has an answer: {outcomes[0].reason}")

    def _spending(self, partners: Iterable[str], roster: Mapping[str, str]) -> dict[str, Spending]:
        latest = {each.node: each for each in self.witness.all()}
        marks = {partner.name: partner.fingerprint for partner in self.roster.partners() if partner.name in roster}
        found = {name: latest[marks[name]] for name in partners if marks.get(name) in latest}
        return {name: Spending(each.epsilon, each.epsilon_limit, each.delta_limit) for name, each in found.items()}


@dataclass(slots=True)
class Resumed:
    """A link that gives what was recorded before a crash, in the order of the record, and asks only for what was not."""

    link: Link
    exchanges: tuple[Exchange, ...]
    _given: int = 0

    @property
    def partners(self) -> tuple[str, ...]:
        return self.link.partners

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        if self._given == len(self.exchanges):
            return self.link.exchange(request, partners)
        recorded = self.exchanges[self._given]
        self._given += 1
        if recorded.request.id != request.id:
            fix = "the software has changed since: cancel the study and submit it with a higher version"
            raise Breach(f"step {request.step} of {request.ask} is not the one that was asked before: {fix}")
        return recorded.replies


@dataclass(slots=True)
class _Noting:
    """A watcher that writes into the queue how far a study is."""

    queue: Queue
    study: Study
    partners: dict[str, str]

    def began(self, ask: Ask, steps: int) -> None:
        self._note(ask, 0, steps)

    def stepped(self, ask: Ask, number: int, replies: Mapping[str, Reply]) -> None:
        self.partners |= {
            name: f"{reply.status}: {reply.reason}" if reply.reason else str(reply.status) for name, reply in replies.items()
        }
        self._note(ask, number + 1, len(ask.lines))

    def ended(self, outcome: Outcome) -> None:
        pass

    def _note(self, ask: Ask, step: int, of: int) -> None:
        self.queue.note(self.study.digest, _progress(self.study, self.partners, ask.id, step, of))


def _progress(study: Study, partners: Mapping[str, str], ask: str | None = None, step: int = 0, of: int = 0) -> dict[str, Any]:
    asks = [each.id for each in study.asks]
    updated = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"ask": ask, "step": step, "of": of, "asks": asks, "partners": dict(sorted(partners.items())), "updated": updated}


def _says(standing: Standing | Status) -> str:
    return standing.standing if isinstance(standing, Standing) else str(standing)


def _words(standing: Standing | Status) -> str:
    reason = standing.reason if isinstance(standing, Standing) else ""
    return f"{_says(standing)}: {reason}" if reason else _says(standing)
