"""What the coordinator uses of Flower beyond its public API (pinned: flwr==1.41.0): the SuperLink application and its state.

tests/runtimes/test_flower_contract.py fails when a new version moves any of it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    NOOP_FEDERATION_ID,
    NodeStatus,
    TaskType,
)
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute
from flwr.supercore.sql_mixin import _set_sqlite_pragmas
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.main import create_app
from sqlalchemy import create_engine, event
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import QueuePool

from ahh_federated.runtimes.flower.onerun import OneRunGrid
from ahh_federated.runtimes.flower.private import NodeInfo, Run, deflated, filled, name_message

KEY_HEADER, SIGNATURE_HEADER, TIME_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER
EARLIEST, LATEST = -SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE  # age of a signature, seconds

_GLANCE = 1.0  # seconds between two looks for nodes gone offline
_KEPT = {"node", "alembic_version"}
_MIDDLEWARE = {"http_error_translator", "ProtobufTranslationMiddleware", "NodeAuthMiddleware"}


class _NoServers:
    """In place of Flower's lifespan, which can start gRPC servers and subprocesses when the environment asks for them."""

    def __init__(self, config: Any, factory: Any) -> None:
        pass

    def startup(self) -> None:
        """Nothing beside the application."""

    def shutdown(self) -> None:
        """Nothing beside the application."""


