"""What can go wrong, split by whose fault it is.

    AhhError
    ├── Misuse       the researcher's: a study, an argument or a call that cannot work; raised before anything is asked
    ├── Refusal      the node says no, for a public reason out of a closed list
    ├── Breach       a peer broke the protocol: nothing it sent may be used
    └── Unreachable  a peer did not answer in time

No message of these ever carries a patient's value.  Only `Refusal.reason` crosses the wire, as an enum.
"""

from __future__ import annotations

from enum import StrEnum


class AhhError(Exception):
    """Root of every error this library raises on purpose."""


class Misuse(AhhError):
    """A study, an argument or a call that cannot work.  Names the thing, the reason and the fix."""


class Reason(StrEnum):
    """Why a node refuses.  Every reason is public: none depends on an exact property of the patients."""

    APPROVAL = "approval"
    BUDGET = "budget"
    COLUMN = "column"
    EXPIRED = "expired"
    LEDGER = "ledger"
    PAUSED = "paused"
    SCHEDULE = "schedule"
    STUDY = "study"
    QUERY = "query"
    TABLE = "table"
    SEED = "seed"
    VERSION = "version"
    WITNESS = "witness"


class Refusal(AhhError):
    """The node says no.  `reason` may cross the wire; the message stays at the node."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Breach(AhhError):
    """A peer broke the protocol."""


class Unreachable(AhhError):
    """A peer did not answer."""
