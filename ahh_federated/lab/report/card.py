"""The model card: one page about one model, from what the results hold and nothing else.

The headings are those of Mitchell et al., "Model cards for model reporting", FAT* 2019, section 4, with the items of
TRIPOD+AI (Collins et al., BMJ 2024) that results can answer: purpose, data sources, outcome, predictors, sample size,
missing data, fit, performance in all and in subgroups.  What nobody evaluated is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ahh_federated.lab.report import tables_model
from ahh_federated.lab.report.context import Context, Pieces
from ahh_federated.lab.report.models import answered, choices, family_of, fits, indicators, on_model, place_of, title_of
from ahh_federated.lab.report.tables import Json, Line, Names, Table, at_partner
from ahh_federated.lab.report.words import MISSING, Shown, is_released, plain, shown, status_words, total

PART_MISSING: Final = "a part was not released"


def card(context: Context) -> Pieces:
    """The pieces of the card of a fitted model."""
    answer, results, names = context.answer, context.results, context.names
    fit = str(context.ask["id"])
    predictors = predictors_of(answer)
    return {
        "id": f"q{context.place}-card",
        "family": family_of(answer, names),
        "predictors": _predictors(predictors, names) if predictors else None,
        "indicators": indicators(answer, names),
        "absent": [p for p in names.partners if context.coverage.get(p) != "released"],
        "coverage": _coverage(context),
        "choices": [_choice(ask, fit, results) for ask in choices(results, fit)],
        "evaluations": [_evaluation(ask, context) for ask in on_model(results, "scores", fit)],
        "unanswered": _unanswered(context),
        "recalibrations": [_link(ask["id"], results) for ask in on_model(results, "recalibration", fit)],
        "several": len(names.partners) > 1,
    }


def predictors_of(answer: Json) -> list[str]:
    """The columns that the model needs, in the order of the answer."""
    if "features" in answer:
        return [str(column) for column in answer["features"]]
    terms = [term["column"] for key in ("terms", "interactions") for term in answer.get(key, ())]
    return [str(column) for column in dict.fromkeys([*terms, *answer.get("curves", ())]) if column is not None]


def _predictors(predictors: Sequence[str], names: Names) -> Table:
    lines = tuple(Line(names.of(column), _declared(column, names)) for column in predictors)
    return Table("Predictors, and what they may be", ("Predictor", "May be", "Unit", "Column"), lines)


def _declared(column: str, names: Names) -> tuple[Shown, ...]:
    declared = names.columns.get(column, {})
    nothing = Shown("\N{EN DASH}")
    if column in names.cases:
        return Shown(f"yes or no: {names.cases[column]['when']}"), nothing, Shown(column)
    if "range" in declared:
        low, high = declared["range"]
        moved = ", beyond it moved to the nearest end" if declared.get("outside") == "clip" else ""
        return Shown(f"{plain(low, 6)} to {plain(high, 6)}{moved}"), Shown(declared.get("unit") or nothing.main), Shown(column)
    return Shown(", ".join(declared.get("levels", ())) or MISSING), nothing, Shown(column)


def _coverage(context: Context) -> Table:
    """A line per partner: whether it is in the model, and how many patients it counted."""
    counted, everybody = _counts(context)
    lines = []
    for partner in context.names.partners:
        status = context.coverage.get(partner, "offline")
        inside = Shown("yes") if status == "released" else Shown(f"no: {status_words(status)}")
        lines.append(Line(partner, (inside, *(each[partner] for each in counted.values()))))
    caption = f"Partners, and the patients they counted in {everybody}" if counted else "Partners"
    return Table(caption, ("Partner", "In the model", *counted), tuple(lines))


def _counts(context: Context) -> tuple[dict[str, dict[str, Shown]], str]:
    """Columns of patients (and of those with the outcome) counted at each partner, and which question counted them.

    The fit itself counts first whom it uses.  Results that do not hold that may have a question that counted, with the model's
    own filter or, failing that, none.  The fewer cells, the fewer can be withheld.
    """
    own = context.ask.get("patients", {})
    if own:
        return {
            "Patients brought": {partner: _number(own.get(partner)) for partner in context.names.partners}
        }, "the first message of the fit"
    asks = [ask for ask in context.results["asks"] if ask["analysis"] == "count" and answered(ask)]
    for where in dict.fromkeys((context.ask["where"], None)):
        alike = sorted((ask for ask in asks if ask["where"] == where), key=lambda ask: len(ask["answer"]["cells"]))
        if not alike:
            continue
        found = {"Patients counted": _at_partners(alike[0], None, context)}
        outcome = context.answer.get("outcome")
        told = [ask for ask in alike if outcome in ask["answer"]["by"]]
        if told and family_of(context.answer, context.names) == "binary":
            found["With the outcome"] = _at_partners(told[0], outcome, context)
        among = f"among patients with {where}" if where else "among all patients"
        return found, f"\u201c{alike[0]['title']}\u201d, {among}"
    return {}, ""


def _number(number: Json | None) -> Shown:
    return shown(number, "count") if number is not None else Shown(status=status_words("offline"))


def _at_partners(ask: Json, outcome: str | None, context: Context) -> dict[str, Shown]:
    """The sum of an ask's cells at each partner; of those with the outcome, when it is named."""
    cells = ask["answer"]["cells"]
    if outcome is not None:
        event = context.names.columns.get(outcome, {}).get("levels", ("no", "yes"))[1]
        cells = [cell for cell in cells if cell["levels"][outcome] == event]
    found = {}
    for partner in context.names.partners:
        numbers = [at_partner(cell["partners"], partner, ask["coverage"]) for cell in cells]
        withheld = [number for number in numbers if not is_released(number)]
        if withheld:
            found[partner] = shown(withheld[0]) if len(withheld) == len(numbers) else Shown(status=PART_MISSING)
        else:
            found[partner] = shown(total(numbers), "count")
    return found


def _choice(ask: Json, fit: str, results: Json) -> Pieces:
    return {
        **_link(ask["id"], results),
        "taken": ask["answer"]["chosen"] == fit,
        "candidates": len(ask["answer"]["candidates"]),
    }


def _link(ask: str, results: Json) -> Pieces:
    return {"title": title_of(results, ask), "place": place_of(results, ask)}


def _evaluation(ask: Json, context: Context) -> Pieces:
    """One table: everybody, each partner, each declared subgroup."""
    answer, names = ask["answer"], context.names
    *partners, everybody = tables_model.scores_of(answer, ask["coverage"], names)
    subgroups = tables_model.subgroups_of(answer, names)
    each = [
        everybody,
        ("By partner", {}),
        *partners,
        *([("By subgroup, all partners together", {}), *subgroups] if subgroups else []),
    ]
    return {
        **_link(ask["id"], context.results),
        "where": ask["where"],
        "same": ask["where"] is None or ask["where"] == context.ask["where"],
        "subgroups": bool(subgroups),
        "table": tables_model.score_lines("Performance, with 95% intervals", "", answer, each, names),
    }


def _unanswered(context: Context) -> list[Json]:
    """Evaluations without an answer: of this model, or of nobody knows which where the results hold several."""
    failed = [ask for ask in context.results["asks"] if ask["analysis"] == "scores" and not answered(ask)]
    alone = len(fits(context.results)) == 1
    return [ask for ask in failed if context.ask["id"] in ask.get("models", [context.ask["id"]] if alone else [])]
