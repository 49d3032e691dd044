"""What this project uses of Flower beyond its public API, for messages (pinned: flwr==1.41.0).

The coordinator's half is in private_link.py and the node's in private_node.py, so that a run in one process imports neither.
tests/runtimes/test_flower_contract.py fails when a new version moves any of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from ahh_federated.errors import Misuse

__all__ = [
    "CLIENT_RAISED",
    "NodeInfo",
    "Run",
    "deflated",
    "failed",
    "filled",
    "inflated",
    "name_message",
    "task",
    "through_the_wire",
]

CLIENT_RAISED: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION

_one_task = threading.Lock()


@contextmanager
def task(run_id: int, task_id: int | None = 1) -> Iterator[None]:
    """A coordinator's work over Flower, one at a time in a process.

    `Message(...)` reads the run it belongs to from one place for the whole process, so two runs at once would send in each
    other's name.  A node needs none of this: a reply takes all from the message it replies to.

    Raises:
        Misuse: when there is another one.
    """
    if not _one_task.acquire(blocking=False):
        raise Misuse("another run over Flower is under way in this process: wait for its end, or take another process")
    try:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task_id or 1, run_id, 1
        yield
    finally:
        _one_task.release()


def name_message(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def failed(message: Message) -> Message:
    """The reply of a node whose app raised.  The text of an error could quote a patient: only a code crosses."""
    return Message(Error(CLIENT_RAISED), reply_to=message)


def deflated(message: Message) -> dict[str, bytes]:
    """A message as Flower sends it: content-addressed parts by id, children first."""
    return {object_id: each.deflate() for object_id, each in get_all_nested_objects(message).items()}


def inflated(message_id: str, parts: dict[str, bytes]) -> Message:
    """The message that these parts spell.  Raises any exception when they spell none."""
    message: Any = inflate_object_from_contents(message_id, dict(parts))
    if not isinstance(message, Message):
        raise ValueError("the parts spell no message")
    name_message(message, message_id)
    return message


def filled(envelope: Message, parts: dict[str, bytes]) -> Message:
    """The envelope with the content that these parts spell; without when they spell none, since they come from outside."""
    try:
        whole = inflated(envelope.metadata.message_id, parts)
        if whole.has_content():
            envelope.content = whole.content
    except Exception:  # whatever is wrong with it, there is no content
        pass
    return envelope


def through_the_wire(message: Message) -> Message:
    """The message after Flower's own serialisation and back, as the network would deliver it."""
    copy = inflated(message.object_id, deflated(message))
    name_message(copy, message.metadata.message_id)
    return copy
