"""Results as eight Antwerp partners might give them; every number is made up by a closed formula."""

from __future__ import annotations

import itertools
from copy import deepcopy
from math import exp, hypot, log, sqrt
from statistics import NormalDist
from typing import Any

Json = dict[str, Any]

ZONES = ("Zone Centrum", "Zone Oost", "Zone Noord", "Zone Zuid")
SIZES = {
    "Zone Centrum": 9120,
    "Zone Oost": 7480,
    "Zone Noord": 5230,
    "Zone Zuid": 6110,
    "Hospital North": 4875,
}
ANSWERED = (*SIZES, "City health service", "Rare disease clinic")
PARTNERS = (*ANSWERED, "University")
SIZES |= {"City health service": 8340, "Rare disease clinic": 96}
COUNT_NOISE = 10.4
OVERWEIGHT = "overweight_6y"
NORMAL = NormalDist()


def number(value: float, se: float, sampling: float = 0.0) -> Json:
    spread = 1.96 * hypot(se, sampling)
    return {"value": value, "se": se, "low": value - spread, "high": value + spread, "status": "released"}


def withheld(status: str = "below threshold") -> Json:
    return {"value": None, "se": None, "low": None, "high": None, "status": status}


def wobble(*key: object) -> float:
    """A fixed number between -1 and 1 that depends on the key and on nothing else."""
    state = 17
    for letter in "/".join(map(str, key)):
        state = (state * 1103515245 + ord(letter) + 12345) % 2**31
    return (state % 20001) / 10000 - 1


def counted(size: float, *key: object) -> Json:
    return number(size + COUNT_NOISE * wobble(*key), COUNT_NOISE)


def summed(numbers: list[Json]) -> Json:
    return number(sum(n["value"] for n in numbers), hypot(*(n["se"] for n in numbers)))


def cell(levels: Json, share: float, *, hidden: tuple[str, ...] = ()) -> Json:
    kept = {p: counted(SIZES[p] * share, p, levels) for p in ANSWERED if p not in hidden}
    partners = {p: kept.get(p, withheld()) for p in ANSWERED} | {"University": withheld("refused")}
    return {"levels": levels, "overall": summed(list(kept.values())), "partners": partners}


def count_children() -> Json:
    unknown = {**cell({"sex": "not known"}, 0.0), "overall": number(7.3, COUNT_NOISE * sqrt(7))}
    return {"by": ["sex"], "cells": [cell({"sex": "girl"}, 0.488), cell({"sex": "boy"}, 0.512), unknown]}


def count_overweight() -> Json:
    tiny = "Rare disease clinic"
    shares = {("girl", "yes"): 0.041, ("girl", "no"): 0.401, ("girl", "not known"): 0.046}
    shares |= {("boy", "yes"): 0.037, ("boy", "no"): 0.427, ("boy", "not known"): 0.048}
    return {
        "by": ["sex", OVERWEIGHT],
        "cells": [
            cell({"sex": sex, OVERWEIGHT: yes}, share, hidden=(tiny,) if yes == "yes" else ())
            for (sex, yes), share in shares.items()
        ],
    }


def count_thin() -> Json:
    thin = cell({"thin_6y": "yes"}, 0.0001)
    thin["overall"] = number(-4.2, COUNT_NOISE * sqrt(7))
    return {"by": ["thin_6y"], "cells": [thin, {**cell({"thin_6y": "no"}, 0.99), "overall": withheld()}]}


def moments() -> Json:
    made = {
        "birth_weight": ("kg", 3.36, 0.48),
        "bmi_2y": ("kg/m2", 16.4, 1.3),
        "bmi_mother": ("kg/m2", 25.1, 4.8),
    }
    answer: Json = {}
    for column, (unit, mean, sd) in made.items():
        partners: Json = {"University": dict.fromkeys(("count", "mean", "sd"), withheld("refused"))}
        for p in ANSWERED:
            n = 0.9 * SIZES[p]
            partners[p] = {
                "count": counted(n, p, column),
                "mean": number(mean + 0.06 * sd * wobble(p, column), sd * 40 / n),
                "sd": number(sd * (1 + 0.05 * wobble(column, p)), sd * 60 / n),
            }
        overall = {
            "count": number(36820, 27.5),
            "mean": number(mean, 0.003 * sd),
            "sd": number(sd, 0.005 * sd),
        }
        answer[column] = {"unit": unit, **overall, "partners": dict(sorted(partners.items()))}
    return {"columns": answer}


