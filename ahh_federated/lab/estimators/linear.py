"""Linear regression: a measured outcome that is a sum of lines."""

from __future__ import annotations

from typing import ClassVar, Self

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ahh_federated.analyses.models import Family
from ahh_federated.lab.estimators.base import Estimator
from ahh_federated.lab.estimators.parts import coefficients, intercept, terms
from ahh_federated.lab.models.fitted import Fitted


class LinearRegression(Estimator):
    """Linear regression of a measured outcome, fitted by partners under differential privacy.

    Args:
        study: a study, or the path of its file, with a linear ask.
        ask: the id of that ask; the first when None.
        engine, seed: as in `ahh.run`.

    Attributes:
        coef_: shape (terms,), units of the outcome per unit of the column, shrunk for prediction.
        intercept_: in the outcome's unit.
        feature_names_in_: the columns needed.
        summary_: one row a term: the estimate and its 95 % interval, privacy and sampling errors apart.
        receipt_: the study's digest, the guarantee, who took part, and what it has cost each.
    """

    analysis: ClassVar[str] = "linear"
    _usual: ClassVar[Family] = "continuous"

    def _keep(self, model: Fitted) -> Self:
        super()._keep(model)
        self.coef_ = coefficients(model)
        self.intercept_ = intercept(model)
        self.summary_ = terms(model)
        return self

    def summary(self) -> pd.DataFrame:
        """Coefficients with 95 % intervals that include the privacy noise; one row a term."""
        check_is_fitted(self)
        shown = ["coefficient", "low", "high", "p", "se", "se_sampling", "se_privacy"]
        return self.summary_[shown].drop(index="(intercept)")
