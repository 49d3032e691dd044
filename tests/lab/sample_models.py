"""Results of models of every kind, as the partners of `sample_results` might give them; all made up by closed formulas."""

from __future__ import annotations

from copy import deepcopy
from math import exp, hypot, sqrt
from typing import Any

from tests.lab.sample_results import (
    ANSWERED,
    CASES,
    COLUMNS,
    NORMAL,
    OVERWEIGHT,
    Json,
    ask,
    count_overweight,
    counted,
    logistic,
    number,
    sample_results,
    scores,
    wobble,
)
from tests.lab.sample_results import score as risk_score

TRAIN, TEST = "fold == 'train'", "fold == 'test'"
CLASSES = ("thin", "usual", "overweight", "obese")
MODEL_COLUMNS: Json = {
    **COLUMNS,
    "weight_class_6y": {"levels": list(CLASSES)},
    "visits": {"range": [0, 40], "unit": "visits"},
}
BMI_MEAN = 16.1


def term(name: str, column: str | None, level: str | None, unit: str | None, beta: float, *, odds: bool, **other: Any) -> Json:
    """A row of a table of coefficients; its standard errors grow with the coefficient."""
    private, sampling = 0.02 + 0.06 * abs(beta), 0.03 + 0.05 * abs(beta)
    se = hypot(private, sampling)
    low, high = beta - 1.96 * se, beta + 1.96 * se
    made: Json = {"name": name, "column": column, "level": level, "unit": unit, "coefficient": beta}
    made |= {"se_privacy": private, "se_sampling": sampling, "se": se, "p": 2 * (1 - NORMAL.cdf(abs(beta) / se))}
    return made | ({"odds_ratio": exp(beta), "low": exp(low), "high": exp(high)} if odds else {"low": low, "high": high}) | other


def curve(unit: str, low: float, high: float, shape: Any, key: str, points: int = 8) -> Json:
    """A curve through `shape` of the place on [-1, 1], with errors that grow towards both ends."""
    places = [-1 + 2 * k / (points - 1) for k in range(points)]
    values = [shape(u) for u in places]
    sampling, private = [0.04 + 0.16 * u * u for u in places], [0.05 + 0.12 * u * u for u in places]
    half = [1.96 * hypot(s, p) for s, p in zip(sampling, private, strict=True)]
    return {
        "unit": unit,
        "at": [low + (u + 1) / 2 * (high - low) for u in places],
        key: values,
        "low": [v - h for v, h in zip(values, half, strict=True)],
        "high": [v + h for v, h in zip(values, half, strict=True)],
        "se_sampling": sampling,
        "se_privacy": private,
    }


def additive() -> Json:
    """Overweight from a bend in birth weight, a steep BMI at two years and a mother's BMI that flattens."""
    crossed = {"by": {"column": "deprived", "level": "yes"}}
    return {
        "family": "binary",
        "outcome": OVERWEIGHT,
        "definition": f"{CASES[OVERWEIGHT]['label']}: {CASES[OVERWEIGHT]['when']}",
        "n": number(24912, 31.0),
        "events": number(2176, 29.0),
        "complete": number(0.864, 0.0014),
        "reference": {"sex": "girl", "deprived": "no"},
        "curves": {
            "birth_weight": curve("kg", 1.5, 5.5, lambda u: 0.55 * u * u + 0.25 * u - 0.04, "log_odds"),
            "bmi_2y": curve("kg/m2", 11, 25, lambda u: 1.9 * u + 0.25, "log_odds"),
            "bmi_mother": curve("kg/m2", 15, 50, lambda u: 0.9 * (1 - exp(-1.5 * (u + 0.4))), "log_odds"),
        },
        "terms": [
            term("(intercept)", None, None, None, -2.6, odds=True),
            term("sex: boy", "sex", "boy", None, -0.12, odds=True),
            term("deprived: yes", "deprived", "yes", None, 0.41, odds=True),
        ],
        "equation": {
            "intercept": -2.5718,
            "columns": [
                {"column": "sex", "levels": {"girl": 0.0512, "boy": -0.0623}, "not_known": None},
                {"column": "deprived", "levels": {"no": -0.0611, "yes": 0.3127, "not known": 0.0412}, "not_known": None},
                {
                    "column": "birth_weight",
                    "at": [1.5, 3.0, 3.8, 5.5],
                    "value": [0.412, -0.0931, -0.0214, 0.7126],
                    "not_known": None,
                },
                {
                    "column": "bmi_2y",
                    "at": [11.0, 15.0, 17.0, 25.0],
                    "value": [-1.4821, -0.6012, 0.0731, 2.0714],
                    "not_known": None,
                },
                {"column": "bmi_mother", "at": [15.0, 24.0, 50.0], "value": [-0.8123, 0.0412, 0.7741], "not_known": None},
            ],
            "products": [
                {
                    "coefficient": 0.04127,
                    "limit": 15.0,
                    "factors": [
                        {"column": "sex", "levels": {"girl": -1.0243, "boy": 0.9762}, "not_known": None},
                        {"column": "deprived", "levels": {"no": -0.3812, "yes": 2.4311, "not known": -0.3812}, "not_known": None},
                    ],
                }
            ],
        },
        "interactions": [term("sex: boy \u00d7 deprived: yes", "sex", "boy", None, 0.17, odds=True, **crossed)],
        "notes": ["Curves: patients x mu / sqrt(partners) is 812, at least the 300 from which curves predict better than lines."],
        "rounds": 8,
        "partners": list(ANSWERED),
    }


