"""Queries of neural networks, with the proof of each bound.

    kind                one patient contributes                                            bound   why
    neural.gradient/2   d loss / d theta, a longer one scaled onto the clip C                C     the kernel scales and checks it
    neural.local/2      the same, in every step of a program at the node                     C     the same

The clip is the kernel's (core/bounds.py): a gradient is truncated to C / 2**20, and its squared length is checked on the very
integers that are summed.  That a patient's gradient depends on that patient alone is neural/exact.py.  A patient of whom a
column is not known has NaN, hence zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ahh_federated.analyses.design import GRID, Design, Scale
from ahh_federated.core.cohorts import F64, Bools, Cohort
from ahh_federated.core.queries import Parameters
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.errors import Misuse
from ahh_federated.neural.architecture import Network
from ahh_federated.neural.families import Outcome
from ahh_federated.neural.optimisers import OPTIMISERS, OptimiserName, State


@dataclass(frozen=True, slots=True)
class Point:
    """Everything released that a network computes with: how x is standardised, how the outcome is, and theta."""

    scale: Scale
    centre: float
    spread: float
    theta: tuple[float, ...]

    def parameters(self, outcome: Outcome) -> Parameters:
        own = {"outcome_centre": [self.centre], "outcome_spread": [self.spread]} if outcome.scaled else {}
        return {"centre": list(self.scale.centre), "spread": list(self.scale.spread), **own, "theta": list(self.theta)}


def inputs(design: Design, scale: Scale, cohort: Cohort) -> tuple[F64, Bools]:
    """x without its constant, shape (patients, terms), zero where a column is not known, and whether all are."""
    x = scale.standardised(design, cohort)[1:].T / GRID
    known = np.asarray(np.isfinite(x).all(axis=1))
    return np.ascontiguousarray(np.where(known[:, None], x, 0.0)), known


@dataclass(frozen=True, slots=True)
class Gradient:
    """sum of clipped gradients of the patients' losses in theta."""

    design: Design
    outcome: Outcome
    network: Network
    clip: float
    point: Point
    kind: ClassVar[str] = "neural.gradient/2"

    @property
    def width(self) -> int:
        return self.network.width

    @property
    def bound(self) -> float:
        return self.clip

    def parameters(self) -> Parameters:
        return self.point.parameters(self.outcome)

    def rows(self, cohort: Cohort) -> F64:
        try:
            from ahh_federated.neural.gradients import per_patient_gradients
        except ImportError:
            raise Misuse("training a network needs torch and Opacus: pip install 'ahh-federated[neural]'") from None
        x, known = inputs(self.design, self.point.scale, cohort)
        y, told = self.outcome.values(cohort)

        def residual(eta: F64) -> F64:
            return self.outcome.residual(eta, y, self.point.centre, self.point.spread)

        gradients = per_patient_gradients(self.network, np.array(self.point.theta), x, residual, self.outcome.most)
        gradients[~(known & told)] = np.nan
        return gradients

    def patients(self, total: F64) -> float | None:
        return None  # the first message has told, with less noise


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """DP-SGD at one node: `steps` noised sums, of which only what they lead to leaves.

    A step follows from the sum of clipped gradients divided by rate x `expected`, the size of a sample to be expected, which is
    released; the optimiser is told the noise of it, which is public, and starts afresh in every round.  `proximal` pulls back
    to where the round began (FedProx: Li et al., MLSys 2020, section 3.2).  The state is the optimiser's.
    """

    gradient: Gradient
    steps: int
    rate: int
    optimiser: OptimiserName
    proximal: float
    expected: float
    learning_rate: float
    kind: ClassVar[str] = "neural.local/2"

    @property
    def width(self) -> int:
        return self.gradient.width

    @property
    def bound(self) -> float:
        return self.gradient.bound

    def parameters(self) -> Parameters:
        return {**self.gradient.parameters(), "patients": [self.expected], "learning_rate": [self.learning_rate]}

    def patients(self, total: F64) -> float | None:
        return None

    def start(self) -> F64:
        return State.at(self._begun()).numbers()

    def query(self, state: F64) -> Gradient:
        return replace(self.gradient, point=replace(self.gradient.point, theta=tuple(State.of(state).theta.tolist())))

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        at, sample = State.of(state), self.rate / RATE_ONE * self.expected
        signal = total / sample + self.proximal * (at.theta - self._begun())
        return OPTIMISERS[self.optimiser](self.learning_rate).step(at, signal, stderr / sample).numbers()

    def result(self, state: F64) -> F64:
        """How far training went, shape (width,)."""
        return np.asarray(State.of(state).theta - self._begun())

    def _begun(self) -> F64:
        return np.array(self.gradient.point.theta)
