"""scikit-learn's own checks of estimators, on each of ours."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

import ahh_federated as ahh
from ahh_federated.study import parse_study


class OnArrays:
    """The checks' way of calling an estimator: arrays, and labels of any kind.

    The checks fit as few as ten rows, of which a node would say nothing, so each row stands for MANY patients.
    """

    MANY = 40

    def fit(self, X, y=None):
        classifies = self._usual == "binary"
        X, y = validate_data(self, X, y, dtype="float64", y_numeric=not classifies)
        if classifies:
            check_classification_targets(y)
            labels, y = np.unique(y, return_inverse=True)
            if len(labels) > 2:
                raise ValueError(f"Only binary classification is supported. The type of the target is {type_of_target(labels)}.")
            if len(labels) < 2:
                raise ValueError("one class alone cannot be told from another: give two classes")
        frame = self._frame(np.repeat(X, self.MANY, axis=0)).assign(patient=[f"p{k}" for k in range(self.MANY * len(X))])
        names = getattr(self, "feature_names_in_", None)
        kept, self.study = self.study, self._declared(X.shape[1], classifies)
        try:
            super().fit(frame, np.repeat(y, self.MANY))
        finally:
            self.study = kept
        del self.feature_names_in_
        if names is not None:
            self.feature_names_in_ = names
        if classifies:
            self.classes_ = labels
        return self

    def _linear(self, X):
        check_is_fitted(self)
        return super()._linear(self._frame(validate_data(self, X, dtype="float64", reset=False)))

    @staticmethod
    def _frame(X):
        return pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])

    def _declared(self, width, classifies):
        measured = {"range": [-20.0, 20.0], "unit": "1", "outside": "clip"}
        names = [f"x{j}" for j in range(width)]
        ask = {"id": "model", "analysis": self.analysis, "outcome": "y", "features": names, "share": 1.0}
        about = {"id": "checks", "title": "t", "purpose": "p", "version": 1, "consortium": "c", "minimum_partners": 1}
        return parse_study(
            {
                "study": {**about, "expires": date(2099, 1, 1), "data": "synthetic"},
                "requester": {"name": "n", "organisation": "o", "permit": "p"},
                "privacy": {"epsilon": 3.9, "delta": 1e-6, "neighbours": "add-or-remove-one", "noise": "each-node"},
                "patient": {"key": "patient"},
                "columns": {**dict.fromkeys(names, measured), "y": {"levels": ["0", "1"]} if classifies else measured},
                "ask": [ask],
            }
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = False
        return tags


class Logistic(OnArrays, ahh.LogisticRegression):
    pass


class Linear(OnArrays, ahh.LinearRegression):
    pass


class AdditiveClassifier(OnArrays, ahh.AdditiveModel):
    pass


class AdditiveRegressor(OnArrays, ahh.AdditiveModel):
    _usual = "continuous"


class NeuralClassifier(OnArrays, ahh.NeuralModel):
    pass


class NeuralRegressor(OnArrays, ahh.NeuralModel):
    _usual = "continuous"


SLOW = [
    pytest.param(each, marks=pytest.mark.slow)
    for each in (Linear, AdditiveClassifier, AdditiveRegressor, NeuralClassifier, NeuralRegressor)
]
NOT_APPLICABLE: dict[str, str] = {}  # every check that is there applies


@pytest.mark.parametrize("estimator", [Logistic, *SLOW])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")  # array-API checks, which need SCIPY_ARRAY_API=1
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # the checks' own
def test_scikit_learns_own_checks_pass(estimator):
    if issubclass(estimator, ahh.NeuralModel):
        pytest.importorskip("opacus")
    found = check_estimator(estimator(seed=1), expected_failed_checks=NOT_APPLICABLE)
    passed = {check["check_name"] for check in found if check["status"] == "passed"}
    assert len(passed) > 45
    assert "check_classifiers_train" in passed or "check_regressors_train" in passed
