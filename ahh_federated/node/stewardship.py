"""Studies that were proposed to this node, and what its data steward decided about each.

A proposal is kept as the canonical bytes that came, in a file named after their SHA-256.  A decision is signed with the node's
key over the study's digest: a study that was changed by one byte has no decision, and a decision that was edited has no
signature.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from ahh_federated.core.costs import LEAST_EPSILON, MOST_EPSILON
from ahh_federated.errors import Breach, Misuse, Reason, Refusal
from ahh_federated.identity import verify
from ahh_federated.node.home import NodeHome
from ahh_federated.node.settings import write
from ahh_federated.study import Study, canonical, open_study, read_canonical

Verdict = Literal["approved", "refused", "revoked"]
MOST_WAITING = 200  # proposals of a consortium that nobody has decided on: a coordinator must not fill the disk
_DOMAIN = "ahh-decision/1"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the steward decided.  `ceiling` is in epsilon at the study's delta; after `expires` the approval has ended."""

    digest: str
    verdict: Verdict
    ceiling: float
    expires: date
    by: str
    time: str
    signature: str = ""

    def spelled(self) -> bytes:
        """What is signed."""
        content = {**asdict(self), "expires": self.expires.isoformat()}
        del content["signature"]
        return canonical(content)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A study with the consortium through which it came and when (UTC); both empty for one that came as a file."""

    study: Study
    consortium: str
    received: str
    decision: Decision | None


def propose(home: NodeHome, content: bytes, consortium: str) -> Proposal:
    """Keep a study for the steward to decide on; the same study again changes nothing.

    Args:
        home: the node.
        content: the canonical JSON of a study.
        consortium: through which it came; empty for one that the steward was handed as a file.

    Raises:
        Misuse: when it cannot be read, or too many wait for a decision.
    """
    digest = hashlib.sha256(content).hexdigest()
    known = recall(home, digest)
    if known is not None and (known.consortium or not consortium):
        return known
    study = read_canonical(content)
    if known is None and _waiting(home, consortium) >= MOST_WAITING:
        raise Misuse(f"{MOST_WAITING} studies wait for a decision here: approve or refuse some first")
    received = datetime.now(UTC).isoformat(timespec="seconds")
    write(_origin_file(home, digest), canonical({"consortium": consortium, "received": received}))
    write(_study_file(home, digest), content)
    return Proposal(study, consortium, received, decision(home, digest))


def recall(home: NodeHome, digest: str) -> Proposal | None:
    """The study of this digest, if it was proposed."""
    return _proposal(home, digest) if _DIGEST.fullmatch(digest) and _study_file(home, digest).exists() else None


def proposals(home: NodeHome) -> list[Proposal]:
    """Every study that was proposed, oldest first."""
    digests = (path.stem for path in home.studies.glob("*.json"))
    found = [_proposal(home, digest) for digest in digests if _DIGEST.fullmatch(digest)]
    return sorted(found, key=lambda proposal: (proposal.received, proposal.study.digest))


def find(home: NodeHome, name: str) -> Proposal:
    """The proposal that a person means: a study's id, the beginning of its digest, or the path of a study file.

    Raises:
        Misuse: when there is none, or more than one.
    """
    if name.endswith(".toml") or "/" in name:
        study = open_study(name)
        return recall(home, study.digest) or Proposal(study, "", "", decision(home, study.digest))
    known_ones = proposals(home)
    prefix = len(name) >= 6 and re.fullmatch(r"[0-9a-f]+", name)
    meant = [each for each in known_ones if each.study.id == name or (prefix and each.study.digest.startswith(name))]
    if not meant:
        there = ", ".join(sorted({each.study.id for each in known_ones})) or "none yet"
        raise Misuse(f"no study {name!r} was proposed here: `ahh node studies` lists them ({there}), or give a study file")
    if len(meant) > 1:
        which = ", ".join(f"{each.study.digest[:12]} (version {each.study.version})" for each in meant)
        raise Misuse(f"{name!r} names {len(meant)} studies: give the beginning of a digest instead: {which}")
    return meant[0]


def decide(
    home: NodeHome,
    digest: str,
    verdict: Verdict,
    *,
    ceiling: float | None = None,
    expires: date | None = None,
    by: str,
    today: date | None = None,
) -> Decision:
    """Sign and keep a decision on a study that was proposed; it is in the audit log before it holds.

    Args:
        home: the node.
        digest: of the study.
        verdict: approved, refused or revoked; only an approved study can be revoked.
        ceiling: the most the study may spend here, in epsilon at its own delta; its own epsilon if None.
        expires: the last day on which it holds; the study's own if None or later.
        by: who decides.
        today: for tests.

    Raises:
        Misuse: for an unknown study, or a ceiling or a day that makes no sense.
        Refusal: when the policy forbids what is to be approved, or the study has expired.
    """
    study = _proposal(home, digest).study
    limit = study.budget.epsilon if ceiling is None else ceiling
    last = study.expires if expires is None else min(expires, study.expires)
    if verdict == "approved":
        _check_approval(home, study, limit, last, today or datetime.now(UTC).date())
    elif verdict == "revoked":
        made = decision(home, digest)
        if made is None or made.verdict != "approved":
            raise Misuse(f"the study {study.id} is not approved here, so there is nothing to revoke: `refuse` it instead")
        limit, last = made.ceiling, made.expires
    made = Decision(digest, verdict, float(limit), last, by, datetime.now(UTC).isoformat(timespec="seconds"))
    signature = home.key.sign(_DOMAIN, made.spelled())
    home.audit.write(verdict, study=digest, id=study.id, ceiling=made.ceiling, until=last.isoformat(), by=by)
    content = {**json.loads(made.spelled()), "signature": signature}
    write(_decision_file(home, digest), canonical(content))
    return Decision(**{**asdict(made), "signature": signature})


def decision(home: NodeHome, digest: str) -> Decision | None:
    """What was decided on a study, if anything.

    Raises:
        Refusal: with Reason.APPROVAL when the file was edited, is of another study, or is not signed by this node.
    """
    path = _decision_file(home, digest)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refusal(Reason.APPROVAL, f"{path} cannot be read ({error.strerror}): check the file and its rights") from None
    try:
        made = _read_decision(json.loads(content))
        verify(home.key.public, _DOMAIN, made.spelled(), made.signature)
        if made.digest != digest:
            raise Breach("a decision is on another study")
    except (ValueError, TypeError, KeyError, RecursionError, Breach):
        fix = "decide on the study again, and find out who changed the file"
        raise Refusal(Reason.APPROVAL, f"{path.name} is not as this node signed it: {fix}") from None
    return made


def _check_approval(home: NodeHome, study: Study, ceiling: float, last: date, today: date) -> None:
    if not LEAST_EPSILON <= ceiling <= MOST_EPSILON:
        fix = "give for example --ceiling 1.0"
        raise Misuse(f"the ceiling {ceiling:g} is not an epsilon from {LEAST_EPSILON:g} to {MOST_EPSILON:g}: {fix}")
    if last < today:
        fix = "give a later day, or ask for a study that ends later"
        raise Refusal(Reason.EXPIRED, f"an approval of the study {study.id} would end on {last}, which is past: {fix}")
    objections = home.policy.objections(study)
    if objections:
        raise Refusal(Reason.COLUMN, f"the policy forbids the study {study.id}: {'; '.join(objections)}; or refuse the study")


def _read_decision(content: Any) -> Decision:
    if set(content) != set(Decision.__slots__) or content["verdict"] not in get_args(Verdict):
        raise ValueError("unknown keys or verdict")
    texts = ("digest", "by", "time", "signature", "expires")
    if not all(isinstance(content[name], str) for name in texts) or not isinstance(content["ceiling"], float):
        raise TypeError("texts and a number")
    return Decision(**{**content, "expires": date.fromisoformat(content["expires"])})


def _proposal(home: NodeHome, digest: str) -> Proposal:
    path = _study_file(home, digest)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Misuse(f"no study {digest[:12]} was proposed here: `ahh node studies` lists them") from None
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): check the file and its rights") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise Refusal(Reason.STUDY, f"{path.name} was changed after it came: remove it, and find out who changed it")
    consortium, received = _origin(home, digest)
    return Proposal(read_canonical(content), consortium, received, decision(home, digest))


def _waiting(home: NodeHome, consortium: str) -> int:
    """How many studies of a consortium nobody has decided on."""
    known = (path.stem for path in home.studies.glob("*.json") if _DIGEST.fullmatch(path.stem))
    undecided = (digest for digest in known if not _decision_file(home, digest).exists())
    return sum(_origin(home, digest)[0] == consortium for digest in undecided)


def _origin(home: NodeHome, digest: str) -> tuple[str, str]:
    """Through which consortium a study came, and when."""
    try:
        origin = json.loads(_origin_file(home, digest).read_bytes())
        return str(origin["consortium"]), str(origin["received"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        file = _study_file(home, digest)
        raise Misuse(f"the origin of {file} cannot be read: remove both files, and the study is proposed again") from None


def _study_file(home: NodeHome, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise Misuse("a digest is 64 hexadecimal digits: `ahh node studies` shows them")
    return home.studies / f"{digest}.json"


def _origin_file(home: NodeHome, digest: str) -> Path:
    return home.studies / f"{digest}.origin.json"


def _decision_file(home: NodeHome, digest: str) -> Path:
    _study_file(home, digest)
    return home.studies / f"{digest}.decision.json"
