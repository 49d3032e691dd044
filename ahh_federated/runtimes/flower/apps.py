"""The project's ServerApp and ClientApp, written against Flower's public Message API.

The same two objects run in one process (inprocess.py), between machines (superlink.py, supernode.py), and on stock
Flower.  One message carries one canonical request, call or receipt as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from ahh_federated.core.releases import Status
from ahh_federated.errors import Breach
from ahh_federated.wire import Reply, Request, checked

ACTION = "ahh"
MESSAGE_TYPE = f"query.{ACTION}"
HOLD = 5.0  # seconds that a pull waits at the coordinator for a message, so that nodes need not ask all the time
_RECORD, _KEY = "ahh", "bytes"


def client_app(answer: Callable[[Context, bytes], bytes]) -> ClientApp:
    """A node's app: bytes in, bytes out.  It runs no code it is sent.

    `answer` had better not raise: Flower's own nodes send the text of an exception to the coordinator.
    """
    app = ClientApp()

    def reply(message: Message, context: Context) -> Message:
        return Message(packed(answer(context, unpacked(message))), reply_to=message)

    app.query(ACTION)(reply)
    return app


def server_app(run: Callable[[Grid], None]) -> ServerApp:
    """The coordinator's app: gives `run` the grid."""
    app = ServerApp()

    def main(grid: Grid, context: Context) -> None:
        run(grid)

    app.main()(main)
    return app


@dataclass(frozen=True, slots=True)
class GridLink:
    """A link over Flower's grid; a partner is the name of its node.  `timeout`: seconds a round may take."""

    grid: Grid
    timeout: float

    @property
    def partners(self) -> tuple[str, ...]:
        return tuple(sorted(node.name for node in self.grid.get_nodes()))

    def exchange(self, request: Request, partners: Iterable[str]) -> Mapping[str, Reply]:
        nodes = {node.name: node.node_id for node in self.grid.get_nodes()}
        asked = list(partners)
        content = packed(request.to_bytes())
        group = f"{request.ask}:{request.step}"
        messages = {
            name: Message(content, nodes[name], MESSAGE_TYPE, group_id=group, ttl=self.timeout) for name in asked if name in nodes
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
        return checked(unpacked(message), request)
    except Breach:
        return Reply(request.id, Status.FAILED)


def packed(data: bytes) -> RecordDict:
    return RecordDict({_RECORD: ConfigRecord({_KEY: data})})


def unpacked(message: Message) -> bytes:
    """Raises Breach when the message carries no bytes."""
    record = message.content.get(_RECORD) if message.has_content() else None
    data = record.get(_KEY) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise Breach("a message holds no bytes")
    return data
