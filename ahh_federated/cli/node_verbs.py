"""What each verb of `ahh node` does: the node's own functions plus printing."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ahh_federated.audit import verify_audit
from ahh_federated.cli.node_inspect import describe, shortage
from ahh_federated.errors import AhhError, Misuse
from ahh_federated.node.home import NodeHome, create_home, default_home, open_home, pseudonyms
from ahh_federated.node.memory import Memory
from ahh_federated.node.policy import allow
from ahh_federated.node.settings import write
from ahh_federated.node.sources import Source, file_source, sql_source
from ahh_federated.node.stewardship import Proposal, Verdict, decide, find, proposals, propose
from ahh_federated.study import canonical

TO_MEND = 3


def init(asked: argparse.Namespace) -> int:
    home = create_home(asked.home or default_home(), asked.name)
    print(f"made the node {home.name} in {home.path}")
    print(f"fingerprint {home.key.fingerprint}: tell it to the coordinator by telephone, so that both know who joins")
    print("next: ahh node join INVITATION, ahh node connect TABLE --allow all, ahh node doctor, ahh node serve")
    print(f"the budget is in {home.policy_path}: the data steward reads it first")
    return 0


def join(asked: argparse.Namespace) -> int:
    from ahh_federated.runtimes.enrolment import join as enrol

    home = open_home(asked.home)
    joined = enrol(home, asked.invitation)
    home.audit.write("join", consortium=joined.name, partner=joined.partner, address=joined.address)
    print(f"joined {joined.name} as {joined.partner}; its coordinator is {joined.address}")
    for partner, key in sorted(joined.roster.items()):
        print(f"  {partner} {key}{' (this node)' if key == home.key.fingerprint else ''}")
    print("next: ahh node connect TABLE --allow all unless that is done, ahh node doctor, ahh node serve")
    return 0


def leave(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    home.remove_consortium(asked.consortium)
    home.audit.write("leave", consortium=asked.consortium)
    print(f"left {asked.consortium}: nothing is answered there any more; ask its coordinator to revoke this node's key")
    print("ledger, decisions and audit log stay: keep them as long as the patients' data")
    return 0


def connect(asked: argparse.Namespace) -> int:
    from ahh_federated.node.reading import read  # brings pandas

    home, source, faults = open_home(asked.home), _source(asked), list[str]()
    frame = read(source, faults)
    names = [str(name) for name in frame.columns]
    allowed = _allowed(asked.allow, names)
    home.connect(source)
    if allowed is not None:
        allow(home.policy_path, allowed)
    home.audit.write("connect", kind="file" if source.path else "database", allowed=None if allowed is None else len(allowed))
    print(f"{source.shown}: {len(frame)} rows, {len(names)} columns: {', '.join(names)}")
    for fault in faults:
        print(f"look: {fault}")
    columns = home.policy.columns
    if columns is None or columns:
        print(f"studies may touch {'every column' if columns is None else ', '.join(sorted(columns))}")
    else:
        print("studies may touch no column yet: connect again with --allow, or list them in policy.toml")
    return 0


def _source(asked: argparse.Namespace) -> Source:
    if (asked.table is None) == (not asked.sql):
        raise Misuse("connect one table: a file, or --sql URL with --query-file FILE")
    if asked.table is not None:
        if asked.query_file or asked.password_file or asked.password_env:
            raise Misuse("a file needs no query and no password: drop them, or give --sql URL")
        return file_source(asked.table)
    if asked.query_file is None:
        raise Misuse("--sql needs --query-file FILE with the SELECT that gives the patients' table")
    try:
        query = asked.query_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Misuse(f"{asked.query_file} cannot be read ({why}): give a text file with one SELECT") from None
    return sql_source(asked.sql, query, asked.password_file, asked.password_env)


def _allowed(text: str, names: list[str]) -> list[str] | None:
    if not text:
        return None
    if text == "all":
        return names
    wanted = [each.strip() for each in text.split(",") if each.strip()]
    for each in wanted:
        if each not in names:
            raise Misuse(f"--allow: the table has no column {each!r}: it has {', '.join(names)}")
    return wanted


def check(asked: argparse.Namespace) -> int:
    from ahh_federated.node.checks import check as check_table
    from ahh_federated.node.reading import read

    home = open_home(asked.home)
    studies = [find(home, asked.study).study] if asked.study else [each.study for each in proposals(home)]
    source, faults = home.source, list[str]()
    frame = read(source, faults)
    print(f"{source.shown}: {len(frame)} rows, {len(frame.columns)} columns; nothing of this leaves the node")
    for fault in faults:
        print(f"look: {fault}")
    if not studies:
        print("no study was proposed yet: give a study file to hold the table against")
    stops = False
    for study in studies:
        findings = check_table(frame, study, home.policy, home.optouts)
        stops = stops or any(each.stops for each in findings)
        print(f"{study.id} ({study.digest[:12]}): {'ok' if not findings else ''}".rstrip())
        for finding in findings:
            print(f"  {'MEND' if finding.stops else 'look'}: {finding.text}")
    return TO_MEND if stops else 0


def doctor(asked: argparse.Namespace) -> int:
    from ahh_federated.node.doctor import examine
    from ahh_federated.runtimes.membership import knocking

    home, well = open_home(asked.home), True
    for line in examine(home, knocking(home)):
        print(line, flush=True)
        well = well and line.ok
    return 0 if well else TO_MEND


def serve(asked: argparse.Namespace) -> int:
    from ahh_federated.runtimes.node_process import serve_node

    serve_node(open_home(asked.home))
    return 0


def service(asked: argparse.Namespace) -> int:
    from ahh_federated.node.unit import unit

    print(unit(open_home(asked.home), asked.user), end="")
    return 0


def pause(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    home.pause()
    home.audit.write("pause", by=_user())
    print(f"{home.name} is paused: it answers nothing until `ahh node resume`")
    return 0


def resume(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    home.resume()
    home.audit.write("resume", by=_user())
    print(f"{home.name} answers again")
    return 0


def studies(asked: argparse.Namespace) -> int:
    found = proposals(open_home(asked.home))
    if not found:
        print("no study was proposed yet")
        return 0
    for each in found:
        study, made = each.study, each.decision
        said = "waits for you" if made is None else str(made.verdict)
        if made is not None and made.verdict == "approved":
            said += f", up to epsilon {made.ceiling:g}, until {made.expires}"
        print(f"{study.id} version {study.version} ({study.digest[:12]}): {said}")
        came = f"through {each.consortium} on {each.received[:10]}" if each.consortium else "from a file"
        print(f"  {' '.join(study.title.split())}; {came}; epsilon {study.budget.epsilon:g}, until {study.expires}")
    return 0


def inspect(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    for line in describe(home, find(home, asked.study)):
        print(line)
    return 0


def approve(asked: argparse.Namespace) -> int:
    made = _decided(asked, "approved")
    study = made.study
    assert made.decision is not None
    print(f"approved {study.id} ({study.digest[:12]}) up to epsilon {made.decision.ceiling:g} until {made.decision.expires}")
    cost = study.cost.epsilon(study.budget.delta)
    if made.decision.ceiling < cost:
        print(f"it may cost up to epsilon {cost:.3g}: beyond the ceiling its questions will be refused")
    if lacks := shortage(open_home(asked.home), study):
        print(f"WARNING: {lacks}")
    return 0


def refuse(asked: argparse.Namespace) -> int:
    study = _decided(asked, "refused").study
    print(f"refused {study.id} ({study.digest[:12]})")
    return 0


def revoke(asked: argparse.Namespace) -> int:
    study = _decided(asked, "revoked").study
    print(f"revoked {study.id} ({study.digest[:12]}): the next message about it is refused; what it has spent stays spent")
    return 0


def _decided(asked: argparse.Namespace, verdict: Verdict) -> Proposal:
    home = open_home(asked.home)
    meant = find(home, asked.study)
    if not meant.received:  # a file that the steward was handed before it came over the network
        propose(home, canonical(meant.study.content), "")
    ceiling, until = getattr(asked, "ceiling", None), getattr(asked, "until", None)
    digest = meant.study.digest
    made = decide(home, digest, verdict, ceiling=ceiling, expires=until, by=asked.by or _user())
    return Proposal(meant.study, meant.consortium, meant.received, made)


def optout(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    given = frozenset(pseudonyms(asked.file))
    home.audit.write("optout", by=_user())
    everybody = home.add_optouts(given)
    print(f"{len(given)} pseudonyms read; {everybody} are on the list, and left out from the next question on")
    with suppress(AhhError):  # a table that cannot be read is the doctor's to tell
        for line in _matched(home, given):
            print(line)
    return 0


def _matched(home: NodeHome, given: frozenset[str]) -> Iterator[str]:
    """How many of these pseudonyms are patients of the table, by the key columns of the studies that were proposed."""
    from ahh_federated.node.checks import among
    from ahh_federated.node.reading import read

    columns = sorted({each.study.patient.key for each in proposals(home)})
    if not columns or not given:
        return
    frame = read(home.source, [])
    for column in columns:
        count = among(frame, column, given)
        if count is not None:
            yield f"{count} of {len(given)} are in the table, in its column {column!r}"


def ledger_show(asked: argparse.Namespace) -> int:
    from ahh_federated.cli import verbs  # brings the plots

    return verbs.ledger_show(argparse.Namespace(partners=_ledger(open_home(asked.home))))


def ledger_verify(asked: argparse.Namespace) -> int:
    from ahh_federated.cli import verbs

    return verbs.ledger_verify(argparse.Namespace(partners=_ledger(open_home(asked.home))))


def ledger_export(asked: argparse.Namespace) -> int:
    from ahh_federated.node.incident import export_ledger

    home = open_home(asked.home)
    if asked.file.exists():
        raise Misuse(f"{asked.file} exists: give another file")
    content = export_ledger(_ledger(home), asked.csv)
    write(asked.file, content)
    print(f"{asked.file}: every entry, without the bytes that were released")
    return 0


def ledger_recover(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    with home.ledger() as ledger:
        delta = home.policy.budget.delta
        burned = Memory(home.witness_path, home.key).recover(ledger).epsilon(delta)
        spent = ledger.spent().epsilon(delta)
    home.audit.write("recover", by=_user(), burned=burned, spent=spent)
    print(f"burned epsilon {burned:.3g} that this ledger forgot; {spent:.3g} of {home.policy.budget.epsilon:g} is spent")
    for each in proposals(home):  # the ledger has forgotten what each had spent of its own ceiling
        if each.decision is not None and each.decision.verdict == "approved":
            decide(home, each.study.digest, "revoked", by="ahh node ledger recover")
            print(f"revoked the approval of {each.study.id} ({each.study.digest[:12]}): approved again, it has its ceiling anew")
    return 0


def _ledger(home: NodeHome) -> Path:
    if not home.ledger_path.exists():
        home.ledger()  # says that it is gone, and what to do
    return home.ledger_path


def incident(asked: argparse.Namespace) -> int:
    from ahh_federated.node.incident import bundle_name, write_incident

    home = open_home(asked.home)
    path = asked.out or Path(bundle_name(home))
    names = write_incident(home, path)
    home.audit.write("incident", by=_user())
    print(f"{path}: {', '.join(names)}")
    print("it holds no patient's value; read it before you hand it on")
    return 0


def audit_show(asked: argparse.Namespace) -> int:
    for entry in open_home(asked.home).audit.entries():
        own = ("seq", "time", "event", "previous", "hash")
        facts = " ".join(f"{name}={_shown(value)}" for name, value in entry.items() if name not in own)
        print(f"{entry['seq']:>5} {str(entry['time'])[:19]} {entry['event']} {facts}".rstrip())
    return 0


def audit_verify(asked: argparse.Namespace) -> int:
    home = open_home(asked.home)
    sound, _, why = verify_audit(home.audit_path)
    print(f"{home.audit_path.name}: {'whole' if sound else 'BROKEN'}: {why}")
    return 0 if sound else TO_MEND


def _shown(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
