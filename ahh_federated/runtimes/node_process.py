"""A node as a process: `ahh node serve`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.home import NodeHome
from ahh_federated.node.reception import Reception
from ahh_federated.runtimes.flower.supernode import Membership, serve
from ahh_federated.runtimes.processes import alone, log, stopping
from ahh_federated.version import VERSION


def serve_node(home: NodeHome, tell: Callable[[str], None] | None = None, stop: threading.Event | None = None) -> None:
    """Answer the coordinators of every consortium this node is in, until SIGTERM or SIGINT.

    Args:
        home: an open node.
        tell: given one line an event; written to standard error by default.
        stop: ends the service as a signal would.

    Raises:
        Misuse: when no table is connected, or another process serves this node.
        Refusal: when the ledger is gone or broken.
    """
    say, key = tell or log, home.key
    with alone(home.path / "serving.lock", f"the node in {home.path}"):
        _check_ledger(home)
        say(f"ahh {VERSION} node {home.name} {key.fingerprint}, table {home.source.shown}")

        def memberships() -> list[Membership]:
            return [
                Membership(each.name, each.address, each.ca.encode(), key.private, home.node_id_path(each.name))
                for each in home.consortia().values()
            ]

        if not memberships():
            say("this node is in no consortium yet: `ahh node join INVITATION`; it need not be started again then")
        reception = Reception(home, say)
        with stopping(stop) as ending:
            try:
                serve(memberships, reception.answer, ending, say)
            finally:
                reception.close()
    say("stopped; what was released is in the ledger")


def _check_ledger(home: NodeHome) -> None:
    with home.ledger() as ledger:
        verdict = ledger.verify()
    if not verdict.ok:
        raise Refusal(Reason.LEDGER, f"the ledger is broken: {verdict.why}; put an undamaged copy back")
