"""A study in plain words, for the data steward who decides on it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from ahh_federated.analyses.counts import Counts
from ahh_federated.analyses.histograms import Histogram
from ahh_federated.analyses.models import ModelAnalysis
from ahh_federated.analyses.moments import Moments
from ahh_federated.analyses.quantiles import Quantiles
from ahh_federated.analyses.recalibration import Recalibration
from ahh_federated.analyses.scores import Scores
from ahh_federated.analyses.selection import Selection
from ahh_federated.core.columns import Column, Levels
from ahh_federated.core.costs import Budget, Spent
from ahh_federated.core.programs import Analysis
from ahh_federated.errors import AhhError
from ahh_federated.neural.training import Neural
from ahh_federated.node.home import NodeHome
from ahh_federated.node.stewardship import Decision, Proposal
from ahh_federated.study import Ask, Study

_WIDTH = 100
_INDENT = 13


def describe(home: NodeHome, proposal: Proposal) -> Iterator[str]:
    """Lines to print, in the order in which a steward asks: who, why, about whom, what leaves, at what cost, until when."""
    study = proposal.study
    yield from _field("study", f"{study.title} ({study.id}, version {study.version})")
    yield from _field("digest", study.digest)
    came = f"through {proposal.consortium} on {proposal.received[:10]}" if proposal.consortium else "from a file on this machine"
    yield from _field("came", f"{came}; it says it is of the consortium {study.consortium}")
    yield from _field("who asks", f"{study.requester}, {study.organisation}")
    yield from _field("permit", study.permit)
    yield from _field("why", study.purpose)
    yield from _field("until", f"{study.expires}; after that day this node refuses")
    yield ""
    yield "Which columns it may touch, and no others:"
    for column in study.columns.values():
        yield from _item(f"{column.name}: {_values(column)}")
    for case in study.cases.values():
        yield from _item(f"{case.name}, made from these: {case.label}; yes where {case.when.text}")
    yield from _item(_rows(study))
    yield ""
    yield f"What leaves, and no others: {len(study.asks)} asks, {_messages(study)} messages, each of noised whole numbers."
    for ask in study.asks:
        yield from _item(_ask(ask))
    yield "No row leaves, nor an exact count.  The same question again gets the same stored bytes and costs nothing."
    yield ""
    yield from _cost(home, study)
    yield ""
    yield from _verdict(home, study, proposal.decision)


def _field(name: str, text: str) -> Iterator[str]:
    yield from _wrapped(f"{name:<{_INDENT}}{_line(text)}", " " * _INDENT)


def _item(text: str) -> Iterator[str]:
    yield from _wrapped(f"  - {_line(text)}", "    ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _line(text: str) -> str:
    """The study's own text on one line, so that it cannot look like a line of this page."""
    return " ".join(text.split())


def _values(column: Column) -> str:
    gaps = f"; not known: {', '.join(map(str, column.missing))}" if column.missing else ""
    if isinstance(column, Levels):
        return f"{', '.join(column.levels)}{gaps}"
    outside = "counts as not known" if column.outside == "missing" else "is moved to the nearest end"
    return f"{column.low:g} to {column.high:g} {column.unit}, what is outside {outside}{gaps}"


def _rows(study: Study) -> str:
    patient = study.patient
    several = {
        "forbid": "a patient with several rows is left out",
        "first": f"of several rows the first by {patient.order} counts",
        "last": f"of several rows the last by {patient.order} counts",
        "mean": "several rows become their mean",
        "max": "several rows become their largest value",
    }
    return f"{patient.key} tells patients apart and is not analysed; {several[patient.reduce]}"


def _messages(study: Study) -> int:
    return sum(len(ask.lines) for ask in study.asks)


def _ask(ask: Ask) -> str:
    lines = ask.lines
    who = f"patients where {ask.where.text}" if ask.where is not None else "all patients"
    numbers = sum(line.width for line in lines)
    often = f"{len(lines)} messages, each asking in view of what all partners answered before" if len(lines) > 1 else "1 message"
    return f"{ask.title} ({ask.id}): {_what(ask.analysis)}; of {who}; {often}, {numbers} numbers; {ask.share:.0%} of the budget"


