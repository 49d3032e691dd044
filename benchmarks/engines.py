"""Private training of one small network by other engines, as their users write it: the same network, steps, clip, sampling rate.

*Opacus' own engine*: PrivacyEngine.make_private with Poisson sampling, a loop over its loader, on one partner's data.

*Flower and Opacus*: Flower's FedAvg over ClientApps that build model and PrivacyEngine anew each round, as Flower's example
does, and take `local_steps` of Opacus' steps.  Ray is not needed: the apps run in one process behind the grid of
ahh_federated/runtimes/flower/inprocess.py, with Flower's own serialisation of every message and no socket, which is
cheaper than what a user of Flower's simulation or network has.

Both draw their noise from torch's generator, account for nothing durable, and keep no record of what was released.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

from ahh_federated.core.cohorts import F64
from ahh_federated.runtimes.flower.inprocess import InProcessGrid
from ahh_federated.runtimes.flower.private import task

# isort: split
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg


@dataclass(frozen=True, slots=True)
class Recipe:
    """One hidden layer of tanh units and a logit, by DP-SGD; `noise` is sigma over the clip."""

    hidden: int
    rate: float
    clip: float
    noise: float
    learning_rate: float
    rounds: int
    local_steps: int


@dataclass(frozen=True, slots=True)
class Data:
    """One partner's patients as tensors, x (patients, features) and y (patients,)."""

    x: torch.Tensor
    y: torch.Tensor

    @classmethod
    def of(cls, x: F64, y: F64) -> Data:
        return cls(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))


def opacus_engine(data: Data, recipe: Recipe) -> torch.nn.Module:
    """rounds * local_steps steps on one partner's data."""
    model = _network(data.x.shape[1], recipe)
    _steps(model, data, recipe, recipe.rounds * recipe.local_steps)
    return model


def flower_and_opacus(partners: Mapping[str, Data], recipe: Recipe) -> torch.nn.Module:
    """`rounds` rounds of FedAvg over all partners, each taking `local_steps` steps a round."""
    features = next(iter(partners.values())).x.shape[1]
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        data, model = partners[str(context.node_config["partner"])], _network(features, recipe)
        arrays = message.content["arrays"]
        assert isinstance(arrays, ArrayRecord)
        model.load_state_dict(arrays.to_torch_state_dict())
        _steps(model, data, recipe, recipe.local_steps)
        content = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(data.y)})}
        return Message(RecordDict(content), reply_to=message)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    grid = InProcessGrid(app, partners)
    everybody = len(partners)
    with task(grid.run.run_id):
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=everybody, min_available_nodes=everybody)
        result = strategy.start(grid, ArrayRecord(_network(features, recipe).state_dict()), recipe.rounds)
    model = _network(features, recipe)
    model.load_state_dict(result.arrays.to_torch_state_dict())
    return model


def _network(features: int, recipe: Recipe) -> torch.nn.Module:
    hidden = torch.nn.Linear(features, recipe.hidden)
    return torch.nn.Sequential(hidden, torch.nn.Tanh(), torch.nn.Linear(recipe.hidden, 1))


def _steps(network: torch.nn.Module, data: Data, recipe: Recipe, steps: int) -> None:
    """Opacus' engine from a user's model, optimizer and loader; its Poisson loader is read again until there are enough steps."""
    batch = round(len(data.y) * recipe.rate)
    loss, done = torch.nn.BCEWithLogitsLoss(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus: hooks, and that its fast random numbers are for experiments only
        model, optimizer, loader = PrivacyEngine().make_private(
            module=network,
            optimizer=torch.optim.SGD(network.parameters(), lr=recipe.learning_rate),
            data_loader=DataLoader(TensorDataset(data.x, data.y), batch_size=batch),
            noise_multiplier=recipe.noise,
            max_grad_norm=recipe.clip,
        )
        while done < steps:
            for x, y in loader:
                optimizer.zero_grad()
                loss(model(x).squeeze(1), y).backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break
