"""The checkpoints of every node's ledger: what tells later that a ledger is an older copy.

What a node has spent never shrinks, so the newest checkpoint is the one with the most spent, then the highest entry.  Entries
alone would not do: a ledger that was restored and burned what it lost goes on from a lower entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

from ahh_federated.coordinator.database import Database
from ahh_federated.errands import Checkpoint

MOST = 500  # kept of one node

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checkpoints (
    node TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL, mu_squared REAL NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (node, seq, hash))
"""
_NEWEST = "ORDER BY mu_squared DESC, seq DESC, hash DESC"


@final
class Witness:
    """The checkpoints in the database `path`, by the fingerprint of the node."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, whose signature the caller has checked; of each node the newest 500 are kept."""
        content = json.dumps(checkpoint.to_json(), allow_nan=False)
        values = (checkpoint.node, checkpoint.seq, checkpoint.hash, checkpoint.mu_squared, content)
        old = f"SELECT rowid FROM checkpoints WHERE node = ? {_NEWEST} LIMIT -1 OFFSET {MOST}"
        with self._db.change() as db:
            db.execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?, ?, ?)", values)
            db.execute(f"DELETE FROM checkpoints WHERE rowid IN ({old})", (checkpoint.node,))

    def latest(self, fingerprint: str) -> Checkpoint | None:
        """The newest of this node."""
        select = f"SELECT content FROM checkpoints WHERE node = ? {_NEWEST} LIMIT 1"
        return next(iter(_read(self._db.rows(select, (fingerprint,)))), None)

    def history(self, fingerprint: str) -> tuple[Checkpoint, ...]:
        """All that are kept of this node, newest first."""
        return _read(self._db.rows(f"SELECT content FROM checkpoints WHERE node = ? {_NEWEST}", (fingerprint,)))

    def all(self) -> list[Checkpoint]:
        """The newest of each node, by fingerprint."""
        nodes = self._db.rows("SELECT DISTINCT node FROM checkpoints ORDER BY node")
        return [found for (node,) in nodes if (found := self.latest(node)) is not None]

    def close(self) -> None:
        self._db.close()


def _read(rows: Iterable[Any]) -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint.from_json(json.loads(row[0])) for row in rows)
