"""A node's own rules: what the data set may ever spend, the smallest cohort it speaks of, which columns and whose studies.

The file belongs to the partner; nothing that arrives from outside can change it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ahh_federated.core.costs import LEAST_EPSILON, MOST_EPSILON, Budget
from ahh_federated.errors import Misuse
from ahh_federated.node.settings import change, quoted, write
from ahh_federated.study import Study
from ahh_federated.study.fields import Table

_TEMPLATE = """\
# The rules of these data.  They hold for all studies, researchers and coordinators together.

# What the data are: "real", "synthetic" or "public".  Only for the last two may a study fix the noise or leave it out.
data = "{data}"

[budget]
# What one patient may ever lose: any study, any number of them.  Raising it is the data steward's decision.
epsilon = {epsilon:g}
delta = {delta:g}

[cohort]
# A noised count below this is not sent: the answer is "below threshold", which may also be zero.
minimum = {minimum}
"""
_NETWORK = """
[columns]
# The columns that a study may touch.  `ahh node connect --allow` writes them; without this table every column is allowed.
allowed = [{allowed}]

[requesters]
# The organisations that may ask, spelled as in their studies.  An empty list means any: a steward still decides on each study.
organisations = []
"""

OPEN = ("synthetic", "public")  # data on which a study may fix the noise or leave it out


@dataclass(frozen=True, slots=True)
class Policy:
    """A node's rules.  The default budget allows two studies at epsilon 3 and delta 1e-6, or four at epsilon 2.

    `columns` are those a study may touch, None for all; `organisations` those that may ask, empty for any.
    """

    budget: Budget = field(default_factory=lambda: Budget(4.0, 1e-5))
    minimum_cohort: int = 10
    data: str = "real"
    columns: frozenset[str] | None = None
    organisations: tuple[str, ...] = ()

    def forbidden(self, study: Study) -> list[str]:
        """The columns of a study that these rules do not allow.

        The patient's key is never among them: every study needs it, and no analysis can name it.
        """
        order = [] if study.patient.order is None else [study.patient.order]
        return [name for name in dict.fromkeys([*study.columns, *order]) if self.columns is not None and name not in self.columns]

    def objections(self, study: Study) -> list[str]:
        """What these rules forbid about a study, each with what would have to change; empty when they allow it."""
        said = []
        if columns := ", ".join(self.forbidden(study)):
            said.append(f"it asks for columns outside the policy ({columns}): add them to columns.allowed in policy.toml")
        if self.organisations and study.organisation not in self.organisations:
            fix = "add it to requesters.organisations in policy.toml"
            said.append(f"the organisation {study.organisation!r} may not ask here: {fix}")
        return said


def write_policy(path: Path, data: str = "real", allowed: Sequence[str] | None = None) -> None:
    """Write the commented defaults; with `allowed`, also the tables that matter on a network."""
    default = Policy()
    limits = {"epsilon": default.budget.epsilon, "delta": default.budget.delta, "minimum": default.minimum_cohort}
    text = _TEMPLATE.format(data=data, **limits)
    if allowed is not None:
        text += _NETWORK.format(allowed=", ".join(quoted(each) for each in allowed))
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text.encode(), 0o644)


def allow(path: Path, columns: Sequence[str]) -> None:
    """Let the rules in this file allow these columns and no others; the rest of the file stays as it is."""
    change(path, "columns", {"allowed": list(columns)})


def read_policy(path: Path, data: str = "real") -> Policy:
    """Read the rules, writing the commented defaults first when there are none.

    Args:
        path: the policy file.
        data: what the first study about them declares the data to be; from then on the file says.

    Raises:
        Misuse: naming the key, the reason and the fix.
    """
    try:
        if not path.exists():
            write_policy(path, data)
        content = Table(tomllib.loads(path.read_text(encoding="utf-8-sig")), "")
        budget, cohort = content.table("budget"), content.table("cohort")
        columns, requesters = (_optional(content, name) for name in ("columns", "requesters"))
        policy = Policy(
            Budget(budget.number("epsilon", LEAST_EPSILON, MOST_EPSILON), budget.number("delta", 1e-15, 0.01)),
            cohort.integer("minimum", 1, 10**6),
            content.choice("data", ("real", "synthetic", "public"), default="real"),
            None if columns is None else frozenset(columns.texts("allowed")),
            () if requesters is None else requesters.texts("organisations", default=()),
        )
        for table in (budget, cohort, columns, requesters, content):
            if table is not None:
                table.done()
    except OSError as error:
        raise Misuse(f"{path} cannot be opened ({error.strerror}): let this node read it, and write it the first time") from None
    except (ValueError, RecursionError):
        raise Misuse(f"{path.name} is not valid TOML: mend it, or put the steward's copy back") from None
    except Misuse as error:
        raise Misuse(f"{path.name}: {error}") from None
    return policy


def _optional(content: Table, name: str) -> Table | None:
    value = content.raw(name, default=None)
    return None if value is None else Table(value, name)
