"""Curves of risk: an additive model, chosen against straight lines, adapted to each partner and judged by subgroup."""

import tempfile
from pathlib import Path

import ahh_federated as ahh
from ahh_federated.lab.synthetic import write_partners

STUDY = Path(__file__).with_name("risk-curves.toml")

with tempfile.TemporaryDirectory() as place:
    folder = Path(place)
    write_partners(folder / "partners", children=20_000, seed=4)
    results = ahh.run(STUDY, folder / "partners", out=folder / "out")

curve = results.model("curves").curves_["bmi_2y"]
print("Log odds of overweight at 6 by BMI at 2, with 95 % bands that include the privacy noise:")
print(curve[["at", "log_odds", "low", "high"]].round(2).to_string(index=False))
chosen = results.answer("chosen").to_json()
print("Chosen:", chosen["chosen"], {each["ask"]: round(each["loss"]["value"], 3) for each in chosen["candidates"]})
for group in results.answer("evaluation").to_json()["subgroups"]:
    print("AUROC of", group["group"], round(group["auroc"]["value"], 2) if "auroc" in group else group["status"])
