"""Calls to a coordinator's API over TLS that trusts the coordinator's own authority and nothing else."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ahh_federated.errands import compatible
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.version import VERSION

PREFIX = "/ahh/v1"
_LARGEST = 8 << 20  # bytes of an answer
_LARGEST_FILE = 4 << 30
_TIMES = httpx.Timeout(60.0, connect=10.0)
_LONGEST_ERROR = 600  # characters

# X.509 verification errors of OpenSSL: what each means and how to mend it
_EXPIRED, _TOO_EARLY, _OTHER_HOST = 10, 9, (62, 64)


@dataclass(frozen=True, slots=True)
class Peer:
    """A coordinator at HOST:PORT, whose certificate must be signed by `ca` (PEM).

    Every method raises Unreachable when no coordinator with such a certificate answers in time, Misuse when it says no, and
    Breach when the answer is not of the form that a coordinator gives.
    """

    address: str
    ca: str
    token: str = field(default="", repr=False)

    def get(self, path: str) -> dict[str, Any]:
        return self._json("GET", path, None)

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        return self._json("POST", path, body)

    def download(self, path: str, to: Path) -> None:
        """Write what lies at `path` to a file, all of it."""
        with self._answer("GET", path, None) as answer, to.open("wb") as file:
            size = 0
            for part in answer.iter_bytes():
                size += file.write(part)
                if size > _LARGEST_FILE:
                    raise Breach(f"{self.address} sends more than {_LARGEST_FILE} bytes")

    def _json(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        with self._answer(method, path, body) as answer:
            content = _table(_read(answer))
        if content is None:
            raise Breach(f"{self.address} does not answer as a coordinator does: check the address")
        return content

    @contextmanager
    def _answer(self, method: str, path: str, body: bytes | None) -> Iterator[httpx.Response]:
        headers = {"Accept-Encoding": "identity"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        with (
            self._reaching(),
            httpx.Client(verify=tls(self.ca), timeout=_TIMES, trust_env=False) as client,
            client.stream(method, f"https://{self.address}{PREFIX}{path}", content=body, headers=headers) as answer,
        ):
            if "content-encoding" in answer.headers:  # a few bytes could unpack to more than this machine holds
                raise Breach(f"{self.address} sends a packed answer, which no coordinator does: check the address")
            self._check(answer)
            yield answer

    def _check(self, answer: httpx.Response) -> None:
        theirs = answer.headers.get("ahh-version")
        if theirs is not None and not compatible(theirs):
            what = f"{self.address} runs version {plain(theirs)}, this is version {VERSION}"
            raise Misuse(f"{what}: bring both within one minor version of each other")
        if answer.status_code == 200:
            return
        content = _table(_read(answer)) or {}
        why = plain(str(content.get("error", f"status {answer.status_code}, without a reason")))
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Unreachable(f"{self.address} cannot answer now: {why}")
        raise Misuse(f"{self.address} refuses: {why}")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            fix = "check that the coordinator serves and that no firewall is between"
            raise Unreachable(f"{self.address} did not answer in time: {fix}") from None
        except httpx.TransportError as error:
            raise Unreachable(f"{self.address} {_why(error)}") from None
        except httpx.InvalidURL:
            raise Misuse(f"{self.address} is not an address: HOST:PORT, as the coordinator's file has it") from None


def tls(ca: str) -> ssl.SSLContext:
    """TLS 1.2 or later; the host name is checked, and only certificates under `ca` are believed.

    Raises:
        Misuse: when `ca` is not a certificate in PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError, TypeError):
        raise Misuse("the certificate authority in the file is not a certificate: ask the coordinator for a new file") from None
    return context


def _why(error: BaseException) -> str:
    """The reason and the fix, from whatever lies below httpx's error."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, ssl.SSLCertVerificationError):
            return _distrusted(below)
        if isinstance(below, ssl.SSLError):
            return "does not speak TLS as a coordinator does: check the address and the port"
        below = below.__cause__ or below.__context__
    return "does not answer: check the address, that the coordinator serves, and that this network lets you out to the port"


def _distrusted(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code == _EXPIRED:
        return "has an expired certificate: ask its operator to run `ahh coordinator renew`; if that is done, mend this clock"
    if error.verify_code == _TOO_EARLY:
        return "has a certificate that holds only from later on: mend the clock of this machine"
    if error.verify_code in _OTHER_HOST:
        return "has a certificate for another host: use the address that the coordinator's operator gave"
    fix = "do not go on; ask its operator whether the coordinator was set up anew, and then for a new file"
    return f"is not the coordinator that your file is from, since its certificate is signed by somebody else: {fix}"


def _read(answer: httpx.Response) -> bytes:
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > _LARGEST:
            raise Breach(f"an answer is larger than {_LARGEST} bytes")
    return bytes(body)


def _table(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def plain(text: str) -> str:
    """Another machine's text on this terminal: nothing but printable characters, and not too many."""
    return "".join(character if character.isprintable() else " " for character in text[:_LONGEST_ERROR])


def names(content: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """These texts of an answer.  Raises Breach when one is missing or is no text."""
    values = tuple(content.get(key) for key in keys)
    found = tuple(value for value in values if isinstance(value, str))
    if len(found) != len(keys):
        raise Breach(f"an answer of a coordinator has the texts {', '.join(keys)}")
    return found
