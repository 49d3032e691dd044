"""The folder of a node: who it is, where its table is, its rules, its memory, and the consortia it belongs to.

One node is one data set, one key and one ledger, whatever the number of consortia.  The folder and every file in it are the
node's alone (0700 and 0600), but for the rules and the public key, which anybody may read who can enter the folder.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ahh_federated.audit import Audit
from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.identity import Key
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.policy import Policy, read_policy, write_policy
from ahh_federated.node.settings import change, quoted, write
from ahh_federated.node.sources import Source, read_source
from ahh_federated.study.fields import Table, checked_name

VARIABLE = "AHH_NODE_HOME"
_NO_PSEUDONYM = re.compile(r"""[,;\t"']|=(?!=*$)""")  # a row, or a setting; Base64 may end in =
_CONFIG = """\
# A node of ahh_federated.  Its rules are in policy.toml; everything else in this folder is written by `ahh node`.

# The name of the data set.  The ledger keeps it for good: under another name it would be a fresh budget, and is refused.
name = {name}

[data]
# Where the patients' table is: `ahh node connect` writes it, a file as `path`, a database as `url` and `query`.
# No password here: `password_file` names a file, or `password_env` an environment variable, that holds it.
"""
_CONSORTIUM = """\
# Written by `ahh node join`.  The coordinator's certificate authority, the only one trusted, is in {name}.ca.pem.
name = {name_}
partner = {partner}
address = {address}
coordinator = {coordinator}
joined = {joined}

# Who belongs to it, with the fingerprint of each partner's key.
[roster]
"""


@dataclass(frozen=True, slots=True)
class Consortium:
    """One coordinator and the partners around it.  `partner` is this node's name there; `ca` is PEM; `joined` is UTC."""

    name: str
    partner: str
    address: str
    ca: str
    roster: Mapping[str, str] = field(default_factory=dict)
    joined: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    coordinator: str = ""


@dataclass(frozen=True, slots=True)
class NodeHome:
    """The paths of a node's folder, and what lies in it; each property reads the file anew."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "node.toml"

    @property
    def key_path(self) -> Path:
        return self.path / "node.key"

    @property
    def public_path(self) -> Path:
        return self.path / "node.pub"

    @property
    def policy_path(self) -> Path:
        return self.path / "policy.toml"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.db"

    @property
    def audit_path(self) -> Path:
        return self.path / "audit.jsonl"

    @property
    def optout_path(self) -> Path:
        return self.path / "optout.txt"

    @property
    def paused_path(self) -> Path:
        return self.path / "paused"

    @property
    def witness_path(self) -> Path:
        return self.path / "witness.json"

    @property
    def studies(self) -> Path:
        """The folder of the studies that were proposed, and of the decisions on them."""
        return self.path / "studies"

    @property
    def consortia_folder(self) -> Path:
        return self.path / "consortia"

    def node_id_path(self, consortium: str) -> Path:
        """Where Flower's number for this node in a consortium is kept."""
        return self.consortia_folder / f"{checked_name(consortium, 'consortium')}.node-id"

    @property
    def name(self) -> str:
        return self._config().name("name", example='"hospital-zas"')

    @property
    def key(self) -> Key:
        return Key.load(self.key_path)

    @property
    def audit(self) -> Audit:
        return Audit(self.audit_path)

    @property
    def policy(self) -> Policy:
        """Raises Misuse when the file is gone: a node without rules has none to fall back on."""
        if not self.policy_path.exists():
            raise Misuse(f"{self.policy_path} is gone: put the data steward's copy back")
        return read_policy(self.policy_path)

    @property
    def source(self) -> Source:
        """Raises Misuse when no table is connected."""
        return read_source(self._config().table("data"))

    def connect(self, source: Source) -> None:
        """Let node.toml name this table from now on; its comments stay."""
        change(self.config_path, "data", source.settings())

    def ledger(self) -> Ledger:
        """Open the ledger, under the budget that the rules give now.

        Raises:
            Refusal: when it is gone or cannot be trusted; `ahh node init` makes the only fresh one.
        """
        if not self.ledger_path.exists():
            fix = "put back a copy no older than the last release; a fresh ledger would be a fresh budget for the same patients"
            raise Refusal(Reason.LEDGER, f"{self.ledger_path} is gone: {fix}")
        return Ledger.open(self.ledger_path, dataset=self.name, budget=self.policy.budget)

    def consortia(self) -> dict[str, Consortium]:
        """By name, every consortium this node has joined."""
        return {path.stem: self._consortium(path) for path in sorted(self.consortia_folder.glob("*.toml"))}

    def add_consortium(self, consortium: Consortium) -> None:
        """Join, or write anew what is known of a consortium."""
        name = checked_name(consortium.name, "consortium")
        texts = {each: quoted(getattr(consortium, each)) for each in ("partner", "address", "coordinator", "joined")}
        roster = "".join(f"{quoted(partner)} = {quoted(key)}\n" for partner, key in sorted(consortium.roster.items()))
        write(self.consortia_folder / f"{name}.ca.pem", consortium.ca.encode())
        write(
            self.consortia_folder / f"{name}.toml", (_CONSORTIUM.format(name=name, name_=quoted(name), **texts) + roster).encode()
        )

    def remove_consortium(self, name: str) -> None:
        """Leave: the ledger, the studies and the audit log stay.  Raises Misuse when the node is not a member."""
        known = self.consortia()
        if name not in known:
            raise Misuse(f"this node is not in a consortium {name!r}: it is in {', '.join(known) or 'none'}")
        for path in (f"{name}.toml", f"{name}.ca.pem", f"{name}.node-id"):
            (self.consortia_folder / path).unlink(missing_ok=True)

    @property
    def paused(self) -> bool:
        return self.paused_path.exists()

    def pause(self) -> None:
        write(self.paused_path, b"")

    def resume(self) -> None:
        self.paused_path.unlink(missing_ok=True)

    @property
    def optouts(self) -> frozenset[str]:
        """The keys of patients who are left out of everything."""
        return frozenset(pseudonyms(self.optout_path)) if self.optout_path.exists() else frozenset()

    def add_optouts(self, keys: Iterable[str]) -> int:
        """Leave these patients out from the next question on; how many there are in all."""
        merged = sorted(self.optouts | frozenset(keys))
        write(self.optout_path, "".join(f"{each}\n" for each in merged).encode())
        return len(merged)

    def _config(self) -> Table:
        return Table(_parsed(self.config_path), "")

    def _consortium(self, path: Path) -> Consortium:
        content = Table(_parsed(path), path.name)
        name = content.name("name")
        partner, address, joined = (content.text(key) for key in ("partner", "address", "joined"))
        coordinator = content.text("coordinator", default="")
        roster = content.table("roster")
        members = {member: roster.text(member) for member in roster.names()}
        try:
            ca = path.with_name(f"{name}.ca.pem").read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            raise Misuse(f"{name}.ca.pem beside {path} cannot be read: ask the coordinator for a new invitation") from None
        return Consortium(name, partner, address, ca, members, joined, coordinator)


