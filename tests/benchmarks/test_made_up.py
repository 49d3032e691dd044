"""Made-up patients are what their kind says, and the benchmark on them tells a good variant from a bad one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import made_up
from benchmarks.people import Kind, World

KIND = Kind(seed=5, patients=4_000, partners=3, features=6, strength=2.0, events=0.15, epsilon=4.0, bent=False)


@pytest.mark.parametrize("bent", [False, True])
def test_patients_are_what_their_kind_says(bent: bool) -> None:
    world = World.of(replace(KIND, bent=bent))
    people = world.people(100_000, stream=1)
    assert people.expected.mean() == pytest.approx(0.15, abs=0.005)
    assert np.var(np.log(people.expected / (1 - people.expected))) == pytest.approx(2.0, rel=0.1)
    assert people.columns["y"].mean() == pytest.approx(0.15, abs=0.005)
    assert sum(map(len, world.partners().values())) == 4_000
    assert set(people.columns) == {*world.study("logistic").columns}


def test_the_truth_is_that_of_the_risks() -> None:
    world = World.of(KIND)
    people = world.people(1_000, stream=1)
    x = np.column_stack([people.columns[f"x{j}"] for j in range(6)])
    left = np.log(people.expected / (1 - people.expected)) - x @ world.truth()
    assert np.ptp(left) < 1e-6


def test_a_measured_outcome_is_its_expected_value_and_residuals_of_variance_one() -> None:
    world = World.of(replace(KIND, measured=True))
    people = world.people(100_000, stream=1)
    assert np.var(people.expected) == pytest.approx(2.0, rel=0.1)
    assert np.std(people.columns["y"] - people.expected) == pytest.approx(1.0, abs=0.01)
    x = np.column_stack([people.columns[f"x{j}"] for j in range(6)])
    assert np.ptp(people.expected - x @ world.truth()) < 1e-6


@pytest.mark.parametrize("measured", [False, True])
def test_every_analysis_and_variant_gives_a_row(measured: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--kinds", "1", "--first", "7", "--json", str(tmp_path / "rows.json")]
    assert made_up.main([*told, "--measured"] if measured else told) == 0
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    analyses, variants = made_up.asked(replace(KIND, measured=measured))
    assert [(row["analysis"], row["variant"]) for row in rows] == [(a, v) for a in analyses for v in variants]
    assert all(row["excess"] > 0 for row in rows)
    assert "intervals" in capsys.readouterr().out


def test_variants_change_what_they_name() -> None:
    strong = replace(KIND, strength=8.0, patients=20_000, events=0.05)
    rows = {row["variant"]: row for row in made_up.rows(strong) if row["analysis"] == "logistic"}
    shipped = rows[made_up.SHIPPED]["excess"]
    assert all(abs(rows[variant]["excess"] - shipped) > 1e-9 for variant in ("x one normal", "prior that does not learn"))
    assert len(rows[made_up.SHIPPED]["held"]) == 6


@pytest.mark.parametrize("measured", [False, True])
def test_curves_have_a_prior_of_their_own(measured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Straight lines are the truth: with one prior for all slopes, curves would bend with the noise."""
    name, two = "MEASURED" if measured else "RISKS", (made_up.SHIPPED, "one prior for all slopes")
    monkeypatch.setattr(made_up, name, {variant: getattr(made_up, name)[variant] for variant in two})
    excess = dict.fromkeys(two, 0.0)
    for seed in range(1, 9):
        kind = replace(KIND, seed=seed, patients=6_000, partners=1, epsilon=1.0, measured=measured)
        for row in (row for row in made_up.rows(kind) if row["analysis"] == "additive"):
            assert row["curves"]
            excess[row["variant"]] += row["excess"]
    assert excess[made_up.SHIPPED] < 0.9 * excess["one prior for all slopes"]
