"""Your own data frames instead of files: one per partner, with slips as real tables have them."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import ahh_federated as ahh

ABOUT = """
study = { id = "own-data", title = "Fever and age", purpose = "Show data frames.", version = 1, consortium = "example", \
minimum_partners = 2, expires = 2030-12-31, data = "synthetic" }
requester = { name = "A researcher", organisation = "A university", permit = "none needed: synthetic data" }
privacy = { epsilon = 2.0, delta = 1e-6, neighbours = "add-or-remove-one", noise = "each-node" }
patient = { key = "patient", reduce = "mean" }  # several visits become one row

[columns]
age = { range = [0, 18], unit = "years", missing = [99] }
ward = { levels = ["day", "night"] }
temperature = { range = [35, 42], unit = "degrees C" }

[cases]
fever = { when = "temperature >= 38", label = "Mean temperature of 38 or more" }

[[ask]]
id = "temperature"
analysis = "moments"
columns = ["temperature"]
share = 0.2

[[ask]]
id = "model"
analysis = "logistic"
outcome = "fever"
features = ["age", "ward"]
share = 0.8
"""


def visits(seed: int, patients: int = 4_000) -> pd.DataFrame:
    """Made-up visits: the young run a fever more often; 99 stands for an age not known, 200 is a slip."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(0, 18, patients)
    warm = 38.0 - 0.06 * (age - 9) + rng.normal(0, 0.8, patients)
    table = pd.DataFrame({"patient": np.arange(patients), "age": age.round(1), "temperature": warm.round(1)})
    table["ward"] = rng.choice(["day", "night"], patients)
    table.loc[:20, "age"], table.loc[21:30, "temperature"] = 99.0, 200.0  # both become "not known"
    return pd.concat([table, table.iloc[:50]])  # fifty come twice


with tempfile.TemporaryDirectory() as place:
    path = Path(place) / "study.toml"
    path.write_text(ABOUT, encoding="utf-8")
    frames = {"north": visits(1), "south": visits(2), "west": visits(3)}
    results = ahh.run(path, frames)  # ledgers of data frames live in memory: they end with the call
temperature = results.answer("temperature").to_json()["columns"]["temperature"]
for name, each in {"all": temperature, **temperature["partners"]}.items():
    print(f"{name}: mean {each['mean']['value']:.2f}, 95 % interval {each['mean']['low']:.2f} to {each['mean']['high']:.2f}")
print(results.model("model").summary()[["odds_ratio", "low", "high"]].round(2))
