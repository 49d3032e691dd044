"""A coordinator as a process: `ahh coordinator serve`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from ahh_federated.coordinator.api import api
from ahh_federated.coordinator.home import CoordinatorHome, split_address
from ahh_federated.coordinator.queue import Queue
from ahh_federated.coordinator.roster import Partner, Roster
from ahh_federated.coordinator.service import Service
from ahh_federated.coordinator.witness import Witness
from ahh_federated.errors import AhhError, Misuse
from ahh_federated.runtimes.flower.superlink import SuperLink
from ahh_federated.runtimes.processes import log, stopping
from ahh_federated.version import VERSION

_LOOK = 1.0  # seconds between two looks at the roster


def serve_coordinator(
    home: CoordinatorHome, tell: Callable[[str], None] | None = None, stop: threading.Event | None = None
) -> None:
    """Listen for nodes and researchers and run the studies they submit, until SIGTERM or SIGINT.

    Raises:
        Misuse: when the port is taken or a certificate has expired.
    """
    say = tell or log
    roster, queue, witness = Roster(home.database), Queue(home.database), Witness(home.database)
    host, port = split_address(home.listen)
    links: list[SuperLink] = []

    def admit(partner: Partner) -> None:
        links[0].admit(partner.name, partner.public)
        say(f"{partner.name} has joined with the key {partner.fingerprint}")

    link = SuperLink.open(
        host=host,
        port=port,
        ca=home.ca,
        certificate=home.certificate,
        key=home.key,
        database=home.flower,
        extra=api(roster, queue, home, home.audit, admit),
    )
    links.append(link)
    with stopping(stop) as ending:
        try:
            members = _Members(roster, link, say)
            members.follow()
            link.start()
            say(f"ahh {VERSION} coordinator {home.name}, reached at {home.address}, listens on {host}:{link.port}")
            threading.Thread(target=members.watch, args=(ending,), name="roster", daemon=True).start()
            Service(home, roster, queue, witness, link, say, ending).serve()
        finally:
            link.stop()
    say("stopped; studies go on when it starts again")


class _Doors(Protocol):
    def admit(self, name: str, public: str) -> None: ...

    def expel(self, name: str) -> None: ...


class _Members:
    """Keeps the server's doors in step with the roster, which other processes (`ahh coordinator revoke`) change."""

    def __init__(self, roster: Roster, doors: _Doors, tell: Callable[[str], None]) -> None:
        self._roster, self._doors, self._tell = roster, doors, tell
        self._in: dict[str, str] = {}

    def follow(self) -> None:
        """First whoever is to go, also one that came in through the API and was revoked before the first look at it."""
        partners = self._roster.partners()
        active = {partner.name: partner.public for partner in partners if not partner.revoked}
        changed = {name for name, public in self._in.items() if active.get(name) != public}
        for name in changed | {partner.name for partner in partners if partner.name not in active}:
            self._doors.expel(name)
            self._in.pop(name, None)
        for name, public in active.items():
            if name not in self._in:
                self._in[name] = public
                try:
                    self._doors.admit(name, public)
                except Misuse as misuse:  # one partner's trouble is not the others'
                    self._tell(str(misuse))

    def watch(self, ending: threading.Event) -> None:
        """For as long as the coordinator serves: without it nobody who is revoked would be turned away."""
        told = ""
        while not ending.wait(_LOOK):
            try:
                self.follow()
                told = ""
            except Exception as error:
                text = str(error) if isinstance(error, AhhError) else type(error).__name__
                if text != told:
                    self._tell(f"the roster cannot be followed: {text}")
                told = text
