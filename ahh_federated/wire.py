"""What crosses between coordinator and node: canonical JSON, numbers and base64.  No pickle, no code.

A request names an ask of an approved study, its step, and the numbers that came from earlier releases; the node
rebuilds the query from its own copy of the study.  A reply is a status, and for a release the noised integers.
"""

from __future__ import annotations

import binascii
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ahh_federated.core.cohorts import F64
from ahh_federated.core.queries import Parameters
from ahh_federated.core.releases import Status
from ahh_federated.encoding import dump, load, raw, require_same, table, text
from ahh_federated.errors import Breach, Reason

_REQUEST, _REPLY = "ahh-request/1", "ahh-reply/1"
_REASONS = ("", *Reason)


@dataclass(frozen=True, slots=True)
class Request:
    """One step of one ask.  `run` tells apart seeded laboratory runs of one study; it is empty for a private run.

    `id`: SHA-256 of the canonical bytes.  The same request has the same id, and gets the same stored reply.
    """

    study: str
    run: str
    ask: str
    step: int
    kind: str
    parameters: Parameters
    _bytes: bytes = field(init=False, repr=False, compare=False)
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bytes", dump({"format": _REQUEST, **self.to_json()}))
        object.__setattr__(self, "id", hashlib.sha256(self._bytes).hexdigest())

    def to_bytes(self) -> bytes:
        return self._bytes

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

    @classmethod
    def from_bytes(cls, data: bytes) -> Request:
        request = cls.from_json(table(data, _REQUEST, {"study", "run", "ask", "step", "kind", "parameters"}))
        require_same(data, request.to_bytes())
        return request

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Request:
        texts = [content.get(name) for name in ("study", "run", "ask", "kind")]
        step, parameters = content.get("step"), content.get("parameters")
        if not all(isinstance(each, str) and len(each) <= 200 for each in texts):
            raise Breach("a request names study, run, ask and kind as short texts")
        if type(step) is not int or not 0 <= step <= 10_000 or not isinstance(parameters, Mapping):
            raise Breach("a request has a step from 0 to 10000 and a table of parameters")
        for values in parameters.values():
            if not isinstance(values, list) or not all(type(value) is float and math.isfinite(value) for value in values):
                raise Breach("a parameter is a list of finite numbers with a decimal point")
        study, run, ask, kind = (str(each) for each in texts)
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
        return dump({"format": _REPLY, **self.to_json()})

    def to_json(self) -> dict[str, Any]:
        return {
            "request": self.request,
            "status": str(self.status),
            "sigma": self.sigma,
            "cells": text(self.cells),
            "exact": text(None if self.exact is None else self.exact.astype("<f8").tobytes()),
            "reason": self.reason,
        }

    @classmethod
    def from_bytes(cls, data: bytes) -> Reply:
        return cls.from_json(load(data, _REPLY, {"request", "status", "sigma", "cells", "exact", "reason"}))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Reply:
        try:
            status = Status(content["status"])
            sigma, request, reason = content["sigma"], content["request"], content["reason"]
            cells, exact = raw(content["cells"]), raw(content["exact"])
        except (KeyError, ValueError, TypeError, binascii.Error):
            raise Breach("a reply has a known status and base64 numbers") from None
        if type(sigma) is not int or not isinstance(request, str) or reason not in _REASONS:
            raise Breach("a reply names its request, an integer sigma and a reason out of the closed list")
        if exact is not None and len(exact) % 8:
            raise Breach("the numbers of a reply have eight bytes each")
        values = None if exact is None else np.frombuffer(exact, dtype="<f8").astype(np.float64)
        return cls(request, status, sigma, cells, values, reason)


def checked(data: bytes, request: Request) -> Reply:
    """A node's reply; `failed` when it cannot be read or answers another request."""
    try:
        reply = Reply.from_bytes(data)
    except Breach:
        return Reply(request.id, Status.FAILED)
    return reply if reply.request == request.id else Reply(request.id, Status.FAILED)
