"""Logistic regression: log odds that are a sum of lines."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ahh_federated.analyses.models import Family
from ahh_federated.lab.estimators.base import Estimator
from ahh_federated.lab.estimators.parts import coefficients, intercept, terms
from ahh_federated.lab.models.fitted import Fitted


class LogisticRegression(Estimator):
    """Logistic regression fitted by partners under differential privacy.

    Args:
        study: a study, or the path of its file, with a logistic ask.
        ask: the id of that ask; the first when None.
        engine, seed: as in `ahh.run`.

    Attributes:
        coef_: shape (1, terms), log odds per unit of the equation, shrunk for prediction.
        intercept_: shape (1,).
        classes_: shape (2,), the levels of the outcome.
        feature_names_in_: the columns needed.
        summary_: one row a term: the estimate, its odds ratio and 95 % interval, privacy and sampling errors apart.
        receipt_: the study's digest, the guarantee, who took part, and what it has cost each.
    """

    analysis: ClassVar[str] = "logistic"
    _usual: ClassVar[Family] = "binary"

    def _keep(self, model: Fitted) -> Self:
        super()._keep(model)
        self.coef_ = coefficients(model)[None, :]
        self.intercept_ = np.array([intercept(model)])
        self.summary_ = terms(model)
        return self

    def summary(self) -> pd.DataFrame:
        """Odds ratios with 95 % intervals that include the privacy noise; one row a term."""
        check_is_fitted(self)
        shown = ["odds_ratio", "low", "high", "p", "coefficient", "se", "se_sampling", "se_privacy"]
        return self.summary_[shown].drop(index="(intercept)")
