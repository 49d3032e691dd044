"""What a data steward reads of models: what leaves, and how much of the patients is in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ahh_federated.cli import tables
from ahh_federated.cli.node_inspect import _ask, _cost
from ahh_federated.lab.quoting import quote
from ahh_federated.node.home import NodeHome
from ahh_federated.study import Study, open_study

CURVES = Path(__file__).parents[2] / "examples" / "risk-curves.toml"
NETWORKS = """

[[ask]]
id = "network"
analysis = "neural"
outcome = "overweight_6y"
features = ["sex", "bmi_2y"]
sampling_rate = 0.1
share = 0.05

[[ask]]
id = "at-home"
analysis = "neural"
outcome = "bmi_6y"
features = ["sex", "bmi_2y"]
way = "local"
local_steps = 7
sampling_rate = 1
share = 0.05
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "study.toml"
    text = CURVES.read_text(encoding="utf-8").replace("share = 0.4\n", "share = 0.3\n")
    path.write_text(text + NETWORKS, encoding="utf-8")
    return open_study(path)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ("curves", "sums from which a model of overweight_6y is fitted, with sex, birth_weight"),
        ("chosen", "how far 2 models are off overweight_6y, summed for each: the closest is chosen"),
        ("adapted", "to adapt a model to this partner, how many patients, by what it predicts and by overweight_6y"),
        ("evaluation", "how many patients, by what the model predicts and by overweight_6y, and so for each sex"),
        (
            "network",
            "sums of gradients over secret samples of 0.1 of the patients, from which a network is trained",
        ),
        ("at-home", "what 7 noised steps at this node lead to (sums of gradients stay here): a network of bmi_6y"),
    ],
)
def test_each_ask_says_what_leaves(ask: str, words: str, study: Study) -> None:
    assert words in _ask(study.ask(ask))


def test_what_samples_cost_by_themselves_is_said(study: Study, tmp_path: Path) -> None:
    study = replace(study, asks=(study.ask("network"),))
    alone, delta = study.epsilon_alone, study.budget.delta
    assert alone is not None
    assert 0.9 * study.cost.epsilon(delta) < alone < 0.995 * study.cost.epsilon(delta)
    home = NodeHome(tmp_path)  # without a ledger: what is left cannot be told
    said = f"epsilon {alone:.3g} if nothing else is ever asked of these patients"
    assert said in list(_cost(home, study))[2]
    assert "nothing else" not in " ".join(_cost(home, open_study(CURVES)))
    bill = quote(study, patients=())
    assert said in str(bill)
    console = Console(record=True, width=80)
    tables.bill(console, bill)
    assert f"Epsilon {alone:.3f} if nothing else" in console.export_text()
