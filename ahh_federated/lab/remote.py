"""A researcher's side of a federation: submit a study to a coordinator, follow it, fetch its results.

    antwerp = ahh.connect("antwerp")
    results = antwerp.run("child-overweight.toml", out="out")

What is fetched is the transcript; every number is computed here from it, as `ahh replay` does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

from ahh_federated.coordinator.queue import State, match
from ahh_federated.coordinator.transcript import TRANSCRIPT, read_transcript
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.lab.studies import StudyResults, replay
from ahh_federated.runtimes.handouts import Access, read_access
from ahh_federated.runtimes.https import names, plain
from ahh_federated.study import Study, canonical, open_study
from ahh_federated.study.fields import is_name

PATIENCE = 600.0  # seconds that a coordinator may be out of reach while one waits for it
_OWN = ("title", "by", "submitted", "reason")  # told only of one's own studies
_SLOWEST = 15.0  # seconds between two questions to a coordinator that does not answer


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How far a study is.

    `state`: queued, waiting (for approvals), running, done, failed or cancelled, with a `reason`.  `position` in the queue
    counts from 1.  `progress` says which ask and step, and what each partner said last.  Of other researchers' studies only
    digest, id, state and position are told.
    """

    digest: str
    id: str
    state: State
    position: int | None
    title: str
    by: str
    submitted: str
    reason: str
    progress: Mapping[str, Any]

    @property
    def mine(self) -> bool:
        return bool(self.by)

    @property
    def partners(self) -> dict[str, str]:
        """What each partner said last."""
        told = self.progress.get("partners")
        return {plain(str(name)): plain(str(what)) for name, what in told.items()} if isinstance(told, dict) else {}

    @property
    def step(self) -> str:
        """Where it is, like "model, 3 of 9 steps answered"; empty when no ask is being asked."""
        ask, step, of = (self.progress.get(name) for name in ("ask", "step", "of"))
        return plain(f"{ask}, {step} of {of} steps answered") if ask else ""

    def __str__(self) -> str:
        where = f"place {self.position} in the queue" if self.position else self.step
        return ", ".join(part for part in (f"{self.id}: {self.state}", where if not self.state.over else "", self.reason) if part)


class Follower(Protocol):
    """Told of progress while waiting: a new status, or that the coordinator is out of reach for now."""

    def moved(self, status: StudyStatus) -> None: ...

    def lost(self, error: Unreachable) -> None: ...


