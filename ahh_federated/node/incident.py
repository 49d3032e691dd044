"""One file for whoever looks into an incident: what was asked and decided, what it cost, and how the node is set up.

It holds no patient's value, no count of patients, no released bytes, no key and no password; nor the text of the query to the
database or the comments in the settings, which may hold anything.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ahh_federated.errors import AhhError, Misuse
from ahh_federated.identity import fingerprint
from ahh_federated.node.chain import COLUMNS
from ahh_federated.node.doctor import examine, versions
from ahh_federated.node.home import NodeHome
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.settings import write
from ahh_federated.node.stewardship import proposals

MANIFEST = "MANIFEST.sha256"


def write_incident(home: NodeHome, path: Path) -> list[str]:
    """Write the bundle, a zip for its owner alone; the names of what is in it.

    A part that cannot be read says why in its place: a damaged node is what the bundle is for.

    Raises:
        Misuse: when the file exists or cannot be written.
    """
    if path.exists():
        raise Misuse(f"{path} exists: give another file with --out")
    parts: dict[str, Callable[[], bytes]] = {
        "audit.jsonl": lambda: home.audit_path.read_bytes(),
        "ledger.jsonl": lambda: export_ledger(home.ledger_path),
        "settings.json": lambda: _json(_settings(home)),
        "studies.json": lambda: _json(_studies(home)),
        "versions.json": lambda: _json(versions()),
        "doctor.txt": lambda: "\n".join(_doctor(home)).encode() + b"\n",
    }
    contents = {name: _content(read) for name, read in parts.items()}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    contents[MANIFEST] = sums.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in contents.items():
            bundle.writestr(name, content)
    write(path, packed.getvalue())
    return list(contents)


def export_ledger(path: Path, as_csv: bool = False) -> bytes:
    """Every entry of a ledger, without the bytes that were released: JSON lines, or CSV with a header.

    Raises:
        Refusal: when the file cannot be read.
    """
    with Ledger.inspect(path) as ledger:
        rows = [asdict(entry) for entry in ledger.entries()]
    if not as_csv:
        return b"".join(_json(row) for row in rows)
    text = io.StringIO()
    lines = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    return text.getvalue().encode()


def bundle_name(home: NodeHome) -> str:
    return f"incident-{home.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.zip"


def _content(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except AhhError as error:
        return f"not readable: {error}\n".encode()
    except OSError as error:
        return f"not readable: {error.strerror}\n".encode()


def _settings(home: NodeHome) -> dict[str, Any]:
    """Parsed and written anew, so that no comment comes along."""
    return {
        "name": _told(lambda: home.name),
        "key": _told(lambda: fingerprint(home.public_path.read_text(encoding="utf-8").rpartition(" ")[0])),
        "source": _told(lambda: _source(home)),
        "policy": _told(lambda: _policy(home)),
        "consortia": _told(lambda: [{**asdict(each), "ca": None} for each in home.consortia().values()]),
        "paused": home.paused,
        "witness": _told(lambda: json.loads(home.witness_path.read_bytes()) if home.witness_path.exists() else None),
    }


def _source(home: NodeHome) -> dict[str, str]:
    settings = home.source.settings()
    if "query" in settings:
        settings["query"] = f"sha256:{hashlib.sha256(settings['query'].encode()).hexdigest()}"
    return settings


def _policy(home: NodeHome) -> dict[str, Any]:
    policy = home.policy
    return {**asdict(policy), "columns": None if policy.columns is None else sorted(policy.columns)}


def _studies(home: NodeHome) -> list[dict[str, Any]]:
    return [
        {
            "digest": each.study.digest,
            "consortium": each.consortium,
            "received": each.received,
            "study": each.study.content,
            "decision": None if each.decision is None else asdict(each.decision),
        }
        for each in proposals(home)
    ]


def _doctor(home: NodeHome) -> Iterator[str]:
    for line in examine(home):
        counted = line.what == "table"  # its text counts rows
        yield str(replace(line, text="it can be read" if line.ok else "run `ahh node doctor` on the node") if counted else line)


def _told(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (AhhError, OSError, ValueError) as error:
        return f"not readable: {error if isinstance(error, AhhError) else type(error).__name__}"


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, default=lambda value: value.isoformat()).encode() + b"\n"
