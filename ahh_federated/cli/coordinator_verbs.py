"""What each verb of `ahh coordinator` does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ahh_federated.audit import verify_audit
from ahh_federated.coordinator import authority
from ahh_federated.coordinator.home import CoordinatorHome, create_home, default_home, open_home
from ahh_federated.coordinator.queue import Queue
from ahh_federated.coordinator.roster import Roster
from ahh_federated.coordinator.unit import unit
from ahh_federated.runtimes.handouts import write_access, write_invitation


def init(asked: argparse.Namespace) -> int:
    home = create_home(asked.home or default_home(), asked.name, asked.address, asked.listen)
    authority_certificate = x509.load_pem_x509_certificate(home.ca.read_bytes())
    print(f"{home.name} is made in {home.path}; it listens on {home.listen}, partners reach it at {home.address}")
    print(f"authority    SHA256 {authority_certificate.fingerprint(hashes.SHA256()).hex(':')}")
    print(f"certificate  holds until {authority.expires(home.certificate):%Y-%m-%d}; then `ahh coordinator renew`")
    print("Next: `ahh coordinator invite PARTNER` for each partner, and `ahh coordinator serve`")
    return 0


def invite(asked: argparse.Namespace) -> int:
    with _opened(asked) as (home, members):
        path = write_invitation(home, members, asked.partner, asked.hours, asked.out)
    print(
        f"{path}: for {asked.partner}, within {asked.hours:g} hours.  It admits one node, once: send it as you would a password"
    )
    return 0


def welcome(asked: argparse.Namespace) -> int:
    with _opened(asked) as (home, members):
        path = write_access(home, members, asked.researcher, asked.out)
    print(f"{path}: for {asked.researcher}.  An earlier file no longer works.  Send it as you would a password")
    return 0


def revoke(asked: argparse.Namespace) -> int:
    with _opened(asked) as (home, members):
        partner = members.revoke(asked.partner)
        home.audit.write("revoke", partner=asked.partner, key=None if partner is None else partner.fingerprint)
    print(f"{asked.partner} is revoked" if partner else f"the invitation of {asked.partner} is withdrawn")
    return 0


def dismiss(asked: argparse.Namespace) -> int:
    with _opened(asked) as (home, members):
        members.dismiss(asked.researcher)
        home.audit.write("dismiss", researcher=asked.researcher)
    print(f"{asked.researcher} has no access any more; studies that were submitted go on")
    return 0


def roster(asked: argparse.Namespace) -> int:
    """One line each, wide enough for a fingerprint: not a table, so that nothing is cut."""
    with _opened(asked) as (_, members):
        for each in members.partners():
            print(f"{each.name:<24} {'revoked' if each.revoked else 'joined':<10} {each.joined[:10]}  {each.fingerprint}")
        for guest in members.invited():
            print(f"{guest.name:<24} {'expired' if guest.expired else 'invited':<10} until {_minute(guest.expires)} UTC")
        for one in members.researchers():
            print(f"{one.name:<24} {'researcher':<10} {one.since[:10]}")
    return 0


def status(asked: argparse.Namespace) -> int:
    with closing(Queue(open_home(asked.home).database)) as queue:
        order, studies = queue.order(), queue.studies()
    for each in studies:
        state = f"{each.state}, place {order.index(each.digest) + 1}" if each.digest in order else str(each.state)
        print(f"{each.digest[:12]}  {each.id:<24} {state:<18} {_minute(each.submitted)}  {each.by}")
        if each.reason:
            print(f"{'':<14}{each.reason}")
    return 0


def serve(asked: argparse.Namespace) -> int:
    """Until it is told to stop; studies go on after the next start."""
    from ahh_federated.runtimes.coordinator_process import serve_coordinator  # brings Flower

    home = open_home(asked.home)
    left = authority.expires(home.certificate) - datetime.now(UTC)
    if left.days < 30:
        print(f"ahh: the server's certificate holds for {left.days} more days: `ahh coordinator renew`", file=sys.stderr)
    serve_coordinator(home)
    return 0


def renew(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    home.renew()
    until = authority.expires(home.certificate)
    home.audit.write("renew", until=until.isoformat())
    print(f"The server's certificate holds until {until:%Y-%m-%d}.  Restart the coordinator to use it; partners need do nothing")
    return 0


def audit_show(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    for entry in home.audit.entries():
        facts = [f"{name}={value}" for name, value in entry.items() if name not in ("seq", "time", "event", "previous", "hash")]
        print(" ".join([str(entry["time"])[:19].replace("T", " "), str(entry["event"]), *facts]))
    return 0


def audit_verify(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    whole, _, why = verify_audit(home.audit.path)
    print(f"{'whole' if whole else 'BROKEN'}: {why}")
    return 0 if whole else 3


def service(asked: argparse.Namespace) -> int:
    print(unit(), end="")
    return 0


@contextmanager
def _opened(asked: argparse.Namespace) -> Iterator[tuple[CoordinatorHome, Roster]]:
    home = open_home(asked.home)
    with closing(Roster(home.database)) as members:
        yield home, members


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
