"""One small study, tables for it, and desks that answer: shared by the tests of the study, node and coordinator."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.costs import Budget
from ahh_federated.core.entropy import Entropy
from ahh_federated.node.desk import Desk
from ahh_federated.node.ledger import Kind, Ledger
from ahh_federated.node.policy import Policy
from ahh_federated.node.tables import load_cohort
from ahh_federated.study import Study, parse_study
from ahh_federated.wire import Reply, Request

TEXT = (Path(__file__).parent / "small.toml").read_text()
TODAY = date(2027, 1, 1)
QUIET = [  # less noise, so that chance puts nothing below a threshold, and no quantiles, which take their time
    ("epsilon = 2.0", "epsilon = 8.0"),
    ("delta = 1e-6", "delta = 1e-4"),
    ('analysis = "quantiles"\ncolumn = "bmi"\nprobabilities = [0.25, 0.5, 0.75]', 'analysis = "count"\nby = ["heavy"]'),
]
BUDGET = Budget(9.0, 1e-3)


def content(*edits: tuple[str, str]) -> dict[str, Any]:
    """The small study's parsed file after replacing texts in it, each of which must be there once."""
    text = TEXT
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return tomllib.loads(text)


def small(*edits: tuple[str, str]) -> Study:
    return parse_study(content(*edits))


def rows(patients: int, seed: int = 1, prefix: str = "p") -> pd.DataFrame:
    """One plausible row per patient, as a CSV would hold it."""
    rng = np.random.default_rng(seed)
    weight, bmi = rng.normal(3.3, 0.5, patients), rng.normal(19, 3, patients)
    table = {
        "child": [f"{prefix}{seed}-{k}" for k in range(patients)],
        "seen": ["2026-01-01"] * patients,
        "sex": rng.choice(["girl", "boy"], patients),
        "smoked": rng.choice(["no", "yes", "stopped", "unknown", ""], patients, p=[0.6, 0.2, 0.1, 0.05, 0.05]),
        "weight": [f"{value:.3f}" for value in np.clip(weight, 0.6, 5.4)],
        "bmi": [f"{value:.2f}" for value in np.clip(bmi, 10.1, 34.9)],
        "name": [f"Name {k}" for k in range(patients)],
    }
    return pd.DataFrame(table)


def cohort(study: Study, patients: int = 1000, seed: int = 1) -> Cohort:
    return load_cohort(rows(patients, seed), study, "a table")


def desk(
    study: Study,
    patients: int | Cohort = 1000,
    *,
    ledger: Ledger | None = None,
    minimum: int = 10,
    seed: int | None = None,
    run: str = "",
    tell: Callable[[str], None] = lambda message: None,
    name: str = "north",
    data: str = "synthetic",
) -> Desk:
    held = patients if isinstance(patients, Cohort) else cohort(study, patients)
    books = ledger or Ledger.in_memory(dataset=name, budget=BUDGET)
    entropy = Entropy.system() if seed is None else Entropy.seeded(seed)
    return Desk(name, study, held, books, Policy(BUDGET, minimum, data), entropy, run, tell)


def request(about: Study, ask: str, step: int = 0, parameters: Mapping[str, list[float]] | None = None, **other: Any) -> Request:
    line = about.ask(ask).analysis.schedule()[step]
    fields = {"study": about.digest, "run": "", "ask": ask, "step": step, "kind": line.kind, "parameters": parameters or {}}
    return Request(**{**fields, **other})


def scale(study: Study, **other: list[float]) -> dict[str, list[float]]:
    """Parameters that fit a score of the small study's model."""
    terms = study.ask("model").analysis.schedule()[2].width - 1
    return {"centre": [0.1] * terms, "spread": [0.5] * terms, "radius": [2.5], "beta": [0.2] * (terms + 1), **other}


def fitting(study: Study, ask: str, step: int) -> dict[str, list[float]]:
    """Parameters that fit a step of the small study, no more and no less."""
    fits = scale(study)
    if ask == "evaluation":
        width = study.ask(ask).analysis.schedule()[step].width
        del fits["radius"]
        return {**fits, "edges": [float(k) for k in range(width // 2 - 1)]}
    names = {1: ("centre", "spread", "radius"), 2: tuple(fits), 3: tuple(fits)}
    return {name: fits[name] for name in names.get(step, ())} if ask == "model" else {}


def answer(asked: Desk, what: Request, today: date = TODAY) -> Reply:
    return Reply.from_bytes(asked.answer(what.to_bytes(), today))


def debits(ledger: Ledger) -> int:
    return sum(entry.kind == Kind.DEBIT for entry in ledger.entries())


def releases(ledger: Ledger) -> int:
    return sum(entry.kind == Kind.RELEASE for entry in ledger.entries())
