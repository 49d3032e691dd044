"""Training at a node: its steps are those of the optimiser on the sums that the gate has noised, and it converges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from ahh_federated.analyses.design import Design, Scale
from ahh_federated.core.bounds import ROW_STEPS
from ahh_federated.core.cohorts import F64, Cohort
from ahh_federated.core.columns import Numeric
from ahh_federated.core.costs import SAMPLED, Budget, Event
from ahh_federated.core.entropy import Entropy
from ahh_federated.core.gate import Order, release
from ahh_federated.core.programs import drive
from ahh_federated.core.queries import Query
from ahh_federated.core.releases import Exact, Round
from ahh_federated.core.sampling import RATE_ONE
from ahh_federated.neural.fit import NeuralFit
from ahh_federated.neural.optimisers import State, local_rate
from ahh_federated.neural.queries import LocalTraining, Point
from ahh_federated.neural.training import DEFAULTS, Neural
from ahh_federated.runtimes.local import _answer
from tests.analyses.drivers import OpenBooks, split
from tests.neural.gated import gated
from tests.neural.populations import CASE, DESIGN, OUTCOMES, network, patients

pytest.importorskip("torch", reason="needs torch: install the extra `neural`")
pytest.importorskip("opacus", reason="needs opacus: install the extra `neural`")

BINARY = Neural(DESIGN, CASE, "binary", hidden=(8,))
LOCAL = replace(BINARY, way="local", rounds=2, local_steps=3)


def exactly_locally(analysis: Neural, cohorts: dict[str, Cohort], asked: list[Query] | None = None) -> NeuralFit:
    """The laboratory's exact run; `asked` gets the queries."""

    def ask(number: int, line: object, query: Query) -> Round:
        if asked is not None:
            asked.append(query)
        return Round(query, {name: Exact(_answer(query, cohort, 1.0)) for name, cohort in cohorts.items()})

    return drive(analysis, ask)


@dataclass(frozen=True, slots=True)
class Watched(LocalTraining):
    """Writes down what it is told."""

    told: list[tuple[F64, float]] = field(default_factory=list)

    def advance(self, state: F64, total: F64, stderr: float) -> F64:
        self.told.append((total, stderr))
        return LocalTraining.advance(self, state, total, stderr)


