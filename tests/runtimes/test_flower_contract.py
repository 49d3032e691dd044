"""What this project relies on in Flower beyond its public API, and how the link behaves when nodes misbehave."""

from __future__ import annotations

from datetime import date

import flwr
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware

from ahh_federated.core.releases import Status
from ahh_federated.errors import Misuse
from ahh_federated.runtimes.flower.apps import GridLink, client_app
from ahh_federated.runtimes.flower.inprocess import InProcessGrid
from ahh_federated.runtimes.flower.private import name_message, task, through_the_wire
from ahh_federated.runtimes.flower.private_link import superlink_app
from ahh_federated.wire import Reply, Request

REQUEST = Request("digest", "", "ask", 0, "count/1", {})


class Desk:
    """Answers with given bytes, or raises."""

    def __init__(self, answer) -> None:
        self._answer = answer

    def answer(self, data: bytes, today: date) -> bytes:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def link(**answers) -> GridLink:
    desks = {name: Desk(answer) for name, answer in answers.items()}
    app = client_app(lambda context, data: desks[str(context.node_config["partner"])].answer(data, date(2026, 1, 1)))
    return GridLink(InProcessGrid(app, desks), timeout=5.0)


@pytest.fixture(autouse=True)
def one_task():
    with task(1):
        yield


def test_flower_is_the_pinned_version():
    assert flwr.__version__ == "1.41.0"


def test_a_message_survives_serialisation_bit_for_bit():
    data = bytes(range(256)) * 50
    sent = Message(RecordDict({"ahh": ConfigRecord({"bytes": data})}), 7, "query.ahh", group_id="g")
    name_message(sent, "abc")
    got = through_the_wire(sent)
    assert got is not sent
    assert got.content["ahh"]["bytes"] == data
    assert got.metadata.message_id == "abc"


def test_partners_are_node_names_in_order():
    assert link(b=b"", a=b"").partners == ("a", "b")


def test_a_reply_reaches_its_partner():
    good = Reply(REQUEST.id, Status.BELOW).to_bytes()
    replies = link(a=good, b=good).exchange(REQUEST, ["a", "b"])
    assert {name: reply.status for name, reply in replies.items()} == {"a": Status.BELOW, "b": Status.BELOW}


@pytest.mark.parametrize(
    "answer",
    [
        ValueError("Jan Janssens, born 2019"),
        b"not json",
        Reply("another request", Status.BELOW).to_bytes(),
        b"{}",
    ],
)
def test_a_node_that_misbehaves_has_failed_and_says_nothing_else(answer):
    good = Reply(REQUEST.id, Status.BELOW).to_bytes()
    replies = link(bad=answer, good=good).exchange(REQUEST, ["bad", "good"])
    assert replies["bad"].status is Status.FAILED
    assert "Janssens" not in repr(replies["bad"])
    assert replies["good"].status is Status.BELOW


def test_a_partner_without_a_node_is_offline():
    good = Reply(REQUEST.id, Status.BELOW).to_bytes()
    replies = link(a=good).exchange(REQUEST, ["a", "gone"])
    assert replies["gone"].status is Status.OFFLINE


def test_no_exception_text_crosses_the_grid():
    def boom(message, context):
        raise ValueError("Jan Janssens, born 2019")

    app = ClientApp()
    app.query("ahh")(boom)
    grid = InProcessGrid(app, ["a"])
    node = next(iter(grid.get_node_ids()))
    message = grid.create_message(RecordDict({"ahh": ConfigRecord({"bytes": b""})}), "query.ahh", node, "g")
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error()
    assert "Janssens" not in repr(reply.error)


def test_two_runs_at_once_are_refused():
    with pytest.raises(Misuse, match="another run over Flower"), task(2):
        pass


def test_the_bookkeeping_that_is_left_out_is_still_flowers():
    for name in ("store_traffic", "add_clientapp_runtime", "_cleanup_expired_task_tokens"):
        assert callable(getattr(SqlLinkState, name))


def test_the_superlink_application_keeps_its_authentication(tmp_path):
    app, state = superlink_app(str(tmp_path / "flower.db"))
    assert len(app.user_middleware) == 3
    assert NodeAuthMiddleware in [each.cls for each in app.user_middleware]
    assert app.state.enable_supernode_auth
    state.close()


def test_telemetry_is_off():
    import os

    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"
