"""Fitted models as ordinary scikit-learn estimators."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ahh_federated.errors import Breach
from ahh_federated.lab.estimators.additive import AdditiveModel
from ahh_federated.lab.estimators.base import Estimator
from ahh_federated.lab.estimators.linear import LinearRegression
from ahh_federated.lab.estimators.logistic import LogisticRegression
from ahh_federated.lab.estimators.neural import NeuralModel
from ahh_federated.lab.models.files import read_model
from ahh_federated.lab.models.fitted import Fitted
from ahh_federated.study import Study

__all__ = [
    "ESTIMATORS",
    "AdditiveModel",
    "Estimator",
    "LinearRegression",
    "LogisticRegression",
    "NeuralModel",
    "estimator_of",
    "load_model",
]

ESTIMATORS: Final[dict[str, type[Estimator]]] = {
    each.analysis: each for each in (LogisticRegression, AdditiveModel, LinearRegression, NeuralModel)
}


def estimator_of(model: Fitted, study: Study | None = None) -> Estimator:
    """The estimator of a fitted model."""
    return ESTIMATORS[model.analysis].of(model, study)


def load_model(path: Path | str) -> Estimator:
    """Read a model file; nothing in it is run.

    Raises:
        Misuse: when the file, or the tensors beside it, cannot be read.
        Breach: when it is not such a model, or was changed after it was written.
    """
    path = Path(path)
    model = read_model(path)
    if model.analysis not in ESTIMATORS:
        raise Breach(f"{path.name} is a model of the analysis {model.analysis!r}, which this version does not know")
    try:
        return estimator_of(model)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Breach(f"{path.name} lacks a part of a model") from None
