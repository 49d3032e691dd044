"""The study: one TOML file that says who asks what, why, about which columns, and for which privacy budget."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from ahh_federated.core.alone import epsilon_alone
from ahh_federated.core.columns import Column, Levels
from ahh_federated.core.costs import LEAST_EPSILON, MOST_EPSILON, SAMPLED, Budget, Event, Spent, epsilon_of, plan_sigma, sigma_for
from ahh_federated.core.programs import Line
from ahh_federated.errors import Misuse
from ahh_federated.study.asks import Ask, read_ask
from ahh_federated.study.declarations import Case, Patient, fold_column, read_cases, read_columns, read_patient
from ahh_federated.study.fields import Table

LARGEST = 1 << 20  # bytes
NOTICEABLY = 0.995  # of an epsilon: what is less by so little is rounding, not worth a line to anybody
MOST_PLANS = 40  # each takes a second to price
MOST_ASKS = 500  # a data steward reads each; to price many takes time that whoever sends a study would not pay for


@dataclass(frozen=True, slots=True, repr=False)
class Study:
    """A validated study.  `content` is the file as read.

    `digest`: SHA-256 of the canonical form: JSON with sorted keys and no spaces, dates in ISO 8601.
    """

    id: str
    title: str
    purpose: str
    version: int
    consortium: str
    minimum_partners: int
    round_deadline: float
    approval_hours: float
    expires: date
    data: str
    requester: str
    organisation: str
    permit: str
    budget: Budget
    patient: Patient
    columns: Mapping[str, Column]
    cases: Mapping[str, Case]
    asks: tuple[Ask, ...]
    content: Mapping[str, Any]
    digest: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha256(canonical(self.content)).hexdigest())

    def __repr__(self) -> str:
        """Short: whoever prints a model sees it."""
        return f"<Study {self.id}, version {self.version}, {self.digest[:12]}>"

    @property
    def open_data(self) -> bool:
        """Whether the data are declared synthetic or public, so that seeds and exact runs are allowed."""
        return self.data in ("synthetic", "public")

    @property
    def fold(self) -> Levels | None:
        return fold_column(self.patient, self.columns)

    def ask(self, ask_id: str) -> Ask:
        for ask in self.asks:
            if ask.id == ask_id:
                return ask
        raise Misuse(f"the study {self.id} has no ask {ask_id!r}: it has {', '.join(ask.id for ask in self.asks)}")

    def mu(self, ask: Ask, line: Line) -> float:
        """The Gaussian-DP parameter of a step, or of a plan; a hair below its share, so that rounding never refuses the last."""
        return self.budget.mu * float((ask.share * line.share) ** 0.5) * (1 - 1e-8)

    def event(self, ask: Ask, line: Line) -> Event:
        """What one step will cost: known before anything is asked."""
        first = line if not line.place else next(each for each in ask.lines if each.plan == line.plan)
        return self._event(line, self.mu(ask, first))

    def events(self, ask: Ask) -> list[Event]:
        """What each step of an ask will cost."""
        lines = ask.lines
        firsts = {line.plan: line for line in reversed(lines)}
        return [self._event(line, self.mu(ask, firsts[line.plan] if line.place else line)) for line in lines]

    def _event(self, line: Line, mu: float) -> Event:
        if not line.planned:
            return Event(line.sensitivity, sigma_for(line.sensitivity, mu), line.width)
        sigma = plan_sigma(line.sensitivity, mu, line.rate, line.count)
        return Event(line.sensitivity, sigma, line.width, SAMPLED, line.rate, line.count, line.place, line.steps)

    @property
    def cost(self) -> Spent:
        """What all asks cost one patient at one partner."""
        return Spent.of(event for ask in self.asks for event in self.events(ask))

    @property
    def epsilon_alone(self) -> float | None:
        """The epsilon of all asks at the study's delta if nothing else is ever asked, where that is noticeably less than `cost`.

        None otherwise, as where nothing is sampled.
        """
        alone = epsilon_alone((event for ask in self.asks for event in self.events(ask)), self.budget.delta)
        return alone if alone < NOTICEABLY * self.cost.epsilon(self.budget.delta) else None

    def ask_epsilon(self, ask: Ask) -> float:
        """What an ask alone costs at the study's delta."""
        return epsilon_of(self.budget.mu * float(ask.share**0.5), self.budget.delta)


def canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=lambda value: value.isoformat()
    ).encode()


def read_canonical(content: bytes) -> Study:
    """The study that canonical JSON spells, whose SHA-256 is its digest.

    Raises:
        Misuse: when it is anything else, or is spelled in another way.
    """
    if len(content) > LARGEST:
        raise Misuse("a study is larger than a megabyte: a study file is a page or two")
    try:
        parsed = json.loads(content)
        study = parse_study({**parsed, "study": {**parsed["study"], "expires": date.fromisoformat(parsed["study"]["expires"])}})
        spelled = canonical(study.content)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise Misuse("this is not a study as canonical JSON: submit the study file with `ahh submit`") from None
    if spelled != content:
        raise Misuse("this study is not in its canonical form: submit the study file with `ahh submit`")
    return study


