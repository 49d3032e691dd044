"""What this project uses of Flower beyond its public API, all in one place (pinned: flwr==1.41.0).

tests/runtimes/test_flower_contract.py fails when a new version moves any of it.
"""

from __future__ import annotations

from typing import Any

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

CLIENT_RAISED: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def become_task(run_id: int) -> None:
    """`Message(...)` needs the process-wide identity of the task it is made in."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, 1


def name_message(message: Message, message_id: str) -> None:
    message.metadata.__dict__["_message_id"] = message_id


def through_the_wire(message: Message) -> Message:
    """The message after Flower's own serialisation and back, as the network would deliver it."""
    contents = {object_id: each.deflate() for object_id, each in get_all_nested_objects(message).items()}
    copy: Any = inflate_object_from_contents(message.object_id, contents)
    name_message(copy, message.metadata.message_id)
    assert isinstance(copy, Message)
    return copy


__all__ = ["CLIENT_RAISED", "NodeInfo", "Run", "become_task", "name_message", "through_the_wire"]
