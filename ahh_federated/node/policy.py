"""A node's own rules: what the data set may ever spend, and the smallest cohort it speaks of.

The file belongs to the partner; nothing that arrives from outside can change it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from ahh_federated.core.costs import LEAST_EPSILON, MOST_EPSILON, Budget
from ahh_federated.errors import Misuse
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


OPEN = ("synthetic", "public")  # data on which a study may fix the noise or leave it out


@dataclass(frozen=True, slots=True)
class Policy:
    """A node's rules.  The default budget allows two studies at epsilon 3 and delta 1e-6, or four at epsilon 2."""

    budget: Budget = field(default_factory=lambda: Budget(4.0, 1e-5))
    minimum_cohort: int = 10
    data: str = "real"


def read_policy(path: Path, data: str = "real") -> Policy:
    """Read the rules, writing the commented defaults first when there are none.

    Args:
        path: the policy file.
        data: what the first study about them declares the data to be; from then on the file says.

    Raises:
        Misuse: naming the key, the reason and the fix.
    """
    default = Policy()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            limits = {"epsilon": default.budget.epsilon, "delta": default.budget.delta, "minimum": default.minimum_cohort}
            text = _TEMPLATE.format(data=data, **limits)
            path.write_text(text, encoding="utf-8")
        content = Table(tomllib.loads(path.read_text(encoding="utf-8-sig")), "")
        budget, cohort = content.table("budget"), content.table("cohort")
        policy = Policy(
            Budget(budget.number("epsilon", LEAST_EPSILON, MOST_EPSILON), budget.number("delta", 1e-15, 0.01)),
            cohort.integer("minimum", 1, 10**6),
            content.choice("data", ("real", "synthetic", "public"), default="real"),
        )
        for table in (budget, cohort, content):
            table.done()
    except OSError as error:
        raise Misuse(f"{path} cannot be opened ({error.strerror}): let this node read it, and write it the first time") from None
    except (ValueError, RecursionError):
        raise Misuse(f"{path.name} is not valid TOML: mend it, or put the steward's copy back") from None
    except Misuse as error:
        raise Misuse(f"{path.name}: {error}") from None
    return policy