def additive_value() -> Json:
    """BMI at six years from BMI at two years, in kg/m2."""
    made = additive() | {"family": "continuous", "outcome": "bmi_6y", "definition": "bmi_6y", "unit": "kg/m2", "interactions": []}
    del made["events"]
    return made | {
        "curves": {"bmi_2y": curve("kg/m2", 11, 25, lambda u: 2.4 * u + 0.3, "value")},
        "terms": [
            term("(intercept)", None, None, None, BMI_MEAN, odds=False),
            term("sex: boy", "sex", "boy", None, 0.14, odds=False),
        ],
        "reference": {"sex": "girl"},
        "equation": {
            "intercept": BMI_MEAN,
            "columns": [
                {"column": "sex", "levels": {"girl": -0.0624, "boy": 0.0598}, "not_known": -0.0124},
                {"column": "bmi_2y", "at": [11.0, 16.0, 25.0], "value": [-2.0412, 0.0217, 2.5531], "not_known": 0.0},
            ],
            "products": [],
        },
    }


def linear() -> Json:
    crossed = {"by": {"column": "bmi_2y", "level": None, "clip": [11.6, 23.4], "centre": 16.42}}
    terms = [
        term("(intercept)", None, None, None, 4.2, odds=False),
        term("birth weight (per kg)", "birth_weight", None, "kg", 0.21, odds=False),
        term("bmi 2y (per kg/m2)", "bmi_2y", None, "kg/m2", 0.63, odds=False),
        term("sex: boy", "sex", "boy", None, 0.14, odds=False),
        term("sex: boy \u00d7 bmi 2y (per kg/m2)", "sex", "boy", "kg/m2", -0.013, odds=False, **crossed),
    ]
    shrunk: list[Json] = [{"column": t["column"], "level": t["level"], "coefficient": 0.97 * t["coefficient"]} for t in terms[1:]]
    shrunk[0] |= {"clip": [1.93, 4.81], "centre": 3.3617}
    shrunk[1] |= {"clip": [11.6, 23.4], "centre": 16.42}
    shrunk[3] |= crossed
    return {
        "outcome": "bmi_6y",
        "definition": "bmi_6y",
        "unit": "kg/m2",
        "reference": {"sex": "girl"},
        "n": number(25110, 31.0),
        "complete": number(0.871, 0.0014),
        "residual_sd": number(1.62, 0.021),
        "terms": terms,
        "equation": {"intercept": 4.27311, "terms": shrunk},
        "rounds": 6,
        "partners": list(ANSWERED),
        "notes": [],
    }


def neural(family: str = "levels", outcome: str = "weight_class_6y") -> Json:
    return {
        "family": family,
        "outcome": outcome,
        "definition": outcome,
        "features": ["sex", "birth_weight", "bmi_2y", "bmi_mother"],
        "layers": [6, 16, 4],
        "activation": "tanh",
        "architecture": "wide-deep",
        "way": "sgd",
        "n": number(25110, 31.0),
        "complete": number(0.871, 0.0014),
        "notes": [],
        "partners": list(ANSWERED),
        "rounds": 200,
    }


def risk_scores(model: str) -> Json:
    """The binary scores of `sample_results`, as they are now: with a family and subgroups."""
    made = scores() | {"family": "binary", "model": model}
    groups = [{"sex": "girl"}, {"sex": "boy"}, {"sex": "not known"}, {"deprived": "no"}, {"deprived": "yes"}]
    sizes = (5204, 5460, 0, 8020, 1490)
    found = [
        risk_score(0.784 + 0.02 * wobble("group", *group.values()), size, str(group)) if size else {"status": "too few"}
        for group, size in zip(groups, sizes, strict=True)
    ]
    return made | {"subgroups": [{"group": group, **score} for group, score in zip(groups, found, strict=True)]}


def class_score(size: float, *key: object) -> Json:
    spread, lift = sqrt(10000 / size), 0.02 * wobble(*key)
    shares = {"thin": 0.31, "usual": 0.88, "overweight": 0.44, "obese": 0.52}
    return {
        "status": "released",
        "accuracy": number(0.78 + lift, 0.004 * spread, 0.005 * spread),
        "balanced_accuracy": number(0.54 + lift, 0.01 * spread, 0.012 * spread),
        "sensitivity": {level: number(share + lift, 0.01 * spread, 0.015 * spread) for level, share in shares.items()},
        "ppv": {level: number(0.9 * share + lift, 0.01 * spread, 0.015 * spread) for level, share in shares.items()},
    }


