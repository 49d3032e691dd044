"""Fitted models as ordinary scikit-learn estimators, and their file format."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ahh_federated.analyses.fit import Fit
from ahh_federated.core.columns import NOT_KNOWN
from ahh_federated.errors import Breach, Misuse
from ahh_federated.runtimes import running
from ahh_federated.runtimes.nodes import Partners
from ahh_federated.study import Study, open_study

FORMAT = "ahh-model/1"


class LogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Logistic regression fitted by partners under differential privacy.

    Args:
        study: a study, or the path of its file, with a logistic ask.
        ask: the id of that ask; the only one when None.
        engine, seed: as in `ahh.run`.

    Attributes:
        coef_: shape (1, terms), log odds per unit of the equation, shrunk for prediction.
        intercept_: shape (1,).
        classes_: shape (2,), the levels of the outcome.
        feature_names_in_: the columns needed.
        summary_: one row a term: the estimate, its odds ratio and 95 % interval, privacy and sampling errors apart.
        receipt_: the study's digest, the guarantee and who took part.
    """

    def __init__(
        self, study: Study | Path | str | None = None, ask: str | None = None, engine: str = "local", seed: int | None = None
    ) -> None:
        self.study = study
        self.ask = ask
        self.engine = engine
        self.seed = seed

    def fit(self, X: Partners, y: None = None) -> Self:
        """Run the study on tables of this machine and keep its model.

        Args:
            X: data frames by partner, or a folder with a table per partner.
            y: not used; the study names the outcome.
        """
        if self.study is None:
            raise Misuse("LogisticRegression needs a study: give LogisticRegression(study='my-study.toml')")
        study = self.study if isinstance(self.study, Study) else open_study(self.study)
        models = [ask.id for ask in study.asks if ask.name == "logistic"]
        if not models or self.ask not in (None, *models):
            raise Misuse(f"the study {study.id} has no logistic ask {self.ask or ''!r}: it has {', '.join(models) or 'none'}")
        results = running.run(study, X, mode=running.Mode(self.engine, self.seed))
        for outcome in results.outcomes:
            if isinstance(outcome.answer, Fit) and self.ask in (None, outcome.ask.id):
                return self._keep(model_content(outcome.answer, study, results.header.stamp))
        raise Misuse(
            f"no model came out of the study {study.id}: {'; '.join(f'{o.ask.id} {o.status}' for o in results.outcomes)}"
        )

    @classmethod
    def from_fit(cls, fit: Fit, study: Study, stamp: str = "") -> LogisticRegression:
        """A model that a run has fitted; `stamp` says when the run was not private."""
        return cls(study)._keep(model_content(fit, study, stamp))

    def _keep(self, content: Mapping[str, Any]) -> Self:
        self.model_ = dict(content)
        equation = content["equation"]
        self.coef_ = np.array([[term["coefficient"] for term in equation["terms"]]])
        self.intercept_ = np.array([equation["intercept"]])
        self.classes_ = np.array(content["levels"])
        self.feature_names_in_ = np.array(list(content["columns"]), dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self.summary_ = pd.DataFrame(content["terms"]).set_index("name")
        self.receipt_ = dict(content["receipt"])
        return self

    def decision_function(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Log odds, shape (rows,); NaN where a needed value is missing."""
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame):
            raise Misuse("the model reads columns by name: give a pandas DataFrame")
        absent = [name for name in self.feature_names_in_ if name not in X.columns]
        if absent:
            raise Misuse(f"the data lack the column {absent[0]!r}: the model needs {', '.join(self.feature_names_in_)}")
        terms = zip(self.model_["equation"]["terms"], self.coef_[0], strict=True)
        eta = np.full(len(X), self.intercept_[0])
        for term, coefficient in terms:
            eta = eta + coefficient * self._term(term, X)
        return np.asarray(eta)

    def _term(self, term: Mapping[str, Any], X: pd.DataFrame) -> NDArray[np.float64]:
        column = self.model_["columns"][term["column"]]
        values = X[term["column"]]
        if "levels" in column:
            text = values.astype(object).where(values.notna(), None)
            absent = ~text.isin(column["levels"]).to_numpy()
            if term["level"] == NOT_KNOWN:
                return np.asarray(absent, dtype=np.float64)
            hit = (text == term["level"]).to_numpy(np.float64)
            return np.where(absent, 0.0 if self.model_["indicators"] else np.nan, hit)
        numbers = np.array(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
        low, high = column["range"]
        if column.get("outside", "missing") == "missing":
            numbers = np.where((numbers < low) | (numbers > high), np.nan, numbers)
        numbers[np.isin(numbers, column.get("missing", []))] = np.nan
        if term["level"] == NOT_KNOWN:
            return np.isnan(numbers).astype(np.float64)
        numbers = np.clip(numbers, *term["clip"])
        return np.asarray(np.where(np.isnan(numbers), term["centre"], numbers) if self.model_["indicators"] else numbers)

    def predict_proba(self, X: pd.DataFrame) -> NDArray[np.float64]:
        """Risk without and with the event, shape (rows, 2)."""
        p = expit(self.decision_function(X))
        return np.asarray(np.stack([1 - p, p], axis=1))

    def predict(self, X: pd.DataFrame) -> NDArray[Any]:
        """The likelier level, shape (rows,)."""
        risk = self.predict_proba(X)[:, 1]
        if np.isnan(risk).any():
            raise Misuse(
                f"{int(np.isnan(risk).sum())} rows lack a value the model needs: complete or drop them, or use predict_proba"
            )
        return np.asarray(self.classes_[(risk > 0.5).astype(int)])

    def summary(self) -> pd.DataFrame:
        """Odds ratios with 95 % intervals that include the privacy noise; one row a term."""
        check_is_fitted(self)
        shown = ["odds_ratio", "low", "high", "p", "coefficient", "se", "se_sampling", "se_privacy"]
        return self.summary_[shown].drop(index="(intercept)")

    def save(self, path: Path | str) -> None:
        """Write the model as JSON: the equation, the estimates and the receipt; loading it runs no code."""
        check_is_fitted(self)
        Path(path).write_text(json.dumps(self.model_, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_model(path: Path | str) -> LogisticRegression:
    """Read a model that `save` wrote.

    Raises:
        Misuse: when the file cannot be read.
        Breach: when it is not such a model.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): give the path of a model.json") from None
    except ValueError:
        raise Breach(f"{Path(path).name} is not JSON") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Breach(f"{Path(path).name} is not a model of the form {FORMAT}")
    try:
        model = LogisticRegression()._keep(content)
    except (KeyError, TypeError, ValueError):
        raise Breach(f"{Path(path).name} lacks a part of a model") from None
    if not all(math.isfinite(value) for value in [*model.coef_[0], *model.intercept_]):
        raise Breach(f"{Path(path).name} has a coefficient that is not a finite number")
    return model


def model_content(fit: Fit, study: Study, stamp: str) -> dict[str, Any]:
    """What model.json holds."""
    answer = fit.to_json()
    declared = study.content["columns"]
    cases = {name: {"levels": ["no", "yes"], "when": case.when.text} for name, case in study.cases.items()}
    columns = {column.name: {**cases, **declared}[column.name] for column in fit.design.features}
    return {
        "format": FORMAT,
        "outcome": fit.outcome.name,
        "definition": study.cases[fit.outcome.name].when.text if fit.outcome.name in study.cases else fit.outcome.name,
        "levels": list(fit.outcome.levels),
        "indicators": fit.design.indicators,
        "columns": columns,
        "equation": answer["equation"],
        "terms": answer["terms"],
        "receipt": {
            "stamp": stamp,
            "study": study.id,
            "version": study.version,
            "digest": study.digest,
            "permit": study.permit,
            "epsilon": study.budget.epsilon,
            "delta": study.budget.delta,
            "neighbours": "add-or-remove-one",
            "noise": "each-node",
            "partners": list(fit.partners),
            "messages": fit.rounds,
        },
    }
