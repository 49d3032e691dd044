"""Neural networks: trained by partners, used without torch."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ahh_federated.analyses.models import Family
from ahh_federated.lab.estimators.base import Estimator
from ahh_federated.lab.models.forms import Network


class NeuralModel(Estimator):
    """A neural network fitted by partners under differential privacy: a classifier or a regressor, as its outcome is.

    Training needs the extra `neural`; predicting needs neither torch nor Opacus.

    Args:
        study: a study, or the path of its file, with a neural ask.
        ask: the id of that ask; the first when None.
        engine, seed: as in `ahh.run`.

    Attributes:
        classes_: shape (levels,), the levels of the outcome, where it has levels.
        feature_names_in_: the columns needed.
        receipt_: the study's digest, the guarantee, who took part, and what it has cost each.
    """

    analysis: ClassVar[str] = "neural"
    _usual: ClassVar[Family] = "binary"

    def summary(self) -> pd.DataFrame:
        """The layers: inputs, outputs, activation and how many numbers each has.  A network has no coefficients to read."""
        check_is_fitted(self)
        form = self.model_.form
        assert isinstance(form, Network), "a neural model is a network"
        last = len(form.layers) - 1
        rows = [
            {
                "layer": f"layer {place}",
                "inputs": layer.weights.shape[0],
                "outputs": layer.weights.shape[1],
                "activation": form.activation if place < last else "",
                "numbers": layer.weights.size + layer.bias.size,
            }
            for place, layer in enumerate(form.layers)
        ]
        if form.direct is not None:
            inputs, outputs = form.direct.shape
            rows.append({"layer": "direct", "inputs": inputs, "outputs": outputs, "activation": "", "numbers": form.direct.size})
        return pd.DataFrame(rows).set_index("layer")