def histogram() -> Json:
    edges = [10.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0, 22.0, 25.0, 35.0]
    shape = NormalDist(2.76, 0.12)  # of the logarithm
    parts = [shape.cdf(log(b)) - shape.cdf(log(a)) for a, b in itertools.pairwise(edges)]
    partners: Json = {p: [counted(SIZES[p] * part, p, i) for i, part in enumerate(parts)] for p in ANSWERED}
    for i in (0, 1, 9, 10, 11):
        partners["Rare disease clinic"][i] = withheld()
    partners["University"] = [withheld("refused")] * len(parts)
    overall = [number(41200 * part, 25.5) for part in parts]
    overall[11] = withheld()
    return {"column": "bmi_6y", "unit": "kg/m2", "edges": edges, "overall": overall, "partners": partners}


def quantiles() -> Json:
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    shape = NormalDist(2.76, 0.12)

    def row(shift: float, se: float) -> list[Json]:
        return [number(exp(shape.inv_cdf(p)) + shift, se) for p in levels]

    partners: Json = {p: row(0.5 * wobble(p, "q"), 300 / SIZES[p]) for p in ANSWERED[:-1]}
    partners |= {"Rare disease clinic": [withheld()] * 5, "University": [withheld("refused")] * 5}
    return {
        "column": "bmi_6y",
        "unit": "kg/m2",
        "probabilities": levels,
        "overall": row(0.0, 0.02),
        "partners": partners,
    }


TERMS: tuple[tuple[str, str | None, str | None, str, float, float, float], ...] = (
    ("(intercept)", None, None, "", -15.1, 0.5, 0.4),
    ("sex: boy", "sex", "boy", "", -0.11, 0.034, 0.045),
    ("birth weight (per kg)", "birth_weight", None, "kg", 0.31, 0.041, 0.055),
    ("BMI at 2 years (per kg/m2)", "bmi_2y", None, "kg/m2", 0.62, 0.030, 0.021),
    ("BMI of the mother (per kg/m2)", "bmi_mother", None, "kg/m2", 0.07, 0.006, 0.005),
    ("home language: other", "home_language", "other", "", 0.18, 0.049, 0.050),
    ("deprived: yes", "deprived", "yes", "", 0.43, 0.062, 0.056),
    ("deprived: not known", "deprived", "not known", "", 0.07, 0.121, 0.102),
)


def logistic() -> Json:
    terms = []
    for name, column, level, unit, beta, private, sampling in TERMS:
        se = hypot(private, sampling)
        p = 2 * (1 - NORMAL.cdf(abs(beta) / se))
        terms.append(
            {
                "name": name,
                "column": column,
                "level": level,
                "unit": unit,
                "coefficient": beta,
                "se_privacy": private,
            }
            | {"se_sampling": sampling, "se": se, "odds_ratio": exp(beta), "p": p}
            | {"low": exp(beta - 1.96 * se), "high": exp(beta + 1.96 * se)}
        )
    shrunk: list[Json] = [{"column": c, "level": level, "coefficient": 0.963 * beta} for _, c, level, _, beta, _, _ in TERMS[1:]]
    for term in shrunk:
        if term["column"] == "birth_weight":
            term |= {"clip": [1.93, 4.81], "centre": 3.3617}
    return {
        "outcome": OVERWEIGHT,
        "definition": f"{CASES[OVERWEIGHT]['label']}: {CASES[OVERWEIGHT]['when']}",
        "reference": {"sex": "girl", "home_language": "Dutch", "deprived": "no"},
        "n": number(24912, 31.0),
        "events": number(2176, 29.0),
        "complete": number(0.864, 0.0014),
        "terms": terms,
        "equation": {"intercept": -15.18724, "terms": shrunk},
        "rounds": 3,
        "notes": [],
    }