def _what(analysis: Analysis) -> str:
    match analysis:
        case Counts():
            by = " by ".join(column.name for column in analysis.by)
            return f"how many patients{f', by {by}' if by else ''}"
        case Moments():
            return f"sums for the mean and spread of {', '.join(column.name for column in analysis.columns)}"
        case Histogram():
            return f"how many patients in each of {analysis.schedule()[0].width} bins of {analysis.column.name}"
        case Quantiles():
            return f"how many patients in finer and finer parts of the range of {analysis.column.name}"
        case Scores():
            by = "".join(f", and so for each {column.name}" for column in analysis.by)
            return f"how many patients, by what the model predicts and by {analysis.model.outcome.name}{by}"
        case Selection():
            return f"how far {len(analysis.asks)} models are off {analysis.outcome.name}, summed for each: the closest is chosen"
        case Recalibration():
            return (
                f"to adapt a model to this partner, how many patients, by what it predicts and by {analysis.model.outcome.name}"
            )
        case Neural():
            return f"{_training(analysis)} of {analysis.outcome.name}, with {_names(analysis.features)}"
        case ModelAnalysis():
            return f"sums from which a model of {analysis.outcome.name} is fitted, with {_names(analysis.features)}"
    return "sums over patients"


def _names(columns: tuple[Column, ...]) -> str:
    return ", ".join(column.name for column in columns)


def _training(analysis: Neural) -> str:
    part = f" over secret samples of {analysis.sampling_rate:.3g} of the patients" if analysis.sampling_rate < 1 else ""
    if analysis.way == "local":
        return f"what {analysis.local_steps} noised steps at this node lead to (sums of gradients{part} stay here): a network"
    return f"sums of gradients{part}, from which a network is trained,"


def _cost(home: NodeHome, study: Study) -> Iterator[str]:
    yield "What it costs a patient, at most:"
    yield from _item(
        f"epsilon {study.cost.epsilon(study.budget.delta):.3g} at delta {study.budget.delta:g}, for this study alone"
    )
    alone = study.epsilon_alone
    if alone is not None:
        yield from _item(f"epsilon {alone:.3g} if nothing else is ever asked of these patients: samples cost more beside it")
    try:
        whole, paid, budget = _books(home, study)
    except AhhError as error:
        yield from _item(f"what is left cannot be told: {error}")
        return
    yield from _item(_budget(whole, paid, study, budget))
    if budget.delta != study.budget.delta:
        yield from _item("the two are at different deltas: the same noise is a smaller epsilon at a larger delta")
    if paid.mu_squared:
        yield from _item(f"of this study epsilon {paid.epsilon(study.budget.delta):.3g} is paid already")


def shortage(home: NodeHome, study: Study) -> str:
    """What the budget lacks for a study, and the fix; empty when there is enough for all of it."""
    try:
        whole, paid, budget = _books(home, study)
    except AhhError as error:
        return f"whether the budget is enough cannot be told: {error}"
    return "" if _after(whole, paid, study).within(budget) else _budget(whole, paid, study, budget)


def _books(home: NodeHome, study: Study) -> tuple[Spent, Spent, Budget]:
    """What all studies have spent, what this one has, and the limit."""
    with home.ledger() as ledger:
        return ledger.spent(), ledger.spent(study.digest), home.policy.budget


def _after(whole: Spent, paid: Spent, study: Study) -> Spent:
    mu_squared, slack = max(study.cost.mu_squared, paid.mu_squared), max(study.cost.slack, paid.slack)
    return Spent(whole.mu_squared + mu_squared - paid.mu_squared, whole.slack + slack - paid.slack)


def _budget(whole: Spent, paid: Spent, study: Study, budget: Budget) -> str:
    after = _after(whole, paid, study)
    now, then = whole.epsilon(budget.delta), after.epsilon(budget.delta)
    said = (
        f"of the data set's budget, epsilon {budget.epsilon:g} at delta {budget.delta:g}, {now:.3g} is spent; after it {then:.3g}"
    )
    if after.within(budget):
        return said
    events = (event for ask in study.asks for event in study.events(ask))
    which = "some of its questions" if any((whole + event).within(budget) for event in events) else "every new question of it"
    fix = "unless the data steward raises budget.epsilon in policy.toml"
    return f"{said}: MORE THAN THERE IS, so {which} will be refused, {fix}"


def _verdict(home: NodeHome, study: Study, made: Decision | None) -> Iterator[str]:
    objections = home.policy.objections(study)
    for each in objections:
        yield from _wrapped(f"The policy of this node forbids it: {_line(each)}.", "  ")
    if not objections:
        yield "The policy of this node forbids nothing in it."
    for lacks in filter(None, (ask.lacks for ask in study.asks)):
        yield from _wrapped(f"This node cannot answer all of it: {_line(lacks)}.", "  ")
    if made is None:
        yield f"Nobody has decided yet: `ahh node approve {study.id}`, or `ahh node refuse {study.id}`."
    else:
        limits = f", up to epsilon {made.ceiling:g} and {made.expires}" if made.verdict == "approved" else ""
        yield f"It was {made.verdict} by {_line(made.by)} on {made.time[:10]}{limits}."