def open_study(path: str | Path) -> Study:
    """Read and validate a study file.

    Raises:
        Misuse: naming the key, the reason and the fix.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): give the path of a study file") from None
    if len(data) > LARGEST:
        raise Misuse(f"{path} is larger than a megabyte: a study file is a page or two")
    try:
        content = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Misuse(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # also too many digits in a number, or too many brackets
        raise Misuse(f"{path} is not valid TOML: {error}") from None
    try:
        return parse_study(content)
    except Misuse as error:
        raise Misuse(f"{path.name}: {error}") from None


def parse_study(content: Mapping[str, Any]) -> Study:
    """Validate the content of a study file."""
    file = Table(content, "")
    about, requester, privacy = file.table("study"), file.table("requester"), file.table("privacy")
    columns = read_columns(file.table("columns"))
    cases = read_cases(file.table("cases") if "cases" in file else Table({}, "cases"), columns)
    patient = read_patient(file.table("patient"), columns)
    fold = fold_column(patient, columns)
    visible: dict[str, Column] = {**columns, **{name: case.column for name, case in cases.items()}}
    if fold is not None:
        visible[fold.name] = fold
    asks = _asks(file.raw("ask", default=[]), visible)
    study = Study(
        id=about.name("id"),
        title=about.text("title"),
        purpose=about.text("purpose"),
        version=about.integer("version", 1, 10**6),
        consortium=about.name("consortium"),
        minimum_partners=about.integer("minimum_partners", 1, 1000),
        round_deadline=about.number("round_deadline", 0.0, 86_400.0, default=600.0, example="600"),
        approval_hours=about.number("approval_hours", 0.0, 8_760.0, default=72.0, example="72"),
        expires=about.day("expires"),
        data=about.choice("data", ("real", "synthetic", "public"), default="real"),
        requester=requester.text("name"),
        organisation=requester.text("organisation"),
        permit=requester.text("permit", example='"permit 2026-001"'),
        budget=_budget(privacy),
        patient=patient,
        columns=columns,
        cases=cases,
        asks=asks,
        content=content,
    )
    for table in (about, requester, privacy, file):
        table.done()
    _check_affordable(study)
    return study


def _budget(privacy: Table) -> Budget:
    epsilon = privacy.number("epsilon", LEAST_EPSILON, MOST_EPSILON, example="1.0")
    delta = privacy.number("delta", 0.0, 1e-2, example="1e-6")
    if delta < 1e-12:
        raise Misuse(f"{privacy.at('delta')} is below 1e-12: the integer grid needs a little room; 1e-6 suits most studies")
    privacy.choice("neighbours", ("add-or-remove-one",))
    if privacy.choice("noise", ("each-node", "shared")) == "shared":
        raise Misuse(
            f'{privacy.at("noise")}: "shared" needs masks between the partners, which this version lacks: use "each-node"'
        )
    return Budget(epsilon, delta)


def _asks(content: Any, columns: Mapping[str, Column]) -> tuple[Ask, ...]:
    if not isinstance(content, list):
        raise Misuse("ask is not a list of tables: write each ask below a line [[ask]], with two brackets")
    if not content:
        raise Misuse("ask is missing or empty: write each question below a line [[ask]]")
    if len(content) > MOST_ASKS:
        raise Misuse(f"ask is there {len(content)} times: a study has at most {MOST_ASKS}; make several studies of it")
    asks: dict[str, Ask] = {}
    for number, each in enumerate(content, start=1):
        ask = read_ask(Table(each, f"ask {number}"), columns, asks)
        asks[ask.id] = ask
    total = sum(ask.share for ask in asks.values())
    if total > 1 + 1e-9:
        raise Misuse(f"the shares of all asks sum to {total:g}: lower them so that they sum to at most 1")
    return tuple(asks.values())


def _check_affordable(study: Study) -> None:
    """The integer grid, and the tail of each plan, are charged to a hundredth of delta; refuse a study too wide for that."""
    plans = sum(line.planned and not line.place for ask in study.asks for line in ask.lines)
    if plans > MOST_PLANS:
        raise Misuse(f"ask has {plans} models that are trained on samples: a study has at most {MOST_PLANS} of them")
    events: list[Event] = []
    for ask in study.asks:
        try:
            events += study.events(ask)
        except (ValueError, ZeroDivisionError):
            fix = "raise privacy.epsilon or the share, or drop the ask"
            raise Misuse(f"ask {ask.id!r}: its part of the budget is too small for the noise it needs: {fix}") from None
    if not Spent.of(events).slack <= study.budget.slack:
        fix = "raise delta, lower epsilon, or ask for fewer cells" + (" or fewer rounds on samples" if plans else "")
        raise Misuse(f"privacy.delta is too small for so many cells at this epsilon: {fix}")
