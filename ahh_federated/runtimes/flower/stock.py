"""The apps for stock `flower-superlink` and `flower-supernode`, for who runs Flower already; docs/stock-flower.md is the recipe.

The ServerApp drives one study of a coordinator's folder and ends; the ClientApp answers for a node's folder.  The nodes' keys,
policies, approvals, ledgers and receipts are the same as everywhere.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ahh_federated.coordinator.home import open_home as open_coordinator
from ahh_federated.coordinator.post import Carrier
from ahh_federated.coordinator.queue import Queue, State
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.service import Service
from ahh_federated.coordinator.witness import Witness
from ahh_federated.errors import Misuse
from ahh_federated.node.home import open_home as open_node
from ahh_federated.node.reception import Reception
from ahh_federated.runtimes.flower.apps import client_app
from ahh_federated.runtimes.flower.carrier import GridCarrier
from ahh_federated.study import canonical, open_study

server = ServerApp()


@dataclass(frozen=True, slots=True)
class _Given:
    """An engine that has its grid already."""

    carrier: Carrier

    def run(self, work: Callable[[Carrier], None]) -> None:
        work(self.carrier)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run the study `study` (a file) for the coordinator in the folder `home`, both named in the run's configuration.

    Raises:
        Misuse: when the study fails; Flower then shows the run as failed.
    """
    home = open_coordinator(Path(_named(context.run_config, "home")))
    study = open_study(_named(context.run_config, "study"))
    with closing(Roster(home.database)) as roster, closing(Queue(home.database)) as queue:
        queue.submit(canonical(study.content), "stock-flower")
        with closing(Witness(home.database)) as witness:
            engine = _Given(GridCarrier(grid))
            Service(home, roster, queue, witness, engine, _say, threading.Event()).finish(study.digest)
        over = queue.get(study.digest)
    if over is None or over.state is not State.DONE:
        raise Misuse(f"the study {study.id} is not done: {over.reason if over else 'it was removed'}")


@lru_cache(maxsize=1)
def _reception(home: str) -> Reception:
    return Reception(open_node(Path(home)), _say)


def _answer(context: Context, data: bytes) -> bytes:
    """A reception answers whatever it is sent; where there is no node, only the kind of error is said."""
    try:
        home, consortium = (_named(context.node_config, name) for name in ("home", "consortium"))
        return _reception(home).answer(consortium, data)
    except Exception as error:  # its text would go to the coordinator
        _say(f"no answer: {error}")
        raise RuntimeError(type(error).__name__) from None


client = client_app(_answer)


def _named(config: Mapping[str, object], name: str) -> str:
    value = config.get(name)
    if not isinstance(value, str) or not value:
        raise Misuse(f"the configuration lacks {name!r}: see docs/stock-flower.md")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
