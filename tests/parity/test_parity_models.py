"""Every kind of model, three ways to run it: local, Flower and replay give the same bits for the same entropy."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import ahh_federated as ahh
from ahh_federated.coordinator.transcript import read_transcript
from ahh_federated.lab.studies import StudyResults
from ahh_federated.lab.synthetic import antwerp_children
from ahh_federated.study import Study, parse_study

CURVES = Path(__file__).parents[2] / "examples" / "risk-curves.toml"
NETWORKS = """
[[ask]]
id = "height-line"
analysis = "linear"
outcome = "bmi_6y"
features = ["sex", "bmi_2y"]
interactions = [["sex", "bmi_2y"]]
share = 0.1

[[ask]]
id = "sampled"
analysis = "neural"
outcome = "overweight_6y"
features = ["sex", "bmi_2y"]
hidden = [3]
sampling_rate = 0.5
rounds = 4
share = 0.1

[[ask]]
id = "at-home"
analysis = "neural"
outcome = "bmi_6y"
features = ["sex", "bmi_2y"]
hidden = [3]
way = "local"
rounds = 2
local_steps = 3
server_optimiser = "fedprox"
share = 0.1

[[ask]]
id = "home-scores"
analysis = "scores"
model = "at-home"
by = ["sex"]
share = 0.1
"""


def study() -> Study:
    """The example with less of the budget for each ask, and networks beside it."""
    content = tomllib.loads(CURVES.read_text(encoding="utf-8") + NETWORKS)
    for ask in content["ask"]:
        ask["share"] *= 0.6 if ask["id"] in ("lines", "curves", "chosen", "adapted", "evaluation") else 1.0
    return parse_study(content)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[StudyResults, Path]]:
    pytest.importorskip("opacus")
    frames, folder = antwerp_children(children=6_000, seed=3), tmp_path_factory.mktemp("parity")
    return {
        engine: (ahh.run(study(), frames, out=folder / engine, engine=engine, seed=11), folder / engine)
        for engine in ("local", "flower")
    }


def releases(folder: Path) -> list[tuple[bytes, list[tuple[str, bytes]]]]:
    _, exchanges, _ = read_transcript(folder / "transcript.jsonl")
    return [
        (each.request.to_bytes(), sorted((name, reply.to_bytes()) for name, reply in each.replies.items())) for each in exchanges
    ]


def test_local_and_flower_release_the_same_bytes(runs: dict[str, tuple[StudyResults, Path]]) -> None:
    local, flower = (releases(runs[engine][1]) for engine in ("local", "flower"))
    assert len(local) == 4 + 5 + 1 + 1 + 1 + 5 + (1 + 4) + (1 + 2) + 1
    assert local == flower


def test_replay_recomputes_every_number_without_torch(runs: dict[str, tuple[StudyResults, Path]]) -> None:
    results, folder = runs["flower"]
    assert runs["local"][0].data == results.data
    assert ahh.replay(folder).data == results.data
    assert {ask["id"]: ask["status"] for ask in results.data["asks"]} == dict.fromkeys([a.id for a in study().asks], "released")


def test_what_is_spent_is_what_was_quoted(runs: dict[str, tuple[StudyResults, Path]]) -> None:
    """By a partner that answered every ask to its end; who was below a threshold is not asked on, and spends less."""
    bill, data = ahh.quote(study(), patients=()), runs["local"][0].data
    whole = {
        each["name"] for each in data["partners"] if all(ask["coverage"][each["name"]] == "released" for ask in data["asks"])
    }
    assert len(whole) >= 4
    for partner in data["partners"]:
        spent = partner["epsilon_study"]
        assert spent == pytest.approx(bill.total, rel=1e-9) if partner["name"] in whole else spent <= bill.total * (1 + 1e-9)
        assert spent <= study().budget.epsilon
