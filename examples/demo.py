"""The demo: eight partners of a city, one study, a risk model.  `make demo` runs it.

Writes synthetic tables for each partner, then runs examples/child-overweight.toml on them through Flower.
"""

import argparse
from pathlib import Path

from ahh_federated.cli.main import main
from ahh_federated.lab.synthetic import write_partners

CHILDREN = 20_000
SEED = 2026  # of the synthetic children; the privacy noise is the real thing

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    parser.add_argument("--children", type=int, default=CHILDREN)
    chosen = parser.parse_args()
    study = Path(__file__).with_name("child-overweight.toml")

    print(f"Writing {chosen.children:,} synthetic children into the tables of eight partners: {chosen.out / 'partners'}")
    write_partners(chosen.out / "partners", children=chosen.children, seed=SEED)
    print(f"Running {study.name} over Flower\n")
    raise SystemExit(
        main(["run", str(study), "--partners", str(chosen.out / "partners"), "--out", str(chosen.out), "--engine", "flower"])
    )
