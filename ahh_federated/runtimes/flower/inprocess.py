"""Flower's grid inside one process: no socket and no Ray, but the real apps and the real serialisation."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import date

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ahh_federated.coordinator.session import Link
from ahh_federated.node.desk import Desk
from ahh_federated.runtimes.flower.apps import GridLink, client_app, server_app
from ahh_federated.runtimes.flower.onerun import OneRunGrid
from ahh_federated.runtimes.flower.private import NodeInfo, Run, failed, name_message, task, through_the_wire

_TIMEOUT = 600.0  # seconds; in one process a node that does not answer has raised


class InProcessGrid(OneRunGrid):
    """Delivers every message at once to the node's ClientApp and keeps the reply until it is pulled."""

    def __init__(self, app: ClientApp, partners: Iterable[str]) -> None:
        super().__init__(Run.create_empty(run_id=secrets.randbits(62)))
        self._app = app
        self._names = {_node_id(name): name for name in partners}
        self._contexts = {
            node_id: Context(self._run.run_id, node_id, {"partner": name}, RecordDict(), {})
            for node_id, name in self._names.items()
        }
        self._replies: dict[str, Message] = {}

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node_id, name=name, status="online") for node_id, name in self._names.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            name_message(message, secrets.token_hex(16))
            ids.append(message.metadata.message_id)
            self._replies[ids[-1]] = self._deliver(message)
        return ids

    def _deliver(self, message: Message) -> Message:
        try:
            reply = self._app(through_the_wire(message), self._contexts[message.metadata.dst_node_id])
            return through_the_wire(reply)
        except Exception:  # its text could quote a patient: only a code crosses
            return failed(message)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(each) for each in list(message_ids) if each in self._replies]


def _node_id(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def run_in_process(desks: Mapping[str, Desk], today: date, run: Callable[[Link], None]) -> None:
    """Run a coordinator's work over Flower, with every partner's desk behind a ClientApp in this process.

    Args:
        desks: by partner.
        today: the date the nodes go by.
        run: called with the link, inside the ServerApp.
    """

    def answer(context: Context, data: bytes) -> bytes:
        return desks[str(context.node_config["partner"])].answer(data, today)

    grid = InProcessGrid(client_app(answer), desks)
    context = Context(grid.run.run_id, 1, {}, RecordDict(), {})
    with task(grid.run.run_id):
        server_app(lambda grid: run(GridLink(grid, _TIMEOUT)))(grid=grid, context=context)
