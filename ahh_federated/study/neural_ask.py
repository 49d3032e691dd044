"""The ask that trains a network: widths and constants, all public, all with defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ahh_federated.analyses.design import Design
from ahh_federated.analyses.models import Family
from ahh_federated.core.columns import Column, Levels
from ahh_federated.core.programs import Analysis
from ahh_federated.errors import Misuse
from ahh_federated.neural.architecture import ACTIVATIONS, ARCHITECTURES
from ahh_federated.neural.optimisers import OPTIMISERS, SERVERS
from ahh_federated.neural.training import DEFAULTS, WAYS, Neural
from ahh_federated.study.fields import Table

MOST_UNITS = 1000  # of a layer


def read_neural(table: Table, design: Design, outcome: Column) -> Analysis:
    """The analysis `neural` over a design; keys that the way of training does not use are refused."""
    way = table.choice("way", WAYS, default="sgd")
    default = DEFAULTS[way]
    given: dict[str, Any] = {
        "hidden": _hidden(table),
        "activation": table.choice("activation", ACTIVATIONS, default="tanh"),
        "architecture": table.choice("architecture", tuple(ARCHITECTURES), default="wide-deep"),
        "rounds": table.integer("rounds", 1, 1000, default=default["rounds"]),
        "sampling_rate": table.number("sampling_rate", 0.0, 1.0, default=default["sampling_rate"], example="0.1"),
        "clip": table.number("clip", 0.0, 1000.0, default=default["clip"], example="1.0"),
        "learning_rate": table.number(
            "learning_rate", 0.0, 100.0, default=default["learning_rate"], example=str(default["learning_rate"])
        ),
        "optimiser": table.choice("optimiser", tuple(OPTIMISERS), default="adam"),
        "class_weights": _class_weights(table, outcome),
        **_of_way(table, way),
    }
    try:
        return Neural(design, outcome, _family(table, outcome), way=way, **given)
    except Misuse as error:
        raise Misuse(f"{table.path}: {error}") from None


def _of_way(table: Table, way: str) -> Mapping[str, Any]:
    if way == "sgd":
        for key in ("server_optimiser", "local_steps", "proximal", "server_learning_rate"):
            if key in table:
                raise Misuse(f'{table.at(key)} is not used when way = "sgd": leave it out, or write way = "local"')
        return {}
    server = table.choice("server_optimiser", tuple(SERVERS), default="fedavg")
    found: dict[str, Any] = {
        "server_optimiser": server,
        "local_steps": table.integer("local_steps", 1, 1000, default=DEFAULTS["local"]["local_steps"]),
    }
    for key, alone, default in (("proximal", "fedprox", 0.01), ("server_learning_rate", "fedadam", 0.2)):
        if server == alone:
            found[key] = table.number(key, 0.0, 100.0, default=default, example=str(default))
        elif key in table:
            raise Misuse(f'{table.at(key)} is used by server_optimiser = "{alone}" alone: leave it out, or write that')
    return found


def _family(table: Table, outcome: Column) -> Family:
    """What the outcome's column says; that a measured one is a count must be said."""
    if isinstance(outcome, Levels):
        return "binary" if len(outcome.levels) == 2 else "levels"
    families: tuple[Family, ...] = ("continuous", "count")
    return table.choice("family", families, default="continuous")


def _hidden(table: Table) -> tuple[int, ...]:
    given = table.raw("hidden", default=(16,))
    fine = isinstance(given, list | tuple) and all(type(each) is int and 1 <= each <= MOST_UNITS for each in given)
    if not fine:
        raise Misuse(f"{table.at('hidden')} is not a list of widths from 1 to {MOST_UNITS}: write for example hidden = [16]")
    return tuple(given)


def _class_weights(table: Table, outcome: Column) -> tuple[float, ...]:
    if "class_weights" not in table or not isinstance(outcome, Levels):
        return ()
    weights = table.table("class_weights")
    found = tuple(weights.number(level, 0.0, 100.0, example="1.0") for level in outcome.levels)
    weights.done()
    return found
