"""Rounds of one small message to every node and back, as Flower's own examples send them; the time of each goes to a file."""

import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client = ClientApp()
server = ServerApp()
PAYLOAD = bytes(300)


@client.query()
def echo(message: Message, context: Context) -> Message:
    return Message(RecordDict({"payload": ConfigRecord({"bytes": PAYLOAD})}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    while len(list(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.1)
    for _ in range(int(context.run_config["rounds"])):
        content = RecordDict({"payload": ConfigRecord({"bytes": PAYLOAD})})
        replies = list(grid.send_and_receive([Message(content, node, "query") for node in grid.get_node_ids()]))
        assert len(replies) == int(context.run_config["nodes"]) and not any(reply.has_error() for reply in replies)
        with Path(str(context.run_config["times"])).open("a") as file:
            file.write(f"{time.time()}\n")
