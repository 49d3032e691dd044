"""Additive models: one readable curve for each measured predictor."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ahh_federated.analyses.models import Family
from ahh_federated.errors import Misuse
from ahh_federated.lab.estimators.base import Estimator
from ahh_federated.lab.estimators.parts import terms
from ahh_federated.lab.models.fitted import Fitted


class AdditiveModel(Estimator):
    """An additive model fitted by partners under differential privacy: a classifier or a regressor, as its outcome is.

    Args:
        study: a study, or the path of its file, with an additive ask.
        ask: the id of that ask; the first when None.
        engine, seed: as in `ahh.run`.

    Attributes:
        curves_: a data frame for each measured column: `at` in its unit; the curve there, `log_odds` or `value`, zero on
            average; `low` and `high`, its 95 % band, privacy noise included; `se`, `se_sampling` and `se_privacy`.
        summary_: one row for each level, interaction and value not known: the estimate and its 95 % interval.
        classes_: shape (2,), the levels of the outcome, where it has levels.
        feature_names_in_: the columns needed.
        receipt_: the study's digest, the guarantee, who took part, and what it has cost each.
    """

    analysis: ClassVar[str] = "additive"
    _usual: ClassVar[Family] = "binary"

    def _keep(self, model: Fitted) -> Self:
        super()._keep(model)
        self.curves_ = {
            name: pd.DataFrame({key: values for key, values in curve.items() if key != "unit"})
            for name, curve in model.estimates["curves"].items()
        }
        both = [terms(model, key) for key in ("terms", "interactions") if model.estimates[key]]
        self.summary_ = pd.concat(both)
        return self

    def summary(self) -> pd.DataFrame:
        """What is no curve, with 95 % intervals that include the privacy noise: levels, interactions, values not known."""
        check_is_fitted(self)
        ratio = ["odds_ratio"] if self.family == "binary" else []
        shown = [*ratio, "low", "high", "p", "coefficient", "se", "se_sampling", "se_privacy"]
        return self.summary_[shown].drop(index="(intercept)")

    def plot(self, *columns: str) -> Any:
        """The curves with their bands, a panel each, as a matplotlib Figure.

        Args:
            columns: whose curves, by default those of all measured columns.

        Raises:
            Misuse: when there is no such curve.
        """
        from matplotlib.figure import Figure

        check_is_fitted(self)
        if not self.curves_:
            raise Misuse("the model has no measured column, so there is no curve to plot: see summary()")
        absent = ", ".join(repr(column) for column in columns if column not in self.curves_)
        if absent:
            raise Misuse(f"there is no curve of {absent}: the model has curves of {', '.join(self.curves_)}")
        shown = {name: self.curves_[name] for name in columns or self.curves_}
        wide = min(len(shown), 3)
        high = -(-len(shown) // wide)
        figure = Figure(figsize=(4 * wide, 3 * high), layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False, sharey=True)
        what = "log odds" if self.family == "binary" else getattr(self.model_.outcome, "unit", "")
        for panel, (name, curve) in zip(panels.flat, shown.items(), strict=False):
            panel.fill_between(curve["at"], curve["low"], curve["high"], alpha=0.25, linewidth=0)
            panel.plot(curve["at"], curve["log_odds" if "log_odds" in curve else "value"])
            panel.axhline(0.0, color="grey", linewidth=0.5)
            panel.set_xlabel(f"{name} ({self.model_.estimates['curves'][name]['unit']})")
        for panel in panels[:, 0]:
            panel.set_ylabel(what)
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        return figure