def score(auroc: float, size: float, p: str) -> Json:
    rough, turn = sqrt(10000 / size), 0.0 if p == "all" else 1.0
    steps = [
        {
            "threshold": t,
            "net_benefit": number(benefit, 0.001 * rough, 0.0014 * rough),
            "treat_all": number((0.0874 - t) / (1 - t), 0.0007 * rough, 0.0028 * rough),
            "sensitivity": number(found, 0.01 * rough, 0.015 * rough),
            "ppv": number(ppv, 0.006 * rough, 0.009 * rough),
        }
        for t, benefit, found, ppv in DECISIONS
    ]
    return {
        "status": "released",
        "auroc": number(auroc, 0.003 * rough, 0.007 * rough),
        "brier": number(0.0702 + 0.004 * turn * wobble(p, "b"), 0.0008 * rough, 0.0015 * rough),
        "observed_expected": number(1.02 + 0.07 * turn * wobble(p, "oe"), 0.012 * rough, 0.031 * rough),
        "calibration_intercept": number(0.02 + 0.08 * turn * wobble(p, "i"), 0.014 * rough, 0.034 * rough),
        "calibration_slope": number(0.98 + 0.09 * turn * wobble(p, "s"), 0.02 * rough, 0.037 * rough),
        "decision": steps,
    }


DECISIONS = (
    (0.05, 0.0521, 0.842, 0.139),
    (0.1, 0.0342, 0.611, 0.214),
    (0.15, 0.0221, 0.436, 0.281),
    (0.2, 0.0147, 0.318, 0.343),
)


def scores() -> Json:
    gap = sqrt(2) * NORMAL.inv_cdf(0.784)
    cuts = [-1.6 + 0.25 * i for i in range(18)]
    predicted = [0.012, 0.021, 0.033, 0.047, 0.064, 0.086, 0.118, 0.166, 0.243, 0.392]
    observed = [number(x * (1 + 0.12 * wobble(i, "c")), 0.003 + 0.02 * x, 0.004 + 0.03 * x) for i, x in enumerate(predicted)]
    observed[9] = withheld()
    partners: Json = {p: score(0.784 + 0.022 * wobble(p, "a"), 0.3 * SIZES[p], p) for p in ANSWERED[:-1]}
    partners |= {"Rare disease clinic": {"status": "too few"}, "University": {"status": "refused"}}
    return {
        "model": "model",
        "outcome": OVERWEIGHT,
        "n": number(10664, 26.0),
        "events": number(932, 25.0),
        "binning_error_auroc": 0.0006,
        "overall": score(0.784, 10664, "all"),
        "partners": partners,
        "roc": [{"fpr": 1 - NORMAL.cdf(c), "tpr": 1 - NORMAL.cdf(c - gap)} for c in cuts],
        "calibration": [{"predicted": x, "observed": y} for x, y in zip(predicted, observed, strict=True)],
        "decision": [
            {
                "threshold": t,
                "model": number(benefit, 0.001, 0.0014),
                "all": number((0.0874 - t) / (1 - t), 0.0007, 0.0028),
            }
            | {"none": 0.0}
            for t, benefit, _, _ in DECISIONS
        ],
    }


CASES = {
    OVERWEIGHT: {
        "label": "overweight including obesity at 6 years (IOTF)",
        "when": "(sex == 'boy' and bmi_6y >= 17.55) or (sex == 'girl' and bmi_6y >= 17.34)",
    },
    "thin_6y": {"label": "thinness grade 3 at 6 years", "when": "bmi_6y < 12.5"},
}
COLUMNS: Json = {
    "sex": {"levels": ["girl", "boy"]},
    "birth_weight": {"range": [1.5, 5.5], "unit": "kg"},
    "bmi_2y": {"range": [11, 25], "unit": "kg/m2"},
    "bmi_mother": {"range": [15, 50], "unit": "kg/m2"},
    "home_language": {"levels": ["Dutch", "other"]},
    "deprived": {"levels": ["no", "yes", "not known"]},
    "bmi_6y": {"range": [10, 35], "unit": "kg/m2"},
}


