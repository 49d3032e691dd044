"""Count children at several partners, with noise, and see what it cost.  Runs in seconds on synthetic children."""

import tempfile
from pathlib import Path

import ahh_federated as ahh
from ahh_federated.lab.synthetic import write_partners

STUDY = """
[study]
id = "first-count"
title = "How many children, by sex"
purpose = "Learn how a study is written, priced and run."
version = 1
consortium = "example"
minimum_partners = 2
expires = 2030-12-31
data = "synthetic"

[requester]
name = "A researcher"
organisation = "A university"
permit = "none needed: synthetic data"

[privacy]
epsilon = 1.0
delta = 1e-6
neighbours = "add-or-remove-one"
noise = "each-node"

[patient]
key = "child_id"
reduce = "last"
order = "recorded"

[columns.sex]
levels = ["girl", "boy"]

[[ask]]
id = "children"
analysis = "count"
by = ["sex"]
share = 1.0
"""

with tempfile.TemporaryDirectory() as place:
    folder = Path(place)
    write_partners(folder / "partners", children=3_000, seed=1)  # one CSV file per partner
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    study = ahh.open_study(folder / "study.toml")
    print(ahh.quote(study, [500]))  # the bill: nothing has been asked yet
    results = ahh.run(study, folder / "partners")
    for cell in results.answer("children").to_json()["cells"]:
        count = cell["overall"]
        print(f"{cell['levels']['sex']}: {count['value']:.0f}, 95 % interval {count['low']:.0f} to {count['high']:.0f}")
    again = ahh.run(study, folder / "partners")  # the same study gets the same stored answers, and costs nothing
    print("asked again, the same answers:", again.data == results.data)
    for partner in again.data["partners"]:
        print(f"{partner['name']} has spent epsilon {partner['epsilon_dataset']:.2f} of {partner['epsilon_limit']:g}")
