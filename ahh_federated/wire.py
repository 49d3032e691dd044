"""What crosses between coordinator and node: canonical JSON, numbers and base64.  No pickle, no code.

A request names an ask of an approved study, its step, and the numbers that came from earlier releases; the node
rebuilds the query from its own copy of the study.  A reply is a status, and for a release the noised integers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ahh_federated.core.cohorts import F64
from ahh_federated.core.queries import Parameters
from ahh_federated.core.releases import Status
from ahh_federated.errors import Breach, Reason

_REQUEST, _REPLY = "ahh-request/1", "ahh-reply/1"
_LARGEST = 64 << 20  # bytes
_REASONS = ("", *Reason)
_Message = TypeVar("_Message", "Request", "Reply")


@dataclass(frozen=True, slots=True)
class Request:
    """One step of one ask.  `run` tells apart seeded laboratory runs of one study; it is empty for a private run."""

    study: str
    run: str
    ask: str
    step: int
    kind: str
    parameters: Parameters

    def to_bytes(self) -> bytes:
        return _dump({"format": _REQUEST, **self.to_json()})

    def to_json(self) -> dict[str, Any]:
        parameters = {name: list(values) for name, values in self.parameters.items()}
        return {
            "study": self.study,
            "run": self.run,
            "ask": self.ask,
            "step": self.step,
            "kind": self.kind,
            "parameters": parameters,
        }

    @property
    def id(self) -> str:
        """SHA-256 of the canonical bytes: the same request has the same id, and gets the same stored reply."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Request:
        request = cls.from_json(_load(data, _REQUEST, {"study", "run", "ask", "step", "kind", "parameters"}))
        return _canonical(request, data)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Request:
        texts = [content.get(name) for name in ("study", "run", "ask", "kind")]
        step, parameters = content.get("step"), content.get("parameters")
        if not all(isinstance(text, str) and len(text) <= 200 for text in texts):
            raise Breach("a request names study, run, ask and kind as short texts")
        if type(step) is not int or not 0 <= step <= 10_000 or not isinstance(parameters, Mapping):
            raise Breach("a request has a step from 0 to 10000 and a table of parameters")
        for values in parameters.values():
            if not isinstance(values, list) or not all(type(value) is float and math.isfinite(value) for value in values):
                raise Breach("a parameter is a list of finite numbers with a decimal point")
        study, run, ask, kind = (str(text) for text in texts)
        return cls(study, run, ask, step, kind, parameters)


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A node's answer to the request `request`.

    `cells` are the noised integers of a release (little-endian int64); `exact` an un-noised sum, which only the
    laboratory makes; `reason` is a public word out of a closed list.
    """

    request: str
    status: Status
    sigma: int = 0
    cells: bytes | None = None
    exact: F64 | None = None
    reason: str = ""

    def to_bytes(self) -> bytes:
        return _dump({"format": _REPLY, **self.to_json()})

    def to_json(self) -> dict[str, Any]:
        return {
            "request": self.request,
            "status": str(self.status),
            "sigma": self.sigma,
            "cells": _text(self.cells),
            "exact": _text(None if self.exact is None else self.exact.astype("<f8").tobytes()),
            "reason": self.reason,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> Reply:
        reply = cls.from_json(_load(data, _REPLY, {"request", "status", "sigma", "cells", "exact", "reason"}))
        return _canonical(reply, data)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Reply:
        try:
            status = Status(content["status"])
            sigma, request, reason = content["sigma"], content["request"], content["reason"]
            cells, exact = _bytes(content["cells"]), _bytes(content["exact"])
        except (KeyError, ValueError, TypeError, binascii.Error):
            raise Breach("a reply has a known status and base64 numbers") from None
        if type(sigma) is not int or not isinstance(request, str) or reason not in _REASONS:
            raise Breach("a reply names its request, an integer sigma and a reason out of the closed list")
        if exact is not None and len(exact) % 8:
            raise Breach("the numbers of a reply have eight bytes each")
        values = None if exact is None else np.frombuffer(exact, dtype="<f8").astype(np.float64)
        return cls(request, status, sigma, cells, values, reason)


def _canonical(message: _Message, data: bytes) -> _Message:
    if message.to_bytes() != data:
        raise Breach("a message is not in its canonical form: sorted keys, each once, no spaces, shortest numbers")
    return message


def _dump(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _load(data: bytes, form: str, keys: set[str]) -> dict[str, Any]:
    if len(data) > _LARGEST:
        raise Breach(f"a message of {len(data)} bytes is larger than {_LARGEST}")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise Breach("a message is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != form or set(content) != keys | {"format"}:
        raise Breach(f"a message is not of the form {form}")
    return content


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
