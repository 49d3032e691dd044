"""What a researcher calls: run a study, or replay one, and hold its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ahh_federated.analyses.fit import Fit
from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Watcher
from ahh_federated.errors import Misuse
from ahh_federated.lab.estimators import LogisticRegression
from ahh_federated.lab.report import write_report
from ahh_federated.runtimes import running
from ahh_federated.runtimes.nodes import Partners
from ahh_federated.study import Study, open_study

REPORT, RESULTS = "report.html", "results.json"


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The answers of a study.  `data` is the content of results.json; `model` gives a fitted estimator."""

    results: Results

    @cached_property
    def data(self) -> dict[str, Any]:
        return self.results.to_json()

    def answer(self, ask: str) -> Any:
        """The answer to one ask.

        Raises:
            Misuse: when the study has no such ask, or the ask has no answer.
        """
        outcome = self.results.outcome(self.results.header.study.ask(ask).id)
        if outcome.answer is None:
            raise Misuse(f"the ask {ask!r} has no answer: it is {outcome.status} ({outcome.reason or 'no reason given'})")
        return outcome.answer

    def model(self, ask: str) -> LogisticRegression:
        """The fitted model of a logistic ask, as a scikit-learn estimator."""
        fit = self.answer(ask)
        if not isinstance(fit, Fit):
            raise Misuse(f"the ask {ask!r} is not a model: name a logistic ask")
        return LogisticRegression.from_fit(fit, self.results.header.study, self.results.header.stamp)

    @property
    def models(self) -> list[str]:
        """The asks that have a fitted model."""
        return [outcome.ask.id for outcome in self.results.outcomes if isinstance(outcome.answer, Fit)]

    def save(self, out: Path | str) -> list[Path]:
        """Write report.html, results.json and model.json (model-ID.json when there are several); the paths written."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        names = [f"model-{ask.id}.json" for ask in self.results.header.study.asks]
        for name in ["model.json", *names]:  # of an earlier run whose model this run may not have
            (out / name).unlink(missing_ok=True)
        data = self.data
        paths = [out / REPORT, out / RESULTS]
        write_report(data, paths[0])
        paths[1].write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        for ask in self.models:
            paths.append(out / ("model.json" if len(self.models) == 1 else f"model-{ask}.json"))
            self.model(ask).save(paths[-1])
        return paths

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{outcome.ask.id}: {outcome.status}" for outcome in self.results.outcomes)
        return f"StudyResults({outcomes})"


def run(
    study: Study | Path | str,
    partners: Partners,
    *,
    out: Path | str | None = None,
    engine: str = "local",
    seed: int | None = None,
    exact: bool = False,
    watcher: Watcher | None = None,
    tell: Callable[[str], None] | None = None,
) -> StudyResults:
    """Run a study on tables that lie on this machine.

    Args:
        study: an opened study, or the path of its file.
        partners: a folder with one CSV or Parquet table per partner, named after the partner; or data frames by
            partner.  The ledgers of a folder stay in its `.ahh`, so later runs continue the same budget.
        out: a folder for the transcript, the report, the results and the model.
        engine: "local", or "flower" for the same run over Flower's messages.
        seed, exact: for data declared synthetic or public only; every output says "not private".
        watcher: told of progress.
        tell: given the reason of every refusal, as the node's operator would read it.

    Raises:
        Misuse: when the study or the call cannot work; nothing was asked.
        Refusal: when a table or a ledger cannot be used; nothing was spent.
    """
    opened = study if isinstance(study, Study) else open_study(study)
    mode = running.Mode(engine, seed, exact)
    results = StudyResults(running.run(opened, partners, out=out, mode=mode, watcher=watcher, tell=tell))
    if out is not None:
        results.save(out)
    return results


def replay(out: Path | str, watcher: Watcher | None = None) -> StudyResults:
    """Recompute every number of an earlier run from its transcript alone; no partner is asked."""
    return StudyResults(running.replay(out, watcher))
