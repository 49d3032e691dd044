"""The newest checkpoint of every node's ledger: what tells later that a ledger is an older copy.

What a node has spent never shrinks, so the newest checkpoint is the one with the most spent, then the highest entry.  Entries
alone would not do: a ledger that was restored and burned what it lost goes on from a lower entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, final

from ahh_federated.coordinator.database import Database
from ahh_federated.errands import Checkpoint, newest

_SCHEMA = "CREATE TABLE IF NOT EXISTS checkpoints (node TEXT PRIMARY KEY, content TEXT NOT NULL)"


@final
class Witness:
    """The checkpoints in the database `path`, by the fingerprint of the node."""

    def __init__(self, path: Path) -> None:
        self._db = Database(path, _SCHEMA)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, whose signature the caller has checked, unless a newer one is kept."""
        with self._db.change() as db:
            kept = _read(db.execute("SELECT content FROM checkpoints WHERE node = ?", (checkpoint.node,)))
            if newest([checkpoint, *kept])[checkpoint.node] is checkpoint:
                content = json.dumps(checkpoint.to_json(), allow_nan=False)
                db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (checkpoint.node, content))

    def latest(self, fingerprint: str) -> Checkpoint | None:
        """The newest of this node."""
        rows = self._db.rows("SELECT content FROM checkpoints WHERE node = ?", (fingerprint,))
        return next(iter(_read(rows)), None)

    def all(self) -> tuple[Checkpoint, ...]:
        """The newest of each node, by fingerprint."""
        return _read(self._db.rows("SELECT content FROM checkpoints ORDER BY node"))

    def close(self) -> None:
        self._db.close()


def _read(rows: Iterable[Any]) -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint.from_json(json.loads(row[0])) for row in rows)
