"""Neural networks by federated DP-SGD, or by federated averaging of private local training.

    complete cases and moments → rounds of training

way = "sgd"     every round each node releases one noised sum of clipped gradients; the coordinator steps
way = "local"   every round each node takes `local_steps` by itself (neural/queries.py) and releases how far it went

With a sampling rate below one every sum is about a secret Poisson sample, and all sums are one plan, paid by its first message
(docs/proofs/sampling.md).  Rate, rounds, steps and clip are in the study file; none follows from a number of patients.  A sum is
divided by rate x the released number of patients.  The model is the mean of the last half of the iterates (Polyak and Juditsky,
SIAM J. Control Optim. 1992): a fixed rule, which no score chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ahh_federated.analyses.design import LEAST_SPREAD, Design, Scale
from ahh_federated.analyses.models import Family
from ahh_federated.analyses.opening import COMPLETE, KIND, MOMENTS, opening, opening_line
from ahh_federated.analyses.scaling import FEWEST, rounded, standardise
from ahh_federated.core.cohorts import F64
from ahh_federated.core.columns import Column
from ahh_federated.core.programs import LARGEST, Line, Program, numbers
from ahh_federated.core.queries import Parameters, Query
from ahh_federated.core.releases import Round, everywhere
from ahh_federated.core.sampling import MOST_SUMS, RATE_ONE
from ahh_federated.errors import Breach, Misuse
from ahh_federated.neural.architecture import Activation, Network
from ahh_federated.neural.families import Outcome
from ahh_federated.neural.fit import NeuralFit, NeuralPredictor, spread_of
from ahh_federated.neural.optimisers import OPTIMISERS, SERVERS, Optimiser, OptimiserName, ServerName, State, local_rate
from ahh_federated.neural.queries import Gradient, LocalTraining, Point

Way = Literal["sgd", "local"]
WAYS: Final[tuple[Way, ...]] = ("sgd", "local")
MOST_ROUNDS = 1000
DEFAULTS: Final[Mapping[Way, Mapping[str, Any]]] = {  # public, the same for all data (docs/neural.md says how they were found)
    "sgd": {"rounds": 40, "sampling_rate": 1.0, "clip": 1.5, "learning_rate": 0.1},
    "local": {"rounds": 4, "sampling_rate": 1.0, "clip": 1.5, "learning_rate": 0.2, "local_steps": 8},
}
_LEAST_MEAN = 1e-6


@dataclass(frozen=True, slots=True)
class Neural:
    """The analysis `neural`.

    Args:
        design: the features.
        outcome, family: what is predicted (neural/families.py).
        hidden: units of each hidden layer; none makes a generalised linear model.
        rounds: messages of training.
        sampling_rate: of the patients in one sum, from 0 to 1; rounded to a multiple of 2**-20.
        clip: the bound of one patient's gradient.
        learning_rate, optimiser: of the coordinator (sgd), or of the nodes (local; there `local_rate` changes it by round).
        local_steps, server_optimiser, proximal, server_learning_rate: way "local" only; `proximal` counts with "fedprox",
            `server_learning_rate` with "fedadam".
        class_weights: one for each level of the outcome; none: all weigh one.

    Raises:
        Misuse: when these do not go together.
    """

    design: Design
    outcome: Column
    family: Family
    hidden: tuple[int, ...] = (16,)
    activation: Activation = "tanh"
    architecture: str = "wide-deep"
    way: Way = "sgd"
    rounds: int = 40
    sampling_rate: float = 1.0
    clip: float = 1.5
    learning_rate: float = 0.1
    optimiser: OptimiserName = "adam"
    local_steps: int = 8
    server_optimiser: ServerName = "fedavg"
    proximal: float = 0.01
    server_learning_rate: float = 0.2
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _ = self.target, self.network
        if self.way not in WAYS or self.optimiser not in OPTIMISERS or self.server_optimiser not in SERVERS:
            raise Misuse("a network learns by way sgd or local; its optimiser is adam or sgd, or fedavg, fedprox or fedadam")
        if not (1 <= self.rounds <= MOST_ROUNDS and self.local_steps >= 1 and self.sums <= MOST_SUMS):
            raise Misuse(f"a network learns in 1 to {MOST_ROUNDS} rounds and at most {MOST_SUMS} steps altogether")
        if not 1 <= self.rate <= RATE_ONE:
            raise Misuse(f"the sampling rate is a part of the patients, above 0 and at most 1: got {self.sampling_rate:g}")
        rates = self.learning_rate, self.server_learning_rate
        if not (1e-3 <= self.clip <= 1e3 and min(rates) > 0 and max(rates) <= 100 and 0 <= self.proximal <= 100):
            raise Misuse("the clip is from 0.001 to 1000, a learning rate above 0 and at most 100, proximal from 0 to 100")

    @property
    def features(self) -> tuple[Column, ...]:
        return self.design.features

    @property
    def target(self) -> Outcome:
        return Outcome(self.outcome, self.family, self.class_weights)

    @property
    def network(self) -> Network:
        return Network(self.design.width - 1, self.hidden, self.target.outputs, self.activation, self.architecture)

    @property
    def rate(self) -> int:
        return round(self.sampling_rate * RATE_ONE)

    @property
    def sums(self) -> int:
        """Noised sums of the whole training."""
        return self.rounds * (self.local_steps if self.way == "local" else 1)

    def exactly(self) -> Neural:
        """Nothing here depends on noise or grid: a driver that leaves them out makes the exact run."""
        return self

    def schedule(self) -> Sequence[Line]:
        return [opening_line(self.design, self.outcome), *self._training()]

    def _training(self) -> Iterator[Line]:
        kind, width, rest = (
            LocalTraining.kind if self.way == "local" else Gradient.kind,
            self.network.width,
            1 - COMPLETE - MOMENTS,
        )
        for place in range(self.rounds):
            if self.sums == 1 or (self.way == "sgd" and self.rate == RATE_ONE):
                yield Line(kind, width, rest / self.rounds, rate=self.rate)
            else:
                share = 0.0 if place else rest
                yield Line(kind, width, share, rate=self.rate, count=self.sums, place=place, steps=self.sums // self.rounds)

    def query(self, kind: str, parameters: Parameters) -> Query:
        if kind == KIND:
            return opening(self.design, self.outcome)
        if kind == Gradient.kind and self.way == "sgd":
            return self._gradient(self._point(parameters))
        if kind == LocalTraining.kind and self.way == "local":
            (expected,) = numbers(parameters, "patients", 1, least=1.0, most=1e12)
            (learning_rate,) = numbers(parameters, "learning_rate", 1, least=0.0)
            return self._local(self._point(parameters), expected, learning_rate)
        raise Breach(f"this network asks no query of kind {kind!r}")

    def _point(self, parameters: Parameters) -> Point:
        terms, centre, spread = self.design.width - 1, 0.0, 1.0
        if self.target.scaled:
            least = _LEAST_MEAN if self.family == "count" else -LARGEST
            (centre,) = numbers(parameters, "outcome_centre", 1, least=least)
            (spread,) = numbers(parameters, "outcome_spread", 1, least=LEAST_SPREAD)
        centres, spreads = numbers(parameters, "centre", terms), numbers(parameters, "spread", terms, least=LEAST_SPREAD)
        theta = numbers(parameters, "theta", self.network.width)
        return Point(Scale(tuple(centres), tuple(spreads), 1.0), centre, spread, tuple(theta))

    def predictor(self, parameters: Parameters) -> NeuralPredictor:
        return NeuralPredictor(self.design, self.target, self.network, self._point(parameters))

    def _gradient(self, point: Point) -> Gradient:
        return Gradient(self.design, self.target, self.network, self.clip, point)

    def _local(self, point: Point, expected: float, learning_rate: float) -> LocalTraining:
        proximal = self.proximal if self.server_optimiser == "fedprox" else 0.0
        gradient = self._gradient(point)
        return LocalTraining(gradient, self.local_steps, self.rate, self.optimiser, proximal, expected, learning_rate)

    def program(self) -> Program:
        asked: list[Round] = [(yield opening(self.design, self.outcome))]
        moments = asked[0].part(1).total()
        standard = standardise(self.design, moments)
        scale = Scale(standard.scale.centre, standard.scale.spread, 1.0)
        centre, spread = self.target.scale(moments)
        counts = asked[0].part(0).total().values[:-1]
        state = State.at(self.network.initial(self.target.start(counts, centre)))
        optimiser: Optimiser = OPTIMISERS[self.optimiser](self.learning_rate)
        if self.way == "local":
            optimiser = SERVERS[self.server_optimiser](self.server_learning_rate)
        iterates: list[F64] = []
        for place in range(self.rounds):
            point = Point(scale, centre, spread, _sent(state.theta))
            if self.way == "local":
                learning_rate = local_rate(self.learning_rate, len(everywhere(asked)), place)
                asked.append((yield self._local(point, _expected(asked), learning_rate)))
            else:
                asked.append((yield self._gradient(point)))
            state = optimiser.step(state, *self._signal(asked))
            iterates.append(state.theta)
        theta = np.mean(iterates[self.rounds // 2 :], axis=0)
        return self._fit(asked, Point(scale, centre, spread, _sent(theta)))

    def _signal(self, asked: list[Round]) -> tuple[F64, float]:
        """What the last round says: the mean gradient and its standard error, or the mean update (whose error is not known)."""
        partners = everywhere(asked)
        total = asked[-1].total(partners)
        if self.way == "local":
            return total.values / max(len(partners), 1), 0.0
        expected = self.rate / RATE_ONE * _patients(asked)
        return total.values / expected, total.stderr / expected

    @property
    def _settings(self) -> dict[str, float | str]:
        """The constants of the training that this way of it uses."""
        names = ["rounds", "sampling_rate", "clip", "learning_rate", "optimiser"]
        names += ["local_steps", "server_optimiser"] if self.way == "local" else []
        names += ["server_learning_rate"] if self.way == "local" and self.server_optimiser == "fedadam" else []
        return {name: getattr(self, name) for name in names}

    def _fit(self, asked: list[Round], point: Point) -> NeuralFit:
        partners = everywhere(asked)
        counted = asked[0].part(0).total(partners)
        predictor = NeuralPredictor(self.design, self.target, self.network, point)
        return NeuralFit(
            predictor=predictor,
            way=self.way,
            settings=self._settings,
            spread=spread_of(predictor),
            counts=tuple(float(each) for each in counted.values),
            stderr=counted.stderr,
            partners=partners,
            rounds=len(asked),
        )


def _patients(asked: list[Round]) -> float:
    """The released number of patients in use at those partners."""
    return max(float(asked[0].part(0).total(everywhere(asked)).values[:-1].sum()), FEWEST)


def _expected(asked: list[Round]) -> float:
    """Patients of a partner, on average: every partner divides by it, so that one with more of them goes further."""
    return rounded(np.array(max(_patients(asked) / max(len(everywhere(asked)), 1), 1.0)))[0]


def _sent(theta: F64) -> tuple[float, ...]:
    """What crosses the wire: ten digits, and nothing that a node would refuse."""
    largest = LARGEST / 2
    return rounded(np.clip(np.nan_to_num(theta, nan=0.0, posinf=largest, neginf=-largest), -largest, largest))
