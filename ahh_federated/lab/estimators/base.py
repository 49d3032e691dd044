"""What all estimators share: fitting by partners, predicting from a data frame, files, and scikit-learn's manners."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ahh_federated.analyses.models import Family, Model, ModelAnalysis
from ahh_federated.errors import Misuse
from ahh_federated.lab.models.files import write_model
from ahh_federated.lab.models.fitted import Fitted, fitted
from ahh_federated.lab.models.forms import F64
from ahh_federated.runtimes import running
from ahh_federated.runtimes.frames import read_columns
from ahh_federated.runtimes.nodes import Partners
from ahh_federated.study import Ask, Study, open_study

ONE = "local"  # the name of the one partner that a single data frame is


def _classifies(estimator: Estimator) -> bool:
    return estimator.family in ("binary", "levels")


class Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A model that partners fit together under differential privacy, in the manners of scikit-learn."""

    analysis: ClassVar[str]
    _usual: ClassVar[Family]  # the family where nothing says more

    def __init__(
        self, study: Study | Path | str | None = None, ask: str | None = None, engine: str = "local", seed: int | None = None
    ) -> None:
        self.study = study
        self.ask = ask
        self.engine = engine
        self.seed = seed

    def fit(self, X: Partners | pd.DataFrame, y: Any = None) -> Self:
        """Run the study on tables of this machine and keep its model.

        Args:
            X: data frames by partner, or a folder with a table per partner; or one data frame, which is one partner.
            y: with one data frame, the outcome if that is a declared column which the frame lacks, shape (rows,).

        Raises:
            Misuse: when the study or the call cannot work; nothing was asked.
            Refusal: when a table or a ledger cannot be used; nothing was spent.
        """
        study, ask = self._asked()
        if not isinstance(X, pd.DataFrame | Mapping | Path | str):
            fix = "give data frames by partner, a folder with a table per partner, or one data frame"
            raise Misuse(f"X is a {type(X).__name__}: {fix}")
        partners = {ONE: _with_outcome(X, y, study, ask)} if isinstance(X, pd.DataFrame) else X
        if y is not None and not isinstance(X, pd.DataFrame):
            raise Misuse("y goes with one data frame only: the tables of partners hold the outcome, so leave y out")
        if isinstance(X, pd.DataFrame) and study.minimum_partners > 1:
            raise Misuse(
                f"one data frame is one partner, and the study {study.id} needs {study.minimum_partners}: give a data frame for "
                "each, or lower study.minimum_partners"
            )
        results = running.run(study, partners, mode=running.Mode(self.engine, self.seed))
        outcome = results.outcome(ask.id)
        if not isinstance(outcome.answer, Model):
            raise Misuse(
                f"no model came out of the ask {ask.id!r}: it is {outcome.status} ({outcome.reason or 'no reason given'})"
            )
        return self._keep(fitted(results, ask.id))

    def _asked(self) -> tuple[Study, Ask]:
        """The study, and the ask that this estimator stands for."""
        name = type(self).__name__
        if self.study is None:
            raise Misuse(f"{name} needs a study: give {name}(study='my-study.toml')")
        study = self.study if isinstance(self.study, Study) else open_study(self.study)
        asks = {ask.id: ask for ask in study.asks if ask.name == self.analysis}
        if not asks or self.ask not in (None, *asks):
            named = f" {self.ask!r}" if self.ask else ""
            raise Misuse(f"the study {study.id} has no {self.analysis} ask{named}: it has {', '.join(asks) or 'none'}")
        return study, asks[self.ask] if self.ask else next(iter(asks.values()))

    @classmethod
    def of(cls, model: Fitted, study: Study | None = None) -> Self:
        """An estimator that is fitted already."""
        return cls(study, model.receipt["ask"])._keep(model)

    def _keep(self, model: Fitted) -> Self:
        self.model_ = model
        self.feature_names_in_ = np.array(list(model.columns), dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        self.receipt_ = dict(model.receipt)
        if model.levels:
            self.classes_ = np.array(model.levels)
        return self

    @property
    def family(self) -> Family:
        """What is predicted: "binary", "levels", "continuous" or "count"."""
        if hasattr(self, "model_"):
            return self.model_.family
        try:
            analysis = self._asked()[1].analysis
        except Misuse:  # no study yet, or one that cannot be read: `fit` says so
            return self._usual
        return analysis.family if isinstance(analysis, ModelAnalysis) else self._usual

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier" if _classifies(self) else "regressor"
        tags.classifier_tags = ClassifierTags(multi_class=self.family == "levels") if _classifies(self) else None
        tags.regressor_tags = None if _classifies(self) else RegressorTags()
        tags.target_tags.required = False
        tags.input_tags.allow_nan = tags.input_tags.categorical = tags.input_tags.string = True
        return tags

    def _linear(self, X: pd.DataFrame) -> F64:
        check_is_fitted(self)
        if not isinstance(X, pd.DataFrame):
            raise Misuse("the model reads columns by name: give a pandas DataFrame")
        columns = read_columns(X, self.model_.columns, self.model_.cases.values())
        return self.model_.linear(columns, len(X))

    @available_if(_classifies)  # type: ignore[untyped-decorator]  # scikit-learn ships no types
    def decision_function(self, X: pd.DataFrame) -> F64:
        """Log odds, shape (rows,), or a logit a level, shape (rows, levels); NaN where a needed value is not known."""
        return self._linear(X)

    @available_if(_classifies)  # type: ignore[untyped-decorator]  # scikit-learn ships no types
    def predict_proba(self, X: pd.DataFrame) -> F64:
        """The probability of each level, shape (rows, levels); NaN where a needed value is not known."""
        eta = self._linear(X)
        return self.model_.predicted(eta)

    def predict(self, X: pd.DataFrame) -> NDArray[Any]:
        """The likeliest level; or the value in the outcome's unit, NaN where a needed value is not known.  Shape (rows,)."""
        eta = self._linear(X)
        if not _classifies(self):
            return self.model_.predicted(eta)
        p = self.model_.predicted(eta)
        unknown = int(np.isnan(p).any(axis=1).sum())
        if unknown:
            raise Misuse(f"{unknown} rows lack a value the model needs: complete or drop them, or use predict_proba")
        return np.asarray(self.classes_[p.argmax(axis=1)])

    def score(self, X: pd.DataFrame, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of the likeliest level, or R**2."""
        measure, predicted = accuracy_score if _classifies(self) else r2_score, self.predict(X)
        unknown = 0 if _classifies(self) else int(np.isnan(predicted).sum())
        if unknown:
            raise Misuse(f"{unknown} rows lack a value the model needs: complete or drop them")
        return float(measure(y, predicted, sample_weight=sample_weight))

    def at(self, partner: str) -> Self:
        """The model recalibrated to a partner, where the study has paid for that (an ask `recalibration` about this model).

        Raises:
            Misuse: when there is no recalibration to that partner.
        """
        check_is_fitted(self)
        known = self.model_.recalibration
        if partner not in known:
            have = ", ".join(known) or "no partner; give the study an ask 'recalibration' about this model"
            raise Misuse(f"there is no recalibration to {partner!r}: there is one to {have}")
        other: Self = clone(self)
        return other._keep(self.model_.moved(partner))

    def save(self, path: Path | str) -> list[Path]:
        """Write the model file; loading it runs nothing that is in it.  The files written (lab/models/files.py)."""
        check_is_fitted(self)
        return write_model(self.model_, Path(path))

    def to_sklearn(self) -> Any:
        """An ordinary scikit-learn pipeline with the same predictions, without this library (lab/models/ordinary.py)."""
        from ahh_federated.lab.models.ordinary import pipeline

        check_is_fitted(self)
        return pipeline(self.model_)

    def to_onnx(self, path: Path | str) -> None:
        """Write the model as ONNX (lab/models/export.py).  Raises Misuse when the extra `onnx` is not installed."""
        from ahh_federated.lab.models.export import write_onnx

        check_is_fitted(self)
        write_onnx(self.model_, Path(path))


def _with_outcome(X: pd.DataFrame, y: Any, study: Study, ask: Ask) -> pd.DataFrame:
    """The one partner's table."""
    if y is None:
        return X
    assert isinstance(ask.analysis, ModelAnalysis), f"{ask.id} fits no model"
    name = ask.analysis.outcome.name
    if name not in study.columns:
        raise Misuse(f"the outcome {name!r} is a case, made from columns: leave y out, and give these columns in the data frame")
    if name in X.columns:
        raise Misuse(f"the outcome {name!r} is in the data frame and in y: give it once")
    values = np.asarray(y)
    if values.shape != (len(X),):
        raise Misuse(f"y has the shape {values.shape} and the data frame {len(X)} rows: give one outcome a row")
    return X.assign(**{name: values})
