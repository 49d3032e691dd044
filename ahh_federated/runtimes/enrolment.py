"""A node joins a consortium: it shows that it holds its key, and spends the token of its invitation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from ahh_federated.coordinator.roster import JOIN
from ahh_federated.errors import Breach, Misuse
from ahh_federated.node.home import Consortium, NodeHome
from ahh_federated.runtimes.handouts import read_invitation, write_invitation
from ahh_federated.runtimes.https import names
from ahh_federated.study.fields import is_name

__all__ = ["join", "write_invitation"]

_LONGEST = 100  # characters of a fingerprint


def join(home: NodeHome, invitation: Path) -> Consortium:
    """Join the consortium that the file invites to; the node may be in others.  May be repeated when the answer was lost.

    Raises:
        Misuse: when the file is no invitation or has expired, the node is a member already, or the coordinator says no.
        Unreachable: when no coordinator under the invitation's own authority answers.
        Breach: when its answer is about somebody else.
    """
    asked = read_invitation(invitation)
    if asked.consortium in home.consortia():
        raise Misuse(f"this node is in the consortium {asked.consortium} already: there is nothing to join")
    key = home.key
    content = {"token": asked.token, "public": key.public, "signature": key.sign(JOIN, asked.token.encode())}
    answer = asked.peer.post("/join", json.dumps(content).encode())
    roster = answer.get("roster")
    if names(answer, "consortium", "partner") != (asked.consortium, asked.partner) or not isinstance(roster, dict):
        raise Breach(f"{asked.address} answers for another consortium or partner than the invitation names")
    members = dict(zip(roster, names(roster, *roster), strict=True))
    if not all(is_name(name) and mark.isprintable() and len(mark) <= _LONGEST for name, mark in members.items()):
        raise Breach(f"{asked.address} answers with a roster that is none: names of partners and fingerprints of their keys")
    if members.get(asked.partner) != key.fingerprint:
        raise Breach(f"{asked.address} has enrolled another key than this node's: tell its operator")
    consortium = Consortium(
        name=asked.consortium,
        partner=asked.partner,
        address=asked.address,
        ca=asked.ca,
        roster=members,
        joined=datetime.now(UTC).isoformat(timespec="seconds"),
        coordinator=asked.consortium,
    )
    home.add_consortium(consortium)
    return consortium
