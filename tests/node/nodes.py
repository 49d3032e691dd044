"""Real nodes in a folder, with tables of made-up patients: shared by the tests of reception, post and service."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from ahh_federated.core.costs import Spent
from ahh_federated.errands import ASK, PROPOSE, Call, Checkpoint, Receipt, Standing
from ahh_federated.node.home import NodeHome, create_home
from ahh_federated.node.ledger import Kind, Ledger
from ahh_federated.node.policy import write_policy
from ahh_federated.node.reception import Reception
from ahh_federated.node.sources import file_source
from ahh_federated.node.stewardship import Decision, decide, propose
from ahh_federated.study import Study, canonical
from ahh_federated.wire import Reply, Request
from tests.study.samples import QUIET, TODAY, request, rows, small

CONSORTIUM = "harbour"
STUDY = small(*QUIET)
COLUMNS = ("sex", "smoked", "weight", "bmi", "seen")


def node(folder: Path, name: str = "north", table: pd.DataFrame | None = None, minimum: int = 1) -> NodeHome:
    """A node with a table and a budget that the small study fits into."""
    home = create_home(folder / name, name)
    path = folder / f"{name}.csv"
    (rows(300) if table is None else table).to_csv(path, index=False)
    home.connect(file_source(path))
    write_policy(home.policy_path, data="synthetic", allowed=COLUMNS)
    rule(home, "epsilon = 4", "epsilon = 9")
    rule(home, "delta = 1e-05", "delta = 1e-3")
    rule(home, "minimum = 10", f"minimum = {minimum}")
    return home


def rule(home: NodeHome, old: str, new: str) -> None:
    """Change one line of a node's rules."""
    text = home.policy_path.read_text()
    assert text.count(old) == 1, old
    home.policy_path.write_text(text.replace(old, new))


def spelled(study: Study = STUDY) -> bytes:
    return canonical(study.content)


def approve(home: NodeHome, study: Study = STUDY, ceiling: float | None = None) -> Decision:
    propose(home, spelled(study), CONSORTIUM)
    return decide(home, study.digest, "approved", ceiling=ceiling, by="the steward", today=TODAY)


def reception(home: NodeHome, tell: Callable[[str], None] = lambda message: None) -> Reception:
    return Reception(home, tell, clock=lambda: TODAY)


def asking(ask: str = "children", step: int = 0, parameters: Mapping[str, list[float]] | None = None, **other: object) -> Call:
    """A call with a request of the small study; `other` are fields of the call, `body` among them."""
    study = other.pop("about", STUDY)
    assert isinstance(study, Study)
    body = request(study, ask, step, parameters).to_bytes()
    fields = {"consortium": CONSORTIUM, "action": ASK, "study": study.digest, "attempt": secrets.token_hex(4), "body": body}
    return Call(**{**fields, **other})


def proposing(about: Study = STUDY, **other: object) -> Call:
    """A call that proposes a study; `other` are fields of the call."""
    fields = {"consortium": CONSORTIUM, "action": PROPOSE, "study": about.digest, "attempt": "1", "body": spelled(about)}
    return Call(**{**fields, **other})


def receipt(asked: Reception, home: NodeHome, call: Call, consortium: str = CONSORTIUM) -> Receipt:
    """The node's receipt, whose signature holds for this call."""
    found = Receipt.from_bytes(asked.answer(consortium, call.to_bytes()))
    found.check(home.key.public, call)
    return found


def reply(asked: Reception, home: NodeHome, call: Call) -> Reply:
    found = Reply.from_bytes(receipt(asked, home, call).body)
    assert found.request == Request.from_bytes(call.body).id
    return found


def standing(asked: Reception, home: NodeHome, call: Call) -> tuple[str, str]:
    found = Standing.from_bytes(receipt(asked, home, call).body)
    assert found.study == call.study
    return found.standing, found.reason


def shown(asked: Reception, home: NodeHome) -> Checkpoint:
    """The node's word on its ledger as it is now."""
    found = receipt(asked, home, proposing()).checkpoint
    assert found is not None
    return found


def spent(home: NodeHome) -> tuple[Spent, int, int]:
    """What the ledger says: the sum, how many debits, how many releases."""
    with Ledger.inspect(home.ledger_path) as ledger:
        kinds = [entry.kind for entry in ledger.entries()]
        return ledger.spent(), kinds.count(Kind.DEBIT), kinds.count(Kind.RELEASE)


def last_event(home: NodeHome) -> dict[str, object]:
    return list(home.audit.entries())[-1]