def watched(**other: object) -> Watched:
    shape, terms = network(), DESIGN.width - 1
    theta = tuple(shape.initial(np.zeros(1)).tolist())
    gradient = LOCAL._gradient(Point(Scale((0.0,) * terms, (0.5,) * terms, 1.0), 0.0, 1.0, theta))
    settings = {"steps": 6, "rate": RATE_ONE // 4, "optimiser": "adam", "proximal": 0.0, "expected": 250.0, "learning_rate": 0.2}
    return Watched(gradient, **{**settings, **other})


def test_local_training_is_adam_on_the_sums_that_the_gate_has_noised() -> None:
    """Written out in numpy: what leaves follows from the noised sums and the public noise of them, and from nothing else."""
    program, sigma = watched(proximal=0.3), 40 * ROW_STEPS
    event = Event(ROW_STEPS, sigma, program.width, SAMPLED, RATE_ONE // 4, 6, 0, 6)
    order, books = Order("r", "study", "ask:0", event, Budget(1.0, 1e-5)), OpenBooks()
    cohort = Cohort.of(patients(1000, 1))
    released = release(program, cohort, where=None, order=order, books=books, entropy=Entropy.seeded(1)).values

    (_, rehearsed), *told = program.told
    assert rehearsed == 0.0
    assert [stderr for _, stderr in told] == [sigma * program.bound / ROW_STEPS] * 6
    begin = np.array(program.gradient.point.theta)
    theta, first, second, noise = begin, np.zeros(program.width), np.zeros(program.width), 40 * 1.5 / (0.25 * 250)
    for step, (total, _) in enumerate(told, start=1):
        signal = total / (0.25 * 250) + 0.3 * (theta - begin)
        first, second = 0.9 * first + 0.1 * signal, 0.99 * second + 0.01 * signal**2
        square = np.maximum(second / (1 - 0.99**step) - noise**2, noise**2)
        theta = theta - 0.2 * first / (1 - 0.9**step) / np.sqrt(square)
    np.testing.assert_allclose(released, theta - begin, atol=2.0**-20)
    assert np.abs(released).max() > 0.05


def test_the_noise_it_is_told_is_the_noise_of_its_sums() -> None:
    program = watched(steps=1, rate=RATE_ONE)
    exact = watched(steps=1, rate=RATE_ONE)
    cohort, sigma = Cohort.of(patients(50, 2)), 40 * ROW_STEPS
    order = Order("r", "study", "ask:0", Event(ROW_STEPS, sigma, program.width), Budget(1.0, 1e-5))
    release(program, cohort, where=None, order=order, books=OpenBooks(), entropy=Entropy.seeded(2))
    _answer(exact, cohort, 1.0)
    (without, none), (noised, stderr) = exact.told[0], program.told[-1]
    assert none == 0.0
    assert np.std(noised - without) == pytest.approx(stderr, rel=0.3)


def test_a_local_step_divides_by_the_expected_sample_and_pulls_back() -> None:
    program = watched(optimiser="sgd", proximal=0.5)
    start, rate = State.of(program.start()).theta, program.learning_rate
    first = program.advance(program.start(), np.full(program.width, program.expected), 0.0)
    np.testing.assert_allclose(State.of(first).theta, start - rate * 4.0)
    second = program.advance(first, np.zeros(program.width), 0.0)
    np.testing.assert_allclose(State.of(second).theta, start - rate * 4.0 - rate * (0.9 * 4.0 - 0.5 * rate * 4.0))
    np.testing.assert_allclose(program.result(second), State.of(second).theta - start)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_local_training_is_steps_of_gradients(optimiser: str) -> None:
    """One partner and one round of way "local" with FedAvg end where as many steps of way "sgd" do."""
    one = split(patients(300, 13), 1)
    local = replace(LOCAL, rounds=1, local_steps=2, optimiser=optimiser, learning_rate=0.1)
    first, second = iterates(replace(local, way="sgd", rounds=3), one)
    np.testing.assert_allclose(exactly_locally(local, one).parameters()["theta"], second, atol=1e-8)
    assert not np.allclose(first, second, atol=1e-3)


def iterates(analysis: Neural, cohorts: dict[str, Cohort]) -> list[list[float]]:
    """Every theta after the first that a federated training is asked at."""
    asked: list[Query] = []
    exactly_locally(analysis, cohorts, asked)
    return [list(query.parameters()["theta"]) for query in asked[2:]]


def test_a_round_starts_afresh_and_its_learning_rate_is_public() -> None:
    asked: list[Query] = []
    exactly_locally(replace(LOCAL, rounds=3, learning_rate=0.2), split(patients(200, 3), 4), asked)
    rates = [query.parameters()["learning_rate"][0] for query in asked[1:]]
    assert rates == pytest.approx([0.2 * 2**0.5 / place**0.5 for place in (1, 2, 3)])
    for query in asked[1:]:
        assert isinstance(query, LocalTraining)
        state = State.of(query.start())
        assert (state.steps, state.first.any(), state.second.any()) == (0, False, False)


def test_one_partner_begins_at_the_learning_rate_of_the_study() -> None:
    assert local_rate(0.2, 1, 0) == 0.2
    assert local_rate(0.2, 16, 0) == pytest.approx(0.4)
    assert local_rate(0.2, 1, 3) == pytest.approx(0.1)
    assert local_rate(0.2, 0, 0) == 0.2


GROWTH = [Numeric(name, 0.0, 12.0, "u") for name in ("length", "weight", "head", "arm")]
SIZE = Numeric("size", -5.0, 40.0, "u")


def growth(size: int, seed: int) -> dict[str, F64]:
    """An outcome that one feature determines but for a little; the others are all but copies of that feature."""
    rng = np.random.default_rng(seed)
    length = np.clip(rng.gamma(2.0, 1.2, size), 0, 12)
    others = {name: np.clip(length + rng.normal(0, spread, size), 0, 12) for name, spread in (("weight", 0.1), ("head", 0.3))}
    arm = np.clip(0.8 * length + rng.normal(0, 0.2, size), 0, 12)
    return {"length": length, **others, "arm": arm, "size": np.clip(3 * length + rng.normal(0, 0.8, size), -5, 40)}


@pytest.mark.parametrize("partners", [1, 4])
@pytest.mark.parametrize("noised", [False, True], ids=["exact", "noised"])
def test_a_determined_outcome_is_learned_with_the_defaults(partners: int, noised: bool) -> None:
    """Plain gradient descent of a step long enough for weak outcomes runs away here without clip; ordinary least squares: .97."""
    analysis = Neural(Design(tuple(GROWTH)), SIZE, "continuous", way="local", **DEFAULTS["local"])
    cohorts, fresh = split(growth(1500, 4), partners), Cohort.of(growth(1000, 5))
    fit = gated(analysis, cohorts, Budget(3.0, 1e-5), seed=3) if noised else exactly_locally(analysis, cohorts)
    error = fit.linear(fresh) - fresh["size"]
    assert 1 - np.mean(error**2) / np.var(fresh["size"]) > 0.93


@pytest.mark.parametrize("family", OUTCOMES)
def test_every_family_beats_its_start_with_the_defaults(family: str) -> None:
    """The gradient at the end is a fraction of the gradient where training began."""
    analysis = Neural(DESIGN, OUTCOMES[family].column, family, way="local", **DEFAULTS["local"])
    cohorts = split(patients(600, 6), 2)
    asked: list[Query] = []
    fit = exactly_locally(analysis, cohorts, asked)
    begin = analysis.query(asked[1].kind, asked[1].parameters())
    assert isinstance(begin, LocalTraining)
    ended = replace(begin.gradient, point=fit.predictor.point)
    before, after = (np.linalg.norm(_answer(at, Cohort.of(patients(600, 6)), 1.0)) for at in (begin.gradient, ended))
    assert after < 0.4 * before
