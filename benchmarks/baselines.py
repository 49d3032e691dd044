"""What ahh_federated is compared with: pooled scikit-learn without privacy, and FedAvg with Opacus.

FedAvg is what a Flower user would write today: a logistic model trained by every partner with Opacus' DP-SGD (Poisson
sampling through its PrivacyEngine), averaged over the partners by their numbers of patients.  Two things are done more
honestly than in the published examples.  The noise multiplier is calibrated for all steps over all rounds (Opacus' PRV
accountant), where examples account one round or fewer steps than they run.  Features are scaled by public bounds, where
examples standardise by means of the private data.  One thing still leaks and is left in the baseline's favour: the
averaging weights tell every partner's exact number of patients.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from scipy.special import expit
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from ahh_federated.core.cohorts import F64, Cohort
from benchmarks.tasks import Task

ROUNDS = 20
RATE, CLIP, BATCH, FEWEST_IN_BATCH = 0.1, 1.0, 64, 8
Predict = Callable[[Cohort], F64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline; CPU in seconds of this process, without reading data and without searching for the noise."""

    predict: Predict
    messages: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Site:
    """One partner's data for FedAvg; `noise` is its noise multiplier, 0 for no privacy."""

    x: torch.Tensor
    y: torch.Tensor
    batch: int
    noise: float


def pooled_sklearn(task: Task) -> Baseline:
    """Everybody's rows in one place, standardised: scikit-learn's default logistic regression, or least squares."""
    cohorts = task.training().values()
    started = time.process_time()
    x = np.concatenate([task.features(cohort) for cohort in cohorts])
    y = np.concatenate([task.outcome(cohort) for cohort in cohorts])
    risk = task.analysis.family == "binary"
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000) if risk else LinearRegression()).fit(x, y)
    cpu_s = time.process_time() - started

    def predict(cohort: Cohort) -> F64:
        features = task.features(cohort)
        return np.asarray(model.predict_proba(features)[:, 1] if risk else model.predict(features))

    return Baseline(predict, 0, cpu_s)


def sites(task: Task, epsilon: float | None, delta: float) -> list[Site]:
    """The partners' tensors, with noise for (epsilon, delta) over all rounds; None for no privacy."""
    return [
        site(task.features(cohort), task.outcome(cohort), epsilon, delta) for cohort in task.training().values() if len(cohort)
    ]


def site(x: F64, y: F64, epsilon: float | None, delta: float) -> Site:
    """A small partner takes batches of a quarter of its patients, at least 8: one of 64 would be all it has."""
    batch = min(BATCH, max(FEWEST_IN_BATCH, len(y) // 4))
    noise = 0.0 if epsilon is None else noise_multiplier(epsilon, delta, math.ceil(len(y) / batch))
    return Site(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32), batch, noise)


@cache
def noise_multiplier(epsilon: float, delta: float, batches: int) -> float:
    """For ROUNDS local epochs of `batches` Poisson-sampled steps each, at Opacus' sampling rate of 1 / batches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(
            get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=1 / batches,
                steps=ROUNDS * batches,
                accountant="prv",
            )
        )


def fedavg(task: Task, partners: list[Site], seed: int) -> Baseline:
    """FedAvg over ROUNDS rounds of one local epoch; messages are the models a partner sends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus: hooks, and that its fast random numbers are for experiments only
        torch.manual_seed(seed)
        started = time.process_time()
        weights = train_fedavg(partners)
        cpu_s = time.process_time() - started
    slopes, intercept = weights["weight"].numpy()[0].astype(np.float64), float(weights["bias"])
    return Baseline(lambda cohort: np.asarray(expit(task.features(cohort) @ slopes + intercept)), ROUNDS, cpu_s)


def train_fedavg(partners: list[Site], rounds: int = ROUNDS) -> dict[str, torch.Tensor]:
    """The averaged weights after all rounds, starting from zero."""
    epochs = [_local_epoch(each) for each in partners]
    total = sum(len(each.y) for each in partners)
    width = partners[0].x.shape[1]
    weights = {"weight": torch.zeros(1, width), "bias": torch.zeros(1)}
    for _ in range(rounds):
        local = [(len(each.y) / total, epoch(weights)) for each, epoch in zip(partners, epochs, strict=True)]
        weights = {name: torch.stack([share * trained[name] for share, trained in local]).sum(dim=0) for name in weights}
    return weights


def _local_epoch(partner: Site) -> Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """One pass over a partner's patients from given weights; the privacy engine lives as long as the partner."""
    module: torch.nn.Module = torch.nn.Linear(partner.x.shape[1], 1)
    linear = module
    optimizer: torch.optim.Optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    loader = DataLoader(TensorDataset(partner.x, partner.y), batch_size=partner.batch, shuffle=True)
    if partner.noise:
        module, optimizer, loader = PrivacyEngine().make_private(
            module=module, optimizer=optimizer, data_loader=loader, noise_multiplier=partner.noise, max_grad_norm=CLIP
        )
    loss = torch.nn.BCEWithLogitsLoss()

    def epoch(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        linear.load_state_dict(dict(weights))
        for x, y in loader:
            optimizer.zero_grad()
            loss(module(x).squeeze(1), y).backward()
            optimizer.step()
        return {name: value.detach().clone() for name, value in linear.state_dict().items()}

    return epoch
