"""Fit a risk model over eight partners, read its odds ratios, save it, and use it without any of them."""

import tempfile
from pathlib import Path

import pandas as pd

import ahh_federated as ahh
from ahh_federated.lab.synthetic import write_partners

study = ahh.open_study(Path(__file__).with_name("child-overweight.toml"))

with tempfile.TemporaryDirectory() as place:
    folder = Path(place)
    write_partners(folder / "partners", children=20_000, seed=1)
    results = ahh.run(study, folder / "partners", out=folder / "out")
    print(results)

    model = results.model("model")  # a scikit-learn estimator
    print(model.summary()[["odds_ratio", "low", "high", "se_privacy", "se_sampling"]].round(2))

    auroc = results.answer("evaluation").to_json()["overall"]["auroc"]
    print(f"AUROC on the test fold {auroc['value']:.2f} ({auroc['low']:.2f} to {auroc['high']:.2f})")

    model.save(folder / "mine.json")  # plain JSON: loading it runs no code
    loaded = ahh.load_model(folder / "mine.json")

children = pd.DataFrame(
    {
        "sex": ["girl", "boy"],
        "birth_weight": [3.2, 3.9],
        "mother_origin": ["belgian", "other"],
        "deprived": ["no", "yes"],
        "maternal_bmi": [22.0, 31.0],
        "smoked": ["no", "yes"],
        "breastfed": ["yes", "no"],
        "bmi_2y": [15.8, 18.6],
    }
)
children["risk"] = loaded.predict_proba(children)[:, 1]  # the equation: shrunk, for prediction
print(children[["sex", "bmi_2y", "risk"]].round(3))
print("The model's receipt:", loaded.receipt_)
