"""The project's ServerApp and ClientApp, written against Flower's public Message API.

The same two objects run in one process (inprocess.py) and between machines.  One message a step carries one
canonical request; its reply carries one canonical reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from ahh_federated.coordinator.session import Link
from ahh_federated.core.releases import Status
from ahh_federated.errors import Breach
from ahh_federated.node.desk import Desk
from ahh_federated.runtimes.local import checked
from ahh_federated.wire import Reply, Request

ACTION = "ahh"
_MESSAGE_TYPE = f"query.{ACTION}"
_RECORD, _KEY = "ahh", "bytes"


def client_app(desk_of: Callable[[Context], Desk], today: Callable[[], date]) -> ClientApp:
    """A node's app: hands the request's bytes to the desk and its bytes back.  It runs no code it is sent."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        data = desk_of(context).answer(_unpacked(message), today())
        return Message(_packed(data), reply_to=message)

    app.query(ACTION)(answer)
    return app


def server_app(run: Callable[[Link], None], timeout: float) -> ServerApp:
    """The coordinator's app: gives `run` a link over the grid.  `timeout`: seconds a round may take."""
    app = ServerApp()

    def main(grid: Grid, context: Context) -> None:
        run(GridLink(grid, timeout))

    app.main()(main)
    return app


@dataclass(frozen=True, slots=True)
class GridLink:
    """A link over Flower's grid; a partner is the name of its node."""

    grid: Grid
    timeout: float

    @property
    def partners(self) -> tuple[str, ...]:
        return tuple(sorted(node.name for node in self.grid.get_nodes()))

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        nodes = {node.name: node.node_id for node in self.grid.get_nodes()}
        asked = list(partners)
        content = _packed(request.to_bytes())
        group = f"{request.ask}:{request.step}"
        messages = {
            name: Message(content, nodes[name], _MESSAGE_TYPE, group_id=group, ttl=self.timeout)
            for name in asked
            if name in nodes
        }
        received = list(self.grid.send_and_receive(list(messages.values()), timeout=self.timeout))
        answers = {message.metadata.reply_to_message_id: message for message in received}
        replies = {name: _reply(answers.get(sent.metadata.message_id), request) for name, sent in messages.items()}
        return {name: replies.get(name, Reply(request.id, Status.OFFLINE)) for name in asked}


def _reply(message: Message | None, request: Request) -> Reply:
    if message is None:
        return Reply(request.id, Status.OFFLINE)
    if message.has_error():
        return Reply(request.id, Status.FAILED)
    try:
        return checked(_unpacked(message), request)
    except Breach:
        return Reply(request.id, Status.FAILED)


def _packed(data: bytes) -> RecordDict:
    return RecordDict({_RECORD: ConfigRecord({_KEY: data})})


def _unpacked(message: Message) -> bytes:
    record = message.content.get(_RECORD)
    data = record.get(_KEY) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise Breach("a message holds no request")
    return data
