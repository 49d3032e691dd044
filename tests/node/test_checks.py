"""What a partner reads about its table: every fault with a fix, and never a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ahh_federated.node.checks import check
from ahh_federated.node.policy import Policy
from tests.study.samples import rows, small

STUDY = small()
FORBID = small(('reduce = "last"\norder = "seen"', 'reduce = "forbid"'))
CANARY = "Zq7canary"
SIZE = 100


def findings(frame: pd.DataFrame, study: Any = STUDY, policy: Policy | None = None, **how: Any) -> list[tuple[bool, str]]:
    found = check(frame.astype(object), study, policy or Policy(), **how)
    return [(each.stops, each.text) for each in found]


def scaled(column: str, factor: float, count: int) -> pd.DataFrame:
    frame = rows(SIZE)
    values = frame[column].astype(float).to_numpy(copy=True)
    values[:count] *= factor
    return frame.assign(**{column: [f"{value:.6f}" for value in values]})


def put(column: str, cell: object, count: int) -> pd.DataFrame:
    frame = rows(SIZE).astype(object)
    frame.loc[: count - 1, column] = cell
    return frame


def test_a_table_that_fits_has_nothing_to_mend() -> None:
    assert findings(rows(SIZE)) == findings(rows(SIZE), FORBID) == []


LEVELS = "recode them to girl, boy; until then they count as not known"
CASES: dict[str, tuple[pd.DataFrame, bool, str]] = {
    "grams": (
        scaled("weight", 1000, 90),
        True,
        "'weight': 90 of 100 known values are outside 0.5 to 5.5 kg; 90 of these fit when divided by 1000, so they look like g: "
        "convert them to kg",
    ),
    "some-grams": (
        scaled("weight", 1000, 9),
        False,
        "'weight': 9 of 100 known values are outside 0.5 to 5.5 kg; 9 of these fit when",
    ),
    "tonnes": (scaled("weight", 0.001, 90), True, "90 of these fit when multiplied by 1000, so look for another unit"),
    "lost-point": (
        scaled("bmi", 100, 3),
        False,
        "3 of these fit when divided by 100, so look for another unit or a lost decimal point",
    ),
    "impossible": (
        put("bmi", "-7", 4),
        False,
        "'bmi': 4 of 100 known values are outside 10 to 35 kg/m2; they count as not known: mend those that are wrong",
    ),
    "commas": (
        put("bmi", "17,5", 60),
        True,
        "'bmi': 60 of 100 rows are not numbers: there is a comma in each: write a decimal point",
    ),
    "words": (
        put("bmi", CANARY, 2),
        False,
        "'bmi': 2 of 100 rows are not numbers: write numbers; until then they count as not known",
    ),
    "codes": (put("sex", CANARY, 5), False, f"'sex': 5 of 100 rows hold 1 code that the study does not know: {LEVELS}"),
    "all-codes": (put("sex", "1", SIZE), True, f"'sex': 100 of 100 rows hold 1 code that the study does not know: {LEVELS}"),
    "capitals": (put("sex", "Girl", 5), False, f"that the study does not know: they differ in capitals only: {LEVELS}"),
    "nothing": (put("weight", "", SIZE), False, "'weight': no row has a known value"),
    "no-key": (put("child", "", 3), False, "3 rows have no 'child': they are left out; give every row its patient's key"),
    "no-keys": (put("child", None, SIZE), True, "100 rows have no 'child'"),
    "dates": (put("seen", "31/12/2026", 2), False, "'seen': 2 rows have neither a number nor an ISO date"),
    "mixed": (put("seen", "5", 2), False, "'seen' holds both numbers and dates, which have no common order"),
    "absent": (rows(SIZE).drop(columns=["bmi"]), True, "the table lacks the column 'bmi': add it, or correct its name"),
    "empty": (rows(0), False, "the table has no rows"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_fault_has_a_line_with_a_fix(name: str) -> None:
    frame, stops, says = CASES[name]
    found = findings(frame)
    assert len(found) == 1, found
    assert says in found[0][1]
    assert found[0][0] == stops
    assert CANARY not in found[0][1]


def test_patients_with_several_rows() -> None:
    frame = pd.concat([rows(SIZE), rows(10), rows(5)])
    assert findings(frame) == []
    ((stops, text),) = findings(frame, FORBID)
    assert (stops, text[:37]) == (False, "10 patients have several rows: they a")
    assert findings(pd.concat([rows(SIZE), rows(SIZE)]), FORBID)[0][0]


def test_moved_to_the_nearest_end_is_said() -> None:
    study = small(("missing = [999]\n", 'missing = [999]\noutside = "clip"\n'))
    assert "they are moved to the nearest end" in findings(put("weight", "-7", 4), study)[0][1]


def test_codes_that_mean_not_known_are_no_fault() -> None:
    assert findings(put("weight", "999", 50)) == findings(put("smoked", "unknown", 50)) == findings(put("sex", "NA", 50)) == []


def test_everything_is_said_at_once() -> None:
    frame = put("sex", CANARY, 5).drop(columns=["smoked", "bmi"]).assign(weight="x")
    said = [text for _, text in findings(frame, policy=Policy(columns=frozenset({"sex"})))]
    assert len(said) == 5
    for part in ("the policy forbids", "'smoked'", "'bmi'", "'sex'", "'weight'"):
        assert any(part in text for text in said), part


def test_a_column_that_is_there_twice() -> None:
    frame = rows(SIZE)
    twice = pd.concat([frame, frame[["bmi"]]], axis=1)
    assert findings(twice) == [(True, "the table has 2 columns named 'bmi': keep the right one")]


def test_who_opted_out_is_not_looked_at() -> None:
    frame = put("bmi", "-7", 4)
    assert findings(frame, without=frozenset(frame["child"][:4])) == []


@pytest.mark.parametrize("seed", range(20))
def test_hostile_cells_never_end_it_and_are_never_quoted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    odd: list[object] = [
        None,
        np.nan,
        pd.NA,
        [CANARY],
        {CANARY: 1},
        CANARY,
        b"\xff",
        2.0**60,
        "1e400",
        "-0",
        True,
        1j,
        "\x00",
        "9" * 500,
    ]
    frame = rows(30).astype(object)
    for column in frame.columns:
        for row in rng.integers(0, 30, 12):
            frame.at[row, column] = odd[rng.integers(len(odd))]
    said = findings(frame) + findings(frame, FORBID)
    assert said
    assert all(CANARY not in text and "999999" not in text for _, text in said)
