"""Server optimisers: Flower's strategies on the same updates; Adam as published where there is no noise."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.serverapp.strategy import FedAdam as FlowerFedAdam
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg
from flwr.serverapp.strategy import FedProx as FlowerFedProx

from ahh_federated.core.cohorts import F64
from ahh_federated.neural.optimisers import OPTIMISERS, SERVERS, Adam, FedAdam, State

torch = pytest.importorskip("torch", reason="needs torch: install the extra `neural`")

ROUNDS, PARTNERS, WIDTH = 6, 4, 37
STRATEGIES = {
    "fedavg": lambda: FlowerFedAvg(),
    "fedprox": lambda: FlowerFedProx(proximal_mu=0.1),
    "fedadam": lambda: FlowerFedAdam(eta=0.2, beta_1=0.9, beta_2=0.99, tau=1e-3),
}


def replied(theta: F64) -> Message:
    """A partner's message with its weights; partners weigh the same, as ours do."""
    content = RecordDict({"arrays": ArrayRecord({"theta": Array(theta)}), "metrics": MetricRecord({"num-examples": 1.0})})
    return make_message(Metadata(1, "m", 1, 1, "", "", 0.0, 60.0, "train"), content)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_optimiser_is_flowers_strategy(name: str) -> None:
    rng = np.random.default_rng(1)
    strategy, server = STRATEGIES[name](), SERVERS[name](0.2)
    theirs = rng.normal(size=WIDTH)
    ours = State.at(theirs.copy())
    for number in range(1, ROUNDS + 1):
        updates = rng.normal(0, 0.3, (PARTNERS, WIDTH))
        strategy.current_arrays = {"theta": theirs}
        arrays, _ = strategy.aggregate_train(number, [replied(theirs + update) for update in updates])
        assert arrays is not None
        theirs = arrays["theta"].numpy()
        ours = server.step(ours, updates.mean(axis=0), 0.0)
        np.testing.assert_allclose(ours.theta, theirs, rtol=1e-12, atol=1e-13)


def quadratic(theta: F64) -> F64:
    return np.asarray(np.linspace(0.5, 3.0, len(theta)) * (theta - 1.0))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("adam", lambda p: torch.optim.Adam([p], lr=0.05, betas=(0.9, 0.99), eps=0.0)),
        ("sgd", lambda p: torch.optim.SGD([p], lr=0.05, momentum=0.9)),
    ],
)
def test_without_noise_an_optimiser_is_torchs(name: str, reference: object) -> None:
    parameter = torch.zeros(WIDTH, dtype=torch.float64, requires_grad=True)
    theirs = reference(parameter)
    ours, state = OPTIMISERS[name](0.05), State.at(np.zeros(WIDTH))
    for _ in range(30):
        parameter.grad = torch.from_numpy(quadratic(parameter.detach().numpy()))
        theirs.step()
        state = ours.step(state, quadratic(state.theta), 0.0)
    np.testing.assert_allclose(state.theta, parameter.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_adam_takes_the_noise_out_of_its_second_moment() -> None:
    """Where the gradient dwarfs the noise it is plain Adam; where there is only noise no step is longer than plain Adam's."""
    rng, noise = np.random.default_rng(2), 0.5
    knowing, plain = State.at(np.zeros(2000)), State.at(np.zeros(2000))
    for _ in range(60):
        signal = rng.normal(0, noise, 2000)
        knowing, plain = Adam(0.1).step(knowing, signal, noise), Adam(0.1).step(plain, signal, 0.0)
    assert np.abs(knowing.theta).mean() <= 1.05 * np.abs(plain.theta).mean()
    large = State.at(np.zeros(3))
    expected = State.at(np.zeros(3))
    for _ in range(10):
        large, expected = Adam(0.1).step(large, np.full(3, 100.0), 0.5), Adam(0.1).step(expected, np.full(3, 100.0), 0.0)
    np.testing.assert_allclose(large.theta, expected.theta, rtol=1e-4)


def test_a_bias_of_noise_is_gone() -> None:
    """DP-AdamBC's point: with a gradient of three times the noise the step is as without noise, which plain Adam's is not."""
    rng, noise, gradient = np.random.default_rng(3), 1.0, 1.6
    knowing, plain = State.at(np.zeros(4000)), State.at(np.zeros(4000))
    for _ in range(400):
        signal = gradient + rng.normal(0, noise, 4000)
        knowing, plain = Adam(0.01).step(knowing, signal, noise), Adam(0.01).step(plain, signal, 0.0)
    assert knowing.theta.mean() / -4.0 == pytest.approx(1.0, abs=0.05)
    assert plain.theta.mean() / -4.0 < 0.9


@pytest.mark.parametrize(
    "optimiser", [*(make(0.1) for make in OPTIMISERS.values()), *(make(0.1) for make in SERVERS.values())], ids=repr
)
def test_zeros_move_nothing(optimiser: object) -> None:
    state = State.at(np.ones(3))
    for _ in range(3):
        state = optimiser.step(state, np.zeros(3), 0.0)
    assert state.theta.tolist() == [1.0] * 3
    assert isinstance(optimiser, FedAdam) or state.steps == 3
