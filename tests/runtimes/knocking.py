"""Requests to a coordinator as a node, or somebody who is none, could make them by hand."""

from __future__ import annotations

import base64
import socket
import ssl
from datetime import UTC, datetime

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from ahh_federated.identity import pem
from ahh_federated.runtimes.flower.binding import DOMAIN, HEADER, mark, spelled
from ahh_federated.runtimes.flower.private_link import KEY_HEADER, SIGNATURE_HEADER, TIME_HEADER

SIGNERS = {}  # by the key that a request claims to be of


def client(authority, port, *, bind=None, **options) -> httpx.Client:
    """Its requests are bound to this authority, or to that of another coordinator."""
    whose = mark((bind or authority).ca.read_bytes())

    def bound(request: httpx.Request) -> None:
        signer = SIGNERS.get(request.headers.get(KEY_HEADER))
        if signer is not None and HEADER not in request.headers:
            time = request.headers.get(TIME_HEADER, "").encode()
            body = request.content if isinstance(request.stream, httpx.ByteStream) else b""
            request.headers[HEADER] = signer.sign(DOMAIN, spelled(whose, request.url.raw_path, time, body))

    context = ssl.create_default_context(cafile=str(authority.ca))
    hooks = {"request": [bound]}
    return httpx.Client(
        base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=30.0, event_hooks=hooks, **options
    )


def signed(key, *, claimed=None, time=None, signature=None) -> dict[str, str]:
    """The headers of a request signed with `key`, as the Fleet API wants them."""
    stamp = (time or datetime.now(UTC)).isoformat()
    found = signature or key.private.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    claim = base64.b64encode(pem((claimed or key).public)).decode()
    SIGNERS[claim] = key
    return {
        "content-type": PROTOBUF_MEDIA_TYPE,
        KEY_HEADER: claim,
        TIME_HEADER: stamp,
        SIGNATURE_HEADER: base64.b64encode(found).decode(),
    }


def raw_request(authority, port, target: str, method: str, headers: dict[str, str], body: bytes = b"") -> int:
    """The status of a request whose path no client has tidied up."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as line:
        lines = [f"{method} {target} HTTP/1.1", "host: x", f"content-length: {len(body)}", "connection: close"]
        line.sendall("\r\n".join([*lines, *(f"{key}: {value}" for key, value in headers.items()), "", ""]).encode() + body)
        return int(line.recv(100).split()[1])


def activate(http, key) -> int:
    request = ActivateNodeRequest(public_key=pem(key.public), heartbeat_interval=10)
    answer = http.post("/v1/fleet/activate-node", headers=signed(key), content=request.SerializeToString())
    assert answer.status_code == 200
    node_id: int = ActivateNodeResponse.FromString(answer.content).node_id
    return node_id
