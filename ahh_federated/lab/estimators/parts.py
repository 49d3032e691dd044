"""What estimators show of a fitted model, as arrays and data frames."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ahh_federated.lab.models.fitted import Fitted
from ahh_federated.lab.models.forms import F64, ByLevel, Line, Sum


def coefficients(model: Fitted) -> F64:
    """Of the equation, one a term, column by column: per unit of a measured column; for each level but the reference.

    Where "not known" is a level, its effect comes last.
    """
    found: list[float] = []
    for effect in _sum(model).effects:
        if isinstance(effect, Line):
            found.append(effect.coefficient)
        elif isinstance(effect, ByLevel):
            found += effect.value[1:]
        if effect.unknown is not None:
            found.append(effect.unknown)
    return np.array(found)


def intercept(model: Fitted) -> float:
    return _sum(model).intercept


def terms(model: Fitted, key: str = "terms") -> pd.DataFrame:
    """The estimates, one row a term."""
    return pd.DataFrame(model.estimates[key]).set_index("name")


def _sum(model: Fitted) -> Sum:
    if not isinstance(model.form, Sum):
        raise ValueError("the model has no equation")
    return model.form
