"""Privacy-preserving federated statistics and risk models for hospitals and cities.

    import ahh_federated as ahh

    study = ahh.open_study("child-overweight.toml")
    print(ahh.quote(study))                      # the bill, before anything is asked
    results = ahh.run(study, "partners/")        # one table per partner
    model = results.model("model")               # a scikit-learn estimator
    print(model.summary())                       # odds ratios; the intervals include the privacy noise
    model.predict_proba(frame)

Words are loaded when they are first used, so the import itself is quick and brings neither torch nor Flower.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ahh_federated.version import VERSION as __version__

if TYPE_CHECKING:
    from ahh_federated.errors import AhhError, Breach, Misuse, Refusal, Unreachable
    from ahh_federated.lab.estimators import AdditiveModel, LinearRegression, LogisticRegression, NeuralModel, load_model
    from ahh_federated.lab.quoting import quote
    from ahh_federated.lab.remote import connect
    from ahh_federated.lab.studies import replay, run
    from ahh_federated.study import open_study

_HOMES = {
    "AdditiveModel": "lab.estimators",
    "AhhError": "errors",
    "Breach": "errors",
    "LinearRegression": "lab.estimators",
    "LogisticRegression": "lab.estimators",
    "Misuse": "errors",
    "NeuralModel": "lab.estimators",
    "Refusal": "errors",
    "Unreachable": "errors",
    "connect": "lab.remote",
    "load_model": "lab.estimators",
    "open_study": "study",
    "quote": "lab.quoting",
    "replay": "lab.studies",
    "run": "lab.studies",
}

__all__ = [
    "AdditiveModel",
    "AhhError",
    "Breach",
    "LinearRegression",
    "LogisticRegression",
    "Misuse",
    "NeuralModel",
    "Refusal",
    "Unreachable",
    "__version__",
    "connect",
    "load_model",
    "open_study",
    "quote",
    "replay",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"ahh_federated has no {name!r}: it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(f"ahh_federated.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
