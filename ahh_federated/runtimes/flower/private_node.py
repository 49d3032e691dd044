"""What a node uses of Flower beyond its public API (pinned: flwr==1.41.0): the Fleet client and its messages.

tests/runtimes/test_flower_contract.py fails when a new version moves any of it.
"""

from __future__ import annotations

import ssl
from typing import final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree, no_object_id_recompute
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from ahh_federated.identity import Key
from ahh_federated.runtimes.flower.binding import DOMAIN, HEADER, mark, spelled
from ahh_federated.runtimes.flower.private import deflated, filled, name_message

INTERVAL = 10  # seconds: Flower's least; a node is offline when it was silent for twice as long
_LARGEST = 65 << 20  # bytes of an answer of the coordinator
_MOST_PARTS = 16  # of a message; ours have three
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@final
class FleetLine:
    """One node's line to one coordinator: TLS 1.3 with the pinned authority only, every request signed by the node.

    It never asks for an app.  Methods raise httpx.HTTPError.
    """

    def __init__(self, address: str, ca: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=ca.decode("ascii"))
        self._public = public_key_to_bytes(key.public_key())
        self._key, self._mark = Key.of(key), mark(ca)
        self._client = FleetHttpClient(
            f"https://{address}", interceptors=[NodeAuthHttpInterceptor(key, key.public_key())], verify=context
        )
        inner = self._client._client
        inner.timeout = _TIMEOUT
        inner.follow_redirects = False
        inner._mounts.clear()  # no proxy out of the environment: the firewall knows one address
        inner.headers["accept-encoding"] = "identity"
        inner.event_hooks = {"request": [self._bind], "response": [_bounded]}

    def _bind(self, request: httpx.Request) -> None:
        time = request.headers[TIMESTAMP_HEADER].encode()
        request.headers[HEADER] = self._key.sign(DOMAIN, spelled(self._mark, request.url.raw_path, time, request.content))

    def activate(self) -> int:
        """The node's id.  HTTP 412: the coordinator believes it is still online."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=INTERVAL)
        node_id: int = self._client.ActivateNode(request).node_id
        return node_id

    def beat(self, node_id: int) -> bool:
        """Say that the node lives; False when the coordinator does not know it."""
        request = SendNodeHeartbeatRequest(node=Node(node_id=node_id), heartbeat_interval=INTERVAL)
        return bool(self._client.SendNodeHeartbeat(request).success)

    def deactivate(self, node_id: int) -> None:
        self._client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))

    def pull(self, node_id: int) -> Message | None:
        """A message if there is one; the coordinator may take some seconds to say that there is none.

        It has no content when what comes is no message.
        """
        node = Node(node_id=node_id)
        found = self._client.PullMessages(PullMessagesRequest(node=node))
        if not found.messages_list:
            return None
        envelope, tree = message_from_proto(found.messages_list[0]), found.message_object_trees[0]
        wanted = [each.object_id for each in iterate_object_tree(tree)]
        parts = {each: self._part(node, envelope.metadata.run_id, each) for each in wanted[:_MOST_PARTS]}
        return filled(envelope, parts)

    def _part(self, node: Node, run_id: int, part: str) -> bytes:
        request = PullObjectRequest(node=node, run_id=run_id, object_id=part)
        content: bytes = self._client.PullObject(request).object_content
        return content

    def push(self, node_id: int, reply: Message, seconds: float) -> None:
        """Send a reply that took the app so many seconds."""
        node, run_id = Node(node_id=node_id), reply.metadata.run_id
        name_message(reply, reply.object_id)
        with no_object_id_recompute():
            parts = deflated(reply)
            request = PushMessagesRequest(
                node=node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
        found = self._client.PushMessages(request)
        for part in found.objects_to_push:
            self._client.PushObject(
                PushObjectRequest(
                    node=node, run_id=run_id, object_id=part, object_content=parts[part], session_id=found.session_id
                )
            )

    def push_nothing(self) -> None:
        """A request that is in order but for its content.  HTTP 401: the key is not admitted; 403: it is."""
        self._client.PushMessages(PushMessagesRequest())

    def close(self) -> None:
        self._client.close()


def _bounded(response: httpx.Response) -> None:
    """Before an answer is read: it has a length, a sane one, and is not packed."""
    length = response.headers.get("content-length", "")
    if not length.isdigit() or int(length) > _LARGEST or "content-encoding" in response.headers:
        raise httpx.RemoteProtocolError("the coordinator sent an answer of a size that cannot be")
