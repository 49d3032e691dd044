"""What Flower's grid must offer and is the same however messages travel: one run, and waiting for replies."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from ahh_federated.runtimes.flower.private import Run

_TICK = 0.02  # seconds between two looks for replies


class OneRunGrid(Grid):
    """A grid of the run `run`; who the nodes are, and how to push and pull, is the subclass's."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        return [node.node_id for node in self.get_nodes()]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies that came within `timeout` seconds, by default however long they take."""
        waiting = {ticket for ticket in self.push_messages(messages) if ticket}
        received: list[Message] = []
        end = None if timeout is None else time.monotonic() + timeout
        while waiting:
            found = list(self.pull_messages(waiting))
            received += found
            waiting -= {message.metadata.reply_to_message_id for message in found}
            if not waiting or (end is not None and time.monotonic() >= end):
                break
            time.sleep(_TICK)
        return received
