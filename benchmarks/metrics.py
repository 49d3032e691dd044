"""How good predictions are on patients a model has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

F64 = NDArray[np.float64]
_CERTAIN = 1e-6  # risks closer to 0 or 1 are moved to here before a logarithm is taken


def quality(family: str, outcomes: Sequence[F64], predictions: Sequence[F64], *, by_partner: bool = False) -> dict[str, float]:
    """Figures on patients of all partners together; one array per partner.

    binary: area under the ROC curve, accuracy at a risk of one half, log loss (nats), calibration slope (1 is right).
    continuous: share of variance explained (at most 1, negative when worse than the mean), and root of the mean squared
    error in the outcome's unit.

    Args:
        by_partner: accuracy as the mean of the partners' accuracies, as FLamby reports it.
    """
    if family == "continuous":
        return _measured(np.concatenate(list(outcomes)), np.concatenate(list(predictions)))
    y, p = np.concatenate(list(outcomes)), np.clip(np.concatenate(list(predictions)), _CERTAIN, 1 - _CERTAIN)
    right = [np.asarray((each > 0.5) == truth, dtype=np.float64) for truth, each in zip(outcomes, predictions, strict=True)]
    accuracy = float(np.mean([each.mean() for each in right])) if by_partner else float(np.concatenate(right).mean())
    auroc, slope = float(roc_auc_score(y, p)), calibration_slope(y, p)
    return {"auroc": auroc, "accuracy": accuracy, "logloss": float(log_loss(y, p)), "slope": slope}


def _measured(y: F64, found: F64) -> dict[str, float]:
    residual = float(np.sum((y - found) ** 2))
    return {"r2": 1 - residual / float(np.sum((y - y.mean()) ** 2)), "rmse": (residual / len(y)) ** 0.5}


def calibration_slope(y: F64, p: F64) -> float:
    """The coefficient of logit(p) in a logistic regression of y on it (Cox 1958)."""
    x = np.stack([np.ones_like(p), logit(p)])

    def loss(beta: F64) -> tuple[float, F64]:
        eta = beta @ x
        return float(np.sum(np.logaddexp(0, eta) - y * eta)), np.asarray(x @ (expit(eta) - y))

    return float(minimize(loss, np.array([0.0, 1.0]), jac=True, method="BFGS").x[1])
