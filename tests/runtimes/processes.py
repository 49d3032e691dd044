"""A node and a coordinator as processes of their own, to be killed: `python -m tests.runtimes.processes node|coordinator ...`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

from ahh_federated.identity import Key


def say(text: str) -> None:
    print(text, flush=True)


def node(port: str, ca: str, key: str, id_file: str, delay: str) -> None:
    """Answers with its own name and what it was asked, `delay` seconds later; says where it connects to."""
    sys.addaudithook(lambda event, args: say(f"connects {args[1]}") if event == "socket.connect" else None)
    from ahh_federated.runtimes.flower.supernode import Membership, serve

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    membership = Membership("c", f"127.0.0.1:{port}", Path(ca).read_bytes(), Key.load(Path(key)).private, Path(id_file))

    def answer(consortium: str, data: bytes) -> bytes:
        say("asked")
        time.sleep(float(delay))
        return Path(key).stem.encode() + b":" + data

    serve(lambda: [membership], answer, stop, say)


def coordinator(port: str, folder: str, rounds: str, *names: str) -> None:
    """Asks every node `rounds` times, and says so; says where it connects to."""
    sys.addaudithook(lambda event, args: say(f"connects {args[1]}") if event == "socket.connect" else None)
    from tests.runtimes.certificates import Authority
    from tests.runtimes.federation import collect, key_of, open_link, until

    path = Path(folder)
    link = open_link(Authority(path / "ca.pem", path / "server.pem", path / "server.key"), path, int(port))
    for name in names:
        link.admit(name, key_of(path, name).public)
    link.start()
    say(f"port {link.port}")

    def work(carrier) -> None:
        until(lambda: carrier.online() == set(names), "nodes")
        say("nodes " + " ".join(str(each.node_id) for each in sorted(link._online(), key=lambda node: node.name)))
        for number in range(int(rounds)):
            tickets = [carrier.send(name, b"%d" % number) for name in names]
            say(f"sent {number}")
            replies = collect(carrier, tickets)
            say(f"got {[replies[ticket] for ticket in tickets]}")

    link.run(work)
    link.stop()


if __name__ == "__main__":
    {"node": node, "coordinator": coordinator}[sys.argv[1]](*sys.argv[2:])