def default_home() -> Path:
    """What the environment variable AHH_NODE_HOME says, or ~/.ahh/node."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path.home() / ".ahh" / "node"


def create_home(path: Path, name: str = "") -> NodeHome:
    """Make a node: key, rules that allow no column yet, an empty ledger, and node.toml, which is written last.

    Args:
        path: a folder that is not there, or empty.
        name: of the data set; the machine's name if empty.

    Raises:
        Misuse: when something is there already, or the name is none.
    """
    name = checked_name(name or socket.gethostname().split(".")[0], "--name")
    home = NodeHome(path.absolute())
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if home.config_path.exists():
            raise Misuse(f"{path} is a node already: use it, or give another folder with --home")
        if any(path.iterdir()):
            raise Misuse(f"{path} is not empty, and no node: give another folder, or clear what an earlier `init` left there")
        for folder in (home.studies, home.consortia_folder):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise Misuse(f"{path} cannot be made ({error.strerror}): give a folder that is yours") from None
    key = Key.create(home.key_path)
    write(home.public_path, f"{key.public} {name}\n".encode(), 0o644)
    write_policy(home.policy_path, allowed=())
    Ledger.open(home.ledger_path, dataset=name, budget=home.policy.budget).close()
    write(home.config_path, _CONFIG.format(name=quoted(name)).encode())
    home.audit.write("init", node=name, fingerprint=key.fingerprint)
    return home


def open_home(path: Path | None = None) -> NodeHome:
    """Raises Misuse when the folder is no node."""
    home = NodeHome((path or default_home()).absolute())
    if not home.config_path.exists():
        raise Misuse(f"{home.path} is no node: run `ahh node init`, or name its folder with --home or {VARIABLE}")
    return home


def pseudonyms(path: Path) -> list[str]:
    """One a line.  Raises Misuse when the file cannot be read, or a line holds something else."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): give a text file with one pseudonym a line") from None
    except UnicodeDecodeError:
        raise Misuse(f"{path} is not UTF-8 text: give a text file with one pseudonym a line") from None
    for number, line in enumerate(lines, 1):
        if _NO_PSEUDONYM.search(line.strip()):
            fix = "one pseudonym a line and nothing else; of a table, give its key column alone"
            raise Misuse(f"{path}: line {number} holds a comma, semicolon, tab, quote or = and is no pseudonym: {fix}")
    return [line.strip() for line in lines if line.strip()]


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): check the file and its rights") from None
    except (ValueError, RecursionError):
        raise Misuse(f"{path} is not valid TOML: mend it, or put a copy back") from None