def ask(name: str, title: str, analysis: str, answer: Json | None, share: float, **other: Any) -> Json:
    coverage = dict.fromkeys(ANSWERED, "released") | {"University": "refused"}
    made: Json = {
        "id": name,
        "title": title,
        "analysis": analysis,
        "where": None,
        "share": share,
        "messages": 1,
    }
    made |= {"epsilon": round(2.0 * share**0.52, 4), "status": "released", "reason": "", "coverage": coverage}
    return made | {"answer": answer} | other


def asks() -> list[Json]:
    test = "fold == 'test'"
    offline = dict.fromkeys(PARTNERS, "offline")
    lost = "fewer partners answered in time than the study asks for (3 of 4)"
    few = dict.fromkeys(ANSWERED, "released") | {
        "Rare disease clinic": "below threshold",
        "University": "refused",
    }
    return [
        ask("children", "How many children are there?", "count", count_children(), 0.03),
        ask("overweight", "How many are overweight?", "count", count_overweight(), 0.05),
        ask("thin", "How many are thin?", "count", count_thin(), 0.02),
        ask("growth", "Birth weight and growth", "moments", moments(), 0.07, messages=2),
        ask("bmi", "How BMI is spread", "histogram", histogram(), 0.04),
        ask("centiles", "Centiles of BMI", "quantiles", quantiles(), 0.04),
        ask(
            "model",
            "Who becomes overweight?",
            "logistic",
            logistic(),
            0.45,
            messages=5,
            where="fold == 'train'",
        ),
        ask("evaluation", "How well does it predict?", "scores", scores(), 0.25, where=test, coverage=few),
        ask(
            "feeding",
            "Breastfed at six days",
            "count",
            None,
            0.05,
            status="failed",
            reason=lost,
            coverage=offline,
        ),
    ]


def partner(name: str, status: str, study: float | None, dataset: float | None, limit: float = 10.0) -> Json:
    made = {"name": name, "status": status, "epsilon_study": study, "epsilon_dataset": dataset}
    return made | {"epsilon_limit": limit, "delta_limit": 1e-5}


def partners() -> list[Json]:
    spent = {p: 1.62 + 1.9 * (1 + wobble(p, "spent")) for p in ANSWERED}
    made = [partner(p, "released", 1.93, spent[p]) for p in ANSWERED[:-1]]
    made.append(partner("Rare disease clinic", "below threshold", 1.93, 5.4, 6.0))
    return [*made, partner("University", "refused", None, 1.1, 4.0)]


def sample_results() -> Json:
    study: Json = {
        "id": "child-overweight",
        "title": "Overweight at age 6 from what is known at age 2",
        "purpose": "Find children who would gain from early help with healthy nutrition.",
        "version": 1,
        "consortium": "antwerp",
        "digest": "9b1f0c52e7a84d3db5c6a1f2e8d97043c2b6a5d4e3f20918f7e6d5c4b3a29180",
        "requester": "Example researcher",
        "organisation": "Example university",
        "permit": "fictitious-2026-001",
        "expires": "2027-12-31",
        "minimum_partners": 4,
        "data": "synthetic",
        "columns": COLUMNS,
        "cases": CASES,
    }
    made = {
        "format": "ahh-results/1",
        "software": {"ahh_federated": "0.1.0"},
        "stamp": "NOT PRIVATE: fixed seed",
        "study": study,
        "privacy": {"epsilon": 2.0, "delta": 1e-6, "neighbours": "add-or-remove-one", "noise": "each-node"},
        "partners": partners(),
        "asks": asks(),
    }
    return deepcopy(made)  # a test may change what it is given
