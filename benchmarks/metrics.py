"""How good predicted risks are on patients a model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

F64 = NDArray[np.float64]
_CERTAIN = 1e-6  # risks closer to 0 or 1 are moved to here before a logarithm is taken


@dataclass(frozen=True, slots=True)
class Quality:
    """Area under the ROC curve, accuracy at a risk of one half, log loss (nats) and calibration slope (1 is right)."""

    auroc: float
    accuracy: float
    logloss: float
    slope: float


def quality(outcomes: Sequence[F64], risks: Sequence[F64], *, by_partner: bool = False) -> Quality:
    """Judge risks against outcomes of 0 or 1; one array per partner, all figures pooled.

    Args:
        by_partner: accuracy as the mean of the partners' accuracies, as FLamby reports it.
    """
    y, p = np.concatenate(list(outcomes)), np.clip(np.concatenate(list(risks)), _CERTAIN, 1 - _CERTAIN)
    right = [np.asarray((each > 0.5) == truth, dtype=np.float64) for truth, each in zip(outcomes, risks, strict=True)]
    accuracy = float(np.mean([each.mean() for each in right])) if by_partner else float(np.concatenate(right).mean())
    return Quality(float(roc_auc_score(y, p)), accuracy, float(log_loss(y, p)), calibration_slope(y, p))


def calibration_slope(y: F64, p: F64) -> float:
    """The coefficient of logit(p) in a logistic regression of y on it (Cox 1958)."""
    x = np.stack([np.ones_like(p), logit(p)])

    def loss(beta: F64) -> tuple[float, F64]:
        eta = beta @ x
        return float(np.sum(np.logaddexp(0, eta) - y * eta)), np.asarray(x @ (expit(eta) - y))

    return float(minimize(loss, np.array([0.0, 1.0]), jac=True, method="BFGS").x[1])
