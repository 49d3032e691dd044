"""Bytes to partners and back over Flower's grid: what the coordinator's post needs of an engine."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import final

from flwr.app import Message
from flwr.serverapp import Grid

from ahh_federated.errors import Breach
from ahh_federated.runtimes.flower.apps import MESSAGE_TYPE, packed, unpacked

_UNSENT = "unsent:"
_FRESH = 0.2  # seconds that a look for nodes is good for


@final
class GridCarrier:
    """Calls go out one by one and at once; what has come back is collected for all of them together.

    Use it in one thread, within one run.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._nodes: dict[str, int] = {}
        self._online: frozenset[str] = frozenset()
        self._looked = -math.inf
        self._unsent = 0

    def online(self) -> frozenset[str]:
        """Partners whose node has been heard of in the last seconds."""
        if time.monotonic() - self._looked > _FRESH:
            found = {node.name: node.node_id for node in self._grid.get_nodes() if node.name}
            self._nodes.update(found)
            self._online, self._looked = frozenset(found), time.monotonic()
        return self._online

    def send(self, partner: str, data: bytes) -> str:
        """Send to a partner; the ticket is for `collect`.  A call to one that cannot be reached gets no reply."""
        if partner not in self._nodes:
            self.online()
        node = self._nodes.get(partner)
        if node is None:
            return self._no_reply()
        message = Message(packed(data), node, MESSAGE_TYPE)
        tickets = list(self._grid.push_messages([message]))
        return (tickets[0] if tickets else "") or self._no_reply()

    def collect(self, tickets: Iterable[str]) -> Mapping[str, bytes | None]:
        """The replies that have come since, by ticket.

        None: no reply will come; the node went offline, failed, or sent what is no reply.  A ticket is answered once.
        """
        asked = set(tickets)
        done: dict[str, bytes | None] = {ticket: None for ticket in asked if ticket.startswith(_UNSENT)}
        waiting = asked - set(done)
        for message in self._grid.pull_messages(waiting) if waiting else ():
            if message.metadata.reply_to_message_id in waiting:
                done[message.metadata.reply_to_message_id] = _bytes(message)
        return done

    def _no_reply(self) -> str:
        self._unsent += 1
        return f"{_UNSENT}{self._unsent}"


def _bytes(message: Message) -> bytes | None:
    try:
        return unpacked(message)
    except Breach:
        return None