class _Quiet:
    def moved(self, status: StudyStatus) -> None:
        pass

    def lost(self, error: Unreachable) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A coordinator that this researcher has access to.

    Wherever a study is named, give its file, its id, the beginning of its digest, or an opened study.  Every method raises
    Unreachable when the coordinator does not answer, and Misuse when it says no, with the reason.
    """

    access: Access

    def submit(self, study: Study | Path | str) -> StudyStatus:
        """Hand a study in.  The same study again changes nothing, unless it failed or was cancelled: then it is queued afresh."""
        opened = study if isinstance(study, Study) else open_study(study)
        status = _status(self.access.peer.post("/studies", canonical(opened.content)))
        if status.digest != opened.digest:
            raise Breach(f"{self.access.address} answers about another study than the one that was submitted")
        return status

    @overload
    def status(self) -> list[StudyStatus]: ...

    @overload
    def status(self, study: Study | Path | str) -> StudyStatus: ...

    def status(self, study: Study | Path | str | None = None) -> StudyStatus | list[StudyStatus]:
        """One study, or every study of the coordinator, oldest first."""
        if study is not None:
            return _status(self.access.peer.get(f"/studies/{self._digest(study)}"))
        studies = self.access.peer.get("/studies").get("studies")
        if not isinstance(studies, list):
            raise Breach(f"{self.access.address} does not answer with a list of studies")
        return [_status(each) for each in studies]

    def wait(self, study: Study | Path | str, watcher: Follower | None = None, *, every: float = 1.0) -> StudyStatus:
        """Wait until a study is over: done, failed or cancelled.

        A coordinator that is out of reach, because it restarts for example, is waited for up to ten minutes.

        Args:
            study: the study.
            watcher: told of progress.
            every: seconds between two questions.
        """
        watcher = watcher or _Quiet()
        digest = self._digest(study)
        heard, pause = time.monotonic(), every
        while True:
            try:
                status = _status(self.access.peer.get(f"/studies/{digest}"))
            except Unreachable as error:
                if time.monotonic() - heard > PATIENCE:
                    raise
                watcher.lost(error)
                pause = min(2 * pause, _SLOWEST)
            else:
                watcher.moved(status)
                if status.state.over:
                    return status
                heard, pause = time.monotonic(), every
            time.sleep(pause)

    def fetch(self, study: Study | Path | str, out: Path | str) -> StudyResults:
        """Download the transcript of a study that is done, compute every number from it, and write all into a folder.

        Raises:
            Misuse: when it is not done, or is another researcher's.
            Breach: when the transcript is about another study, or its numbers do not follow.
        """
        digest, out = self._digest(study), Path(out)
        try:
            out.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".fetch-", dir=out))
        except OSError as error:
            raise Misuse(f"{out} cannot be written to ({error.strerror}): give a folder, new or old, as OUT") from None
        try:
            self.access.peer.download(f"/studies/{digest}/transcript", draft / TRANSCRIPT)
            found, _, _ = read_transcript(draft / TRANSCRIPT)
            if found.study.digest != digest or found.stamp:  # before any of it is computed with
                raise Breach(f"{self.access.address} sent a transcript of another study: nothing of it is kept")
            if not all(is_name(each) for each in found.partners):
                raise Breach(f"{self.access.address} sent a transcript with partners that have no names: nothing of it is kept")
            replay(draft).save(draft)
            os.replace(draft / TRANSCRIPT, out / TRANSCRIPT)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        results = replay(out)
        results.save(out)
        return results

    def run(self, study: Study | Path | str, out: Path | str | None = None, watcher: Follower | None = None) -> StudyResults:
        """Submit a study, wait for it, and fetch it; without `out` nothing is kept on the disk.

        Raises:
            Misuse: when it failed or was cancelled, with the reason.
        """
        digest = self.submit(study).digest
        over = self.wait(digest, watcher)
        if over.state is not State.DONE:
            raise Misuse(f"the study {over.id} is {over.state}: {over.reason or 'no reason was given'}")
        if out is not None:
            return self.fetch(digest, out)
        with tempfile.TemporaryDirectory() as folder:
            return self.fetch(digest, folder)

    def cancel(self, study: Study | Path | str) -> StudyStatus:
        """Stop one's own study.  What partners have released and paid stays so."""
        return _status(self.access.peer.post(f"/studies/{self._digest(study)}/cancel", b""))

    def _digest(self, study: Study | Path | str) -> str:
        if isinstance(study, Study):
            return study.digest
        if isinstance(study, Path) or str(study).endswith(".toml"):
            return open_study(study).digest
        return study if len(study) == 64 else match(self.status(), study).digest

    def __repr__(self) -> str:
        return f"Coordinator({self.access.coordinator!r} at {self.access.address}, as {self.access.researcher!r})"


def connect(name: str | None = None) -> Coordinator:
    """The coordinator of this name; the name may be left out when only one is known.

    Raises:
        Misuse: when there is no access file for it.
    """
    names = known()
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        have = f"known: {', '.join(names)}" if names else "none is known"
        what = f"no coordinator is called {name!r}" if name else "no coordinator is named"
        raise Misuse(f"{what} ({have}): run `ahh login` with the access file that its operator sent")
    return Coordinator(read_access(_folder() / f"{name}.toml"))


def login(path: Path | str) -> Coordinator:
    """Keep an access file for `connect`, for this user alone; it takes the place of an earlier one.

    Raises:
        Misuse: when it is no access file, or the coordinator does not accept it: nothing is kept then.
        Unreachable: when the coordinator does not answer: nothing is kept then.
    """
    path = Path(path)
    access = read_access(path)
    access.peer.get("/studies")
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, draft = tempfile.mkstemp(dir=folder)  # mode 0600
        with os.fdopen(handle, "wb") as file:
            file.write(path.read_bytes())
        os.replace(draft, folder / f"{access.coordinator}.toml")
    except OSError as error:
        raise Misuse(f"{folder} cannot be written to ({error.strerror}): set AHH_CONFIG to a folder that is yours") from None
    return Coordinator(access)


def known() -> list[str]:
    """The coordinators that this user has access to."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def _folder() -> Path:
    return Path(os.environ.get("AHH_CONFIG") or Path.home() / ".config" / "ahh")


def _status(content: Any) -> StudyStatus:
    if not isinstance(content, dict):
        raise Breach("a status is a table")
    digest, id_, state = names(content, "digest", "id", "state")
    position, progress = content.get("position"), content.get("progress", {})
    if state not in list(State) or not isinstance(progress, dict) or not isinstance(position, int | None):
        raise Breach("a status has a known state, a place in the queue and the progress")
    title, by, submitted, reason = names({**dict.fromkeys(_OWN, ""), **content}, *_OWN)
    texts = (plain(title), plain(by), plain(submitted), plain(reason))
    return StudyStatus(plain(digest), plain(id_), State(state), position, *texts, progress)
