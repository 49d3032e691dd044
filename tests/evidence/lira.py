"""The likelihood ratio attack, online: Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022.

An attacker who knows everything but who was in the training set (the patients, the training, its every setting) trains shadow
models on random halves of the patients.  For each patient it then knows how sure of the patient's outcome models are that
saw the patient, and models that did not; it asks which of the two the target looks like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]


def halves(models: int, persons: int, seed: int) -> Bools:
    """Who is in which training set, shape (models, persons): of each pair of models, a person is in one and out of the other."""
    rng = np.random.default_rng(seed)
    first = np.array([rng.permutation(persons) < persons // 2 for _ in range(models // 2)])
    return np.stack([first, ~first], axis=1).reshape(models, persons)


def confidence(log_odds: F64, outcomes: F64) -> F64:
    """log(p / (1 - p)), p the probability of the outcome that came true; shape (models, persons).  Their equation 6."""
    return np.where(outcomes == 1, log_odds, -log_odds)


def likelihood_ratios(confidences: F64, member: Bools) -> F64:
    """log of likelihood in : out for each target and person, shape (targets, persons).

    Every model is a target once, and all but its own pair are its shadows, so that each person has as many shadows in as
    out.  Normal densities, means by person, one spread for all persons: what the paper advises for few shadows (section VI-C).
    """
    ratios = np.empty_like(confidences)
    pairs = np.arange(len(confidences)) // 2
    for target, own in enumerate(pairs):
        shadows, inside = confidences[pairs != own], member[pairs != own]
        densities = []
        for state in (inside, ~inside):
            seen = np.where(state, shadows, np.nan)
            mean = np.nanmean(seen, axis=0)
            spread = np.sqrt(np.nanmean((seen - mean) ** 2))
            densities.append(norm.logpdf(confidences[target], mean, spread))
        ratios[target] = densities[0] - densities[1]
    return ratios


def auroc(ratios: F64, member: Bools) -> float:
    return float(roc_auc_score(member.ravel(), ratios.ravel()))


def true_positives(ratios: F64, member: Bools, false_positives: float = 0.01) -> float:
    """The share of members found when this share of the others is accused."""
    return float((ratios[member] > np.quantile(ratios[~member], 1 - false_positives, method="higher")).mean())


def with_error(figure: Callable[[F64, Bools], float], ratios: F64, member: Bools, **given: Any) -> tuple[float, float]:
    """A figure and its standard error: a bootstrap of whole pairs of targets."""
    rng, pairs = np.random.default_rng(0), np.arange(len(ratios)).reshape(-1, 2)
    drawn = [pairs[rng.integers(0, len(pairs), len(pairs))].ravel() for _ in range(200)]
    return figure(ratios, member, **given), float(np.std([figure(ratios[each], member[each], **given) for each in drawn]))