def superlink_app(database: str) -> tuple[Any, State]:
    """Flower's SuperLink application on a SQLite file, with SuperNode authentication on, and its state."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # its errors quote requests
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=secrets.token_bytes(32),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=database,
        isolation="process",
        runtime_dependency_install=False,
    )
    app = create_app(config, cast(Any, _NoServers))
    app.user_middleware = [each for each in app.user_middleware if _name(each) in _MIDDLEWARE]
    return app, State(_quickened(app.state.linkstate_factory.state()))


def _quickened(link: Any) -> Any:
    """Flower's state on one connection, so that threads queue for it instead of polling SQLite's lock, and without the
    bookkeeping that nobody reads here: traffic, running time, and tasks without a heartbeat.
    """
    link._engine.dispose()
    link._engine = create_engine(
        link.database_url, poolclass=QueuePool, pool_size=1, max_overflow=0, connect_args={"check_same_thread": False}
    )
    event.listen(link._engine, "connect", _set_sqlite_pragmas)
    link._session_factory = sessionmaker(bind=link._engine)
    store = link.object_store
    store._engine.dispose()
    store._engine, store._session_factory = link._engine, link._session_factory
    for name in ("store_traffic", "add_clientapp_runtime", "_cleanup_expired_task_tokens"):
        setattr(link, name, _nothing)
    return link


def _nothing(*args: Any, **named: Any) -> None:
    """Stands for bookkeeping that is not kept."""


def _name(middleware: Any) -> str:
    dispatch = middleware.kwargs.get("dispatch")
    return str(middleware.cls.__name__ if dispatch is None else dispatch.__name__)


def is_from(node_id: int, body: bytes) -> bool:
    """Whether a push of messages is one message of this very node.

    Flower checks that the request comes from `node`, and that a reply is from the node asked, but not that the two are one.
    """
    try:
        request = PushMessagesRequest.FromString(body)
    except Exception:  # protobuf's decoder has several
        return False
    return [request.node.node_id, *(message.metadata.src_node_id for message in request.messages_list)] == [node_id, node_id]


@dataclass(frozen=True, slots=True)
class State:
    """Flower's LinkState: who the nodes are, and for the time of one run its messages."""

    link: Any

    def register(self, name: str, key: bytes) -> int:
        """The id of the node `name` with this key; another key under that name is struck off.

        Raises ValueError when the key has been struck off, or is another's: Flower takes no key twice.
        """
        nodes = [info for info in self.link.get_node_info() if info.status != NodeStatus.UNREGISTERED and info.name == name]
        for info in nodes:
            if info.public_key != key:
                self.strike(info.node_id)
        mine = [info.node_id for info in nodes if info.public_key == key]
        node_id: int = mine[0] if mine else self.link.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0, name=name)
        return node_id

    def strike(self, node_id: int) -> None:
        self.link.delete_node(NOOP_FLWR_AID, node_id)

    def online(self) -> list[NodeInfo]:
        return list(self.link.get_node_info(statuses=[NodeStatus.ONLINE]))

    def start_run(self) -> Run:
        """A run without any app to install: its ServerApp is in this process."""
        run_id = self.link.create_run(
            "ahh/ahh-federated", "0.0.0", None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task_id = self.link.get_run_info(run_ids=[run_id])[0].primary_task_id
        self.link.claim_task(task_id)
        self.link.activate_task(task_id)
        # Without a token the task needs no heartbeat: it lives and dies with this process.
        self.link.query("UPDATE task SET token = NULL WHERE task_id = :task", {"task": uint64_to_int64(task_id)})
        run: Run = self.link.get_run_info(run_ids=[run_id])[0]
        return run

    def forget(self) -> None:
        """Drop every run with its messages, and keep the nodes: what lasts is in the transcript and the ledgers."""
        tables = [row["name"] for row in self.link.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        with self.link.session():
            self.link.query("PRAGMA defer_foreign_keys = ON")
            for name in tables:
                if name not in _KEPT and not name.startswith("sqlite_"):
                    self.link.query(f"DELETE FROM {name}")

    def redeliver(self, node_id: int) -> None:
        """Hand a node that has come back whatever it was sent and has not been collected from it."""
        node = {"node": uint64_to_int64(node_id)}
        with self.link.session():
            sent = "SELECT message_id FROM message_ins WHERE dst_node_id = :node"
            self.link.query(f"DELETE FROM message_res WHERE reply_to_message_id IN ({sent})", node)
            self.link.query("UPDATE message_ins SET delivered_at = '' WHERE dst_node_id = :node", node)

    def whole_replies(self) -> set[str]:
        """The messages whose reply has come with all its parts: Flower forgets the root of an upload when it is whole."""
        rows = self.link.query(
            "SELECT reply_to_message_id AS ticket FROM message_res WHERE delivered_at = ''"
            " AND message_id NOT IN (SELECT root_object_id FROM object_push_session_roots)"
        )
        return {row["ticket"] for row in rows}

    def parts(self, message_id: str) -> dict[str, bytes]:
        """A message's parts as they were sent, by id."""
        rows = self.link.query(
            "WITH RECURSIVE tree(id) AS (SELECT :root UNION SELECT child_id FROM object_children JOIN tree ON parent_id = id)"
            " SELECT object_id, content FROM objects JOIN tree ON object_id = id",
            {"root": message_id},
        )
        return {row["object_id"]: row["content"] for row in rows}

    def close(self) -> None:
        """Close the file."""
        self.link._engine.dispose()


class Door(Protocol):
    """What a grid must know of the server it calls through."""

    def ring(self, *nodes: int) -> None:
        """There is a message for these nodes."""

    @property
    def pushed(self) -> int:
        """How many times a node has handed something in."""


class StateGrid(OneRunGrid):
    """Flower's grid over the state in this process: no HTTP, and no sleep of three seconds."""

    def __init__(self, state: State, run: Run, door: Door, online: Callable[[], list[NodeInfo]]) -> None:
        super().__init__(run)
        self._link, self._state = state.link, state
        self._door = door
        self._online = online
        self._sent: dict[str, int] = {}
        self._seen, self._looked = -1, time.monotonic()

    def get_nodes(self) -> list[NodeInfo]:
        return self._online()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [self._push(message) for message in messages]

    def _push(self, message: Message) -> str:
        name_message(message, message.object_id)
        with no_object_id_recompute(), self._link.session():
            ticket: str | None = self._link.store_message_ins(remove_content_from_message(message))
            if ticket is None:
                return ""
            self._link.object_store.preregister(self._run.run_id, get_object_tree(message))
            for part, content in deflated(message).items():
                self._link.object_store.put(part, content)
        self._sent[ticket] = message.metadata.dst_node_id
        self._door.ring(message.metadata.dst_node_id)
        self._seen = -1
        return ticket

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are whole, and an error for a node that went offline.  Cheap to call while nothing has come."""
        asked, pushed, now = set(message_ids) & set(self._sent), self._door.pushed, time.monotonic()
        glance = now - self._looked > _GLANCE
        if not asked or (pushed == self._seen and not glance):
            return []
        self._seen = pushed
        ready = asked & self._state.whole_replies()
        if glance:
            self._looked, online = now, set(self.get_node_ids())
            ready |= {ticket for ticket in asked if self._sent[ticket] not in online}
        return self._take(ready) if ready else []

    def _take(self, tickets: set[str]) -> list[Message]:
        """Take these replies out of the state, with all that belongs to them."""
        taken, store = [], self._link.object_store
        with self._link.session():
            for reply in self._link.get_message_res(set(tickets), self._run.run_id):
                ticket, message_id = reply.metadata.reply_to_message_id, reply.metadata.message_id
                taken.append(reply if reply.has_error() else filled(reply, self._state.parts(message_id)))
                store.delete(message_id)
                store.delete(ticket)
                del self._sent[ticket]
            self._link.delete_messages({reply.metadata.reply_to_message_id for reply in taken})
        return taken