def class_scores() -> Json:
    confusion = {
        true: {chosen: counted(9000 * part(i, k), true, chosen) for k, chosen in enumerate(CLASSES)}
        for i, true in enumerate(CLASSES)
    }
    partners: Json = {p: class_score(1500, p) for p in ANSWERED[:-1]}
    partners |= {"Rare disease clinic": {"status": "too few"}, "University": {"status": "refused"}}
    subgroups: list[Json] = [{"group": {"sex": sex}, **class_score(5000, sex)} for sex in ("girl", "boy")]
    return {
        "family": "levels",
        "outcome": "weight_class_6y",
        "levels": list(CLASSES),
        "n": number(10690, 26.0),
        "confusion": confusion,
        "overall": class_score(10690, "all"),
        "partners": partners,
        "subgroups": [*subgroups, {"group": {"sex": "not known"}, "status": "too few"}],
        "model": "classes",
    }


def part(true: int, chosen: int) -> float:
    """The share of patients of a true level whom the model puts at another."""
    return (0.04, 0.82, 0.09, 0.05)[true] * (0.72 if true == chosen else 0.28 / 3)


def value_score(size: float, *key: object) -> Json:
    spread = sqrt(10000 / size)
    return {
        "status": "released",
        "r2": number(0.38 + 0.04 * wobble("r2", *key), 0.008 * spread, 0.009 * spread),
        "rmse": number(1.63 + 0.05 * wobble("rmse", *key), 0.01 * spread, 0.012 * spread),
        "mean_error": number(0.2 * wobble("mean", *key), 0.012 * spread, 0.016 * spread),
        "calibration_slope": number(1.0 + 0.06 * wobble("slope", *key), 0.015 * spread, 0.013 * spread),
    }


def value_scores(model: str = "bmi") -> Json:
    partners: Json = {p: value_score(1500, p) for p in ANSWERED[:-1]}
    partners |= {"Rare disease clinic": {"status": "too few"}, "University": {"status": "refused"}}
    return {
        "family": "continuous",
        "outcome": "bmi_6y",
        "unit": "kg/m2",
        "n": number(10700, 26.0),
        "overall": value_score(10700, "all"),
        "partners": partners,
        "subgroups": [],
        "model": model,
    }


def select() -> Json:
    losses = {"model": 0.0714, "curves": 0.0702, "network": 0.0719}
    return {
        "outcome": OVERWEIGHT,
        "family": "binary",
        "chosen": "curves",
        "n": number(3560, 26.0),
        "candidates": [{"ask": name, "loss": number(loss, 0.0009)} for name, loss in losses.items()],
    }


def recalibration() -> Json:
    partners: Json = {}
    for p in ANSWERED[:-1]:
        a, b = 0.35 * wobble(p, "a"), 1 + 0.2 * wobble(p, "b")
        used = {"intercept": 0.7 * a, "slope": 1 + 0.6 * (b - 1)}
        partners[p] = {"status": "released", "intercept": number(a, 0.06, 0.09), "slope": number(b, 0.05, 0.07), "used": used}
    partners["Rare disease clinic"] = {"status": "too few", "used": {"intercept": 0.0131, "slope": 0.994}}
    partners["University"] = {"status": "refused", "used": {"intercept": 0.0131, "slope": 0.994}}
    overall = {"status": "released", "intercept": number(0.0131, 0.02, 0.03), "slope": number(0.994, 0.02, 0.02)}
    return {"outcome": OVERWEIGHT, "family": "binary", "model": "curves", "overall": overall, "partners": partners}


def model_asks() -> list[Json]:
    train = count_overweight()
    network = neural("binary", OVERWEIGHT) | {"layers": [7, 16, 1], "way": "local", "rounds": 20}
    network |= {"definition": logistic()["definition"], "events": number(2176, 29.0)}
    return [
        ask("overweight", "How many are overweight?", "count", train, 0.05, where=TRAIN),
        ask("model", "Overweight, straight lines", "logistic", logistic(), 0.1, messages=6, where=TRAIN),
        ask("curves", "Overweight, curves", "additive", additive(), 0.15, messages=8, where=TRAIN),
        ask("network", "Overweight, a network", "neural", network, 0.1, messages=20, where=TRAIN),
        ask("best", "Which model of overweight?", "select", select(), 0.05, where="fold == 'tune'"),
        ask("evaluation", "How well does it predict?", "scores", risk_scores("best"), 0.1, where=TEST),
        ask("travels", "Does it travel?", "recalibration", recalibration(), 0.05, where=TEST),
        ask("bmi", "BMI at six years", "linear", linear(), 0.1, messages=5, where=TRAIN),
        ask("bmi_curve", "BMI at six years, curves", "additive", additive_value(), 0.1, messages=7),
        ask("bmi_scores", "How well is BMI predicted?", "scores", value_scores(), 0.05, where=TRAIN),
        ask("classes", "Weight class", "neural", neural(), 0.1, messages=200, where=TRAIN),
        ask("classes_scores", "How well are classes told apart?", "scores", class_scores(), 0.05, where=TEST),
    ]


def sample_models() -> Json:
    """A study of models only, on the partners and the study of `sample_results`."""
    results = sample_results() | {"asks": model_asks(), "stamp": ""}
    results["study"] |= {"columns": MODEL_COLUMNS, "id": "child-overweight-models"}
    return deepcopy(results)
