"""Canonical JSON: sorted keys, each once, no spaces, shortest numbers; bytes as base64.  One content, one spelling."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ahh_federated.errors import Breach

LARGEST = 64 << 20  # bytes


def dump(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def load(data: bytes, form: str, keys: set[str]) -> dict[str, Any]:
    """The table that `data` spells, with exactly these keys and its `format`.

    Raises:
        Breach: when it is anything else, or is spelled in another way.
    """
    content = table(data, form, keys)
    try:
        spelled = dump(content)
    except (ValueError, RecursionError):
        raise Breach("a message holds what cannot be spelled in JSON") from None
    require_same(data, spelled)
    return content


def table(data: bytes, form: str, keys: set[str]) -> dict[str, Any]:
    """The table that `data` spells in whatever way; who does not `load` compares what was read with `data` (`require_same`).

    Raises:
        Breach: when it is too large, no JSON, or has other keys or another `format`.
    """
    if len(data) > LARGEST:
        raise Breach(f"a message of {len(data)} bytes is larger than {LARGEST}")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise Breach("a message is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != form or set(content) != keys | {"format"}:
        raise Breach(f"a message is not of the form {form}")
    return content


def require_same(data: bytes, spelled: bytes) -> None:
    if spelled != data:
        raise Breach("a message is not in its canonical form: sorted keys, each once, no spaces, shortest numbers")


def text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def raw(value: Any) -> bytes | None:
    """The bytes of a base64 text.  Raises ValueError or TypeError when it is none."""
    if value is None:
        return None
    found = base64.b64decode(value, validate=True)
    if base64.b64encode(found).decode() != value:  # bits left over in the last character
        raise ValueError("base64 in another spelling")
    return found
