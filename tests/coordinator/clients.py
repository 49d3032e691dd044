"""Callers of the coordinator's API without a network: shared by the tests of the API."""

from __future__ import annotations

import asyncio

import httpx

from tests.coordinator.coordinators import Desk, study

JOIN, STUDIES = "/ahh/v1/join", "/ahh/v1/studies"


class Client:
    """Asks the application without a network, from any thread."""

    def __init__(self, app) -> None:
        self._app = app

    def request(self, method: str, path: str, **given) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://localhost:8443") as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())

    def get(self, path: str, **given) -> httpx.Response:
        return self.request("GET", path, **given)

    def post(self, path: str, **given) -> httpx.Response:
        return self.request("POST", path, **given)


async def asked(app, one: dict) -> tuple[int, bytes]:
    """Straight at the application, where no client library forbids anything."""
    sent: list[dict] = []
    parts = [{"type": "http.request", "body": one["body"], "more_body": False}, {"type": "http.disconnect"}]

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": one["method"], "path": one["path"], "raw_path": one["path"].encode(), "headers": one["headers"],
        "query_string": one["query"], "client": one["client"], "server": ("localhost", 8443), "scheme": "https",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def welcomed(desk: Desk, name: str) -> dict[str, str]:
    """A new researcher's headers."""
    return {"Authorization": f"Bearer {desk.roster.welcome(name)}"}


def submitted(client: Client, headers: dict[str, str], version: int = 1) -> str:
    answer = client.post(STUDIES, content=study(version), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["digest"]
