"""What a researcher calls: run a study, or replay one, and hold its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ahh_federated.analyses.models import Model
from ahh_federated.analyses.selection import Chosen
from ahh_federated.coordinator.results import Results
from ahh_federated.coordinator.session import Watcher
from ahh_federated.errors import Breach, Misuse
from ahh_federated.lab.estimators import Estimator, estimator_of
from ahh_federated.lab.models.files import TENSORS
from ahh_federated.lab.models.fitted import fitted
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

    def model(self, ask: str) -> Estimator:
        """The fitted model of an ask as a scikit-learn estimator; of an ask `select`, the model that was chosen.

        Raises:
            Misuse: when the ask has no answer, or its answer is no model.
            Breach: when its numbers are beyond what any node would compute with.
        """
        answer = self.answer(ask)
        if isinstance(answer, Chosen):
            return self.model(answer.ask)
        if not isinstance(answer, Model):
            raise Misuse(f"the ask {ask!r} is not a model: name one of {', '.join(self.models) or 'none, since none was fitted'}")
        return estimator_of(fitted(self.results, ask, self.data["partners"]), self.results.header.study)

    @property
    def models(self) -> list[str]:
        """The asks that have fitted a model."""
        answers = {outcome.ask.id: outcome.answer for outcome in self.results.outcomes}
        return [ask for ask, answer in answers.items() if isinstance(answer, Model) and not isinstance(answer, Chosen)]

    def save(self, out: Path | str) -> list[Path]:
        """Write report.html, results.json and model.json (model-ID.json when there are several); the paths written.

        A neural model has its numbers beside it, in a file that ends in .safetensors.
        """
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        names = ["model.json", *(f"model-{ask.id}.json" for ask in self.results.header.study.asks)]
        for path in (out / name for name in names):  # of an earlier run whose model this run may not have
            path.unlink(missing_ok=True)
            path.with_suffix(TENSORS).unlink(missing_ok=True)
        data = self.data
        paths = [out / REPORT, out / RESULTS]
        write_report(data, paths[0])
        paths[1].write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        for ask in self.models:
            with suppress(Breach):  # numbers that no node would compute with: there is the answer, and no model
                paths += self.model(ask).save(out / ("model.json" if len(self.models) == 1 else f"model-{ask}.json"))
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
