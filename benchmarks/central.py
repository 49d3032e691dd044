"""The private additive model of others, as a trusted centre would fit it: DP-EBM of `interpret` (Nori et al., ICML 2021).

All rows in one place and noise added once, with the package's defaults and this study's public ranges.  Optional: install
interpret-core.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd

from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from benchmarks.baselines import Baseline
from benchmarks.tasks import Task


def dp_ebm(task: Task, epsilon: float, delta: float, seed: int) -> Baseline:
    """One (epsilon, delta)-private boosting machine on everybody's rows."""
    from interpret.privacy import DPExplainableBoostingClassifier

    columns, cohorts = task.analysis.features, task.training().values()

    def frame(cohort: Cohort) -> pd.DataFrame:
        return pd.DataFrame({c.name: cohort[c.name] if isinstance(c, Numeric) else _text(cohort[c.name]) for c in columns})

    x, y = pd.concat([frame(cohort) for cohort in cohorts]), np.concatenate([task.outcome(cohort) for cohort in cohorts])
    model = DPExplainableBoostingClassifier(
        epsilon=epsilon,
        delta=delta,
        feature_types=["continuous" if isinstance(column, Numeric) else "nominal" for column in columns],
        privacy_bounds={column.name: (column.low, column.high) for column in columns if isinstance(column, Numeric)},
        random_state=seed,
        n_jobs=1,
    )
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fixed seed is for experiments only
        model.fit(x, y.astype(int))
    return Baseline(lambda cohort: np.asarray(model.predict_proba(frame(cohort))[:, 1]), 0, time.process_time() - started)


def _text(codes: F64) -> list[str]:
    return [str(int(code)) for code in codes]
