"""Model files of the first form, `ahh-model/1`, as the content of one of today: a logistic regression, without a seal.

They are read, and no longer written.  A case was read as a column of its own, with the levels "no" and "yes".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ahh_federated.core.columns import NOT_KNOWN
from ahh_federated.errors import Misuse

FORMAT = "ahh-model/1"
_KEYS = {"format", "outcome", "definition", "levels", "indicators", "columns", "equation", "terms", "receipt"}


def upgraded(content: Mapping[str, Any], form: str, receipt: set[str]) -> dict[str, Any]:
    """The content of the form `form`, whose receipt has the keys `receipt`.  Raises Misuse when a part is absent."""
    if set(content) != _KEYS:
        raise Misuse(f"it has not exactly the keys {', '.join(sorted(_KEYS))}")
    try:
        columns = {
            name: {key: value for key, value in each.items() if key != "when"} for name, each in content["columns"].items()
        }
        terms = content["equation"]["terms"]
        effects = [_effect(name, column, terms, content["indicators"]) for name, column in columns.items()]
        return {
            "format": form,
            "software": {"ahh_federated": "not recorded"},
            "analysis": "logistic",
            "family": "binary",
            "title": "",
            "outcome": {"name": content["outcome"], "definition": content["definition"], "levels": content["levels"]},
            "columns": columns,
            "cases": {},
            "equation": {"intercept": content["equation"]["intercept"], "effects": effects, "products": []},
            "estimates": {"outcome": content["outcome"], "terms": content["terms"]},
            "recalibration": {},
            "receipt": {**dict.fromkeys(receipt), "unit": "patient", "ledger": {}, **content["receipt"]},
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise Misuse("it lacks a part of a model") from None


def _effect(name: str, column: Mapping[str, Any], terms: Any, indicators: bool) -> dict[str, Any]:
    by_level = {term["level"]: term["coefficient"] for term in terms if term["column"] == name}
    absent = by_level.get(NOT_KNOWN)
    if "levels" in column:
        reference, *others = column["levels"]
        levels = {reference: 0.0, **{level: by_level[level] for level in others}}
        return {"column": name, "levels": levels, "unknown": absent if indicators else None}
    (term,) = (term for term in terms if term["column"] == name and term["level"] is None)
    low, high = term["clip"]
    unknown = term["coefficient"] * term["centre"] + absent if indicators else None
    return {"column": name, "coefficient": term["coefficient"], "low": low, "high": high, "unknown": unknown}
