"""How a serving node loads its table: nothing that one patient's rows hold refuses the table or changes another patient."""

from __future__ import annotations

import csv
import datetime
import io
import struct
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahh_federated.core.cohorts import Cohort
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.tables import frame_of, load_cohort, read_table
from ahh_federated.study import Study
from tests.study.samples import rows, small

COLUMNS = ["child", "seen", "sex", "smoked", "weight", "bmi"]
RULES = ["first", "last", "mean", "max", "forbid"]


def reducing(rule: str) -> Study:
    """With a range around zero, which has two signs."""
    order = '\norder = "seen"' if rule in ("first", "last") else ""
    return small(('reduce = "last"\norder = "seen"', f'reduce = "{rule}"{order}'), ("range = [0.5, 5.5]", "range = [-5.5, 5.5]"))


def lenient(frame: pd.DataFrame, study: Study, without: frozenset[str] = frozenset()) -> Cohort:
    return load_cohort(frame, study, "north", [], without)


def bits(cohort: Cohort) -> Counter[bytes]:
    """Every patient of a cohort as the bytes of all columns; their order carries nothing."""
    names = sorted(cohort.columns)
    columns = [cohort[name] for name in names]
    return Counter(struct.pack(f"<{len(names)}d", *row) for row in zip(*columns, strict=True))


PLAIN = st.tuples(
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["1", "2", "2026-01-02", "2026-01-02T10:00:00.000001Z", "2026-01"]),
    st.sampled_from(["girl", "boy", ""]),
    st.sampled_from(["no", "yes", "stopped", "unknown"]),
    st.sampled_from(["0.7", "1.1", "1.3", "3.3", "5.5", "", "999", "0.30000000000000004", "-0.0"]),
    st.sampled_from(["10", "19.9", "20", "20.1", "33.3", "", "99"]),
)
ODD = [
    *["", "x", "NaN", "NA", "inf", "-inf", "1e400", "-0.0", "1,5", "1_0", "٣", "0x1p3", "\x00", '"', "2026-13-45", "9" * 400],
    *[None, np.nan, pd.NaT, pd.NA, True, False, -1, 2**53 + 1, 2**64, 2.0**60, -0.0, 1e308, 3.0, Decimal("NaN"), Decimal("3.1")],
    *[b"\xff", [1], {"a": 1}, datetime.date(2026, 1, 2), datetime.datetime.max, pd.Timestamp("2026-01-02T03:04:05.000000007")],
    *[np.float32(3.3), np.int64(4), np.datetime64("2026-01-02"), 1j, "no", "girl", "unknown", "3.3"],
]
KEY = st.sampled_from(["x", " x ", "X", 7, 7.0, "7", "", None, np.nan, 2.0**60, "NaN", "none"])
CELL = st.sampled_from(ODD) | st.text(max_size=5) | st.floats() | st.integers()
MALFORMED = st.tuples(KEY, CELL, CELL, CELL, CELL, CELL)


@pytest.mark.parametrize("rule", RULES)
@given(others=st.lists(PLAIN | MALFORMED, max_size=8), own=st.lists(MALFORMED, min_size=1, max_size=4), data=st.data())
@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_patient_changes_nobody_else(
    rule: str, others: list[tuple[Any, ...]], own: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    """The law: with and without a patient's rows, whatever they hold, every other patient is the same, bit for bit."""
    study = reducing(rule)
    own = [("the one", *row[1:]) for row in own]
    together = data.draw(st.permutations([*others, *own]))
    alone = bits(lenient(frame_of(COLUMNS, own), study))
    assert bits(lenient(frame_of(COLUMNS, together), study)) == bits(lenient(frame_of(COLUMNS, others), study)) + alone
    assert sum(alone.values()) <= 1


@pytest.mark.parametrize("rule", RULES)
@given(lines=st.lists(PLAIN | MALFORMED, max_size=8))
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_who_opts_out_was_never_there(rule: str, lines: list[tuple[Any, ...]]) -> None:
    study = reducing(rule)
    own = [("the one", *row[1:]) for row in lines[:3]]
    assert bits(lenient(frame_of(COLUMNS, [*own, *lines]), study, frozenset({"the one"}))) == bits(
        lenient(frame_of(COLUMNS, lines), study)
    )


TEXT = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=6)
LINE = st.one_of(
    TEXT.map(lambda text: text.encode()),
    st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"")),
    st.sampled_from(
        ['the one,1,girl,no,3.3,20,"', '"the one,1,girl,no,3.3,20', "the one,1,girl,no,3.3", '"', ",,,,,,,,", "x" * 200_000]
    ).map(str.encode),
)


@pytest.mark.parametrize("separator", [",", ";"])
@given(others=st.lists(PLAIN, max_size=6), own=st.lists(LINE, min_size=1, max_size=3), place=st.integers(0, 6))
@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_line_of_a_file_changes_no_other(
    tmp_path_factory: pytest.TempPathFactory, separator: str, others: list[tuple[str, ...]], own: list[bytes], place: int
) -> None:
    """Open quotes, bytes that are no UTF-8, cells too many, too few or too long: the line is lost, and only that line."""
    folder = tmp_path_factory.mktemp("lines")
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows([[*COLUMNS, "name"], *[(*row, "n") for row in others]])
    lines = text.getvalue().encode().splitlines(keepends=True)
    place = 1 + min(place, len(others))
    (folder / "a.csv").write_bytes(b"".join(lines))
    (folder / "b.csv").write_bytes(b"".join([*lines[:place], *[line + b"\n" for line in own], *lines[place:]]))
    without, within = (read_table(folder / name, []) for name in ("a.csv", "b.csv"))
    kept = [tuple(row) for row in within.itertuples(index=False, name=None)]
    known = [tuple(row) for row in without.itertuples(index=False, name=None)]
    assert known == [(*(cell for cell in row), "n") for row in others]
    assert kept[: place - 1] == known[: place - 1]
    assert kept[len(kept) - len(known) + place - 1 :] == known[place - 1 :]
    assert len(kept) - len(known) <= len(own)


FAULTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no-key": ("last", "2 rows have no 'child'", {"child": ["", None, "c", "d"]}),
    "long-key": ("last", "1 rows have keys 'child' that are numbers too long", {"child": [2.0**60, "b", "c", "d"]}),
    "no-number": ("last", "2 rows of 'weight' are not numbers", {"weight": ["1,5", "heavy", "3", ""]}),
    "no-level": ("last", "1 rows of 'sex' are none of its levels ['girl', 'boy']", {"sex": ["girl", "boy", "", "woman"]}),
    "no-order": ("last", "1 rows of the order column are neither", {"seen": ["2026-01-01", "", "2026-01-01", "2026-01-01"]}),
    "two-orders": ("first", "3 rows of the order column are neither", {"seen": ["2026-01-01"] * 3 + ["1"]}),
    "twice": ("forbid", "1 rows repeat a patient", {"child": ["a", "a", "c", "d"]}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_where_it_would_be_refused(name: str) -> None:
    rule, says, cells = FAULTS[name]
    frame, study, found = rows(4).assign(**cells), reducing(rule), list[str]()
    with pytest.raises(Refusal) as caught:
        load_cohort(frame, study, "north")
    load_cohort(frame, study, "north", found)
    assert found == [str(caught.value)]
    assert found[0].startswith(f"north: {says}")


def test_a_table_without_faults_is_the_same_cohort_either_way() -> None:
    for rule in RULES:
        study, found = reducing(rule), list[str]()
        assert bits(load_cohort(rows(50), study, "north", found)) == bits(load_cohort(rows(50), study, "north"))
        assert found == []


def test_rows_without_a_key_and_patients_with_several_rows_are_left_out() -> None:
    frame = rows(6).assign(child=["a", "a", "", "b", "NA", "c"])
    assert len(lenient(frame, reducing("forbid"))) == 2
    assert len(lenient(frame, reducing("last"))) == 3


def test_a_row_without_an_order_is_chosen_only_where_there_is_no_other() -> None:
    frame = rows(4).assign(child=["a", "a", "a", "b"], seen=["", "2026-01-02", "2026-01-01", "?"], bmi=["11", "12", "13", "14"])
    assert sorted(lenient(frame, reducing("last"))["bmi"]) == [12, 14]
    assert sorted(lenient(frame, reducing("first"))["bmi"]) == [13, 14]


@pytest.mark.parametrize(
    "edit", [lambda frame: frame.drop(columns="bmi"), lambda frame: pd.concat([frame, frame[["bmi"]]], axis=1)]
)
def test_a_column_that_is_absent_or_there_twice_is_always_refused(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """What columns there are does not depend on a patient."""
    with pytest.raises(Refusal) as caught:
        lenient(edit(rows(3)), reducing("last"))
    assert caught.value.reason == Reason.TABLE


def test_lines_that_are_lost_are_counted(tmp_path: Path) -> None:
    text = rows(5).to_csv(index=False)
    broken = 'a,1,girl,no,3,20,"Peeters,\nAn"\n' + "b,2\n"
    (tmp_path / "a.csv").write_text(text + broken)
    found: list[str] = []
    frame = read_table(tmp_path / "a.csv", found)
    assert len(frame) == 5
    assert len(found) == 1
    assert found[0].startswith("a.csv: 3 rows have more or fewer cells than the header: write every cell")
    assert "a line break within a cell makes two rows" in found[0]
    for word in ("Peeters", "An", "girl"):
        assert word not in found[0]


def test_bytes_that_are_no_utf8_spoil_their_own_cell(tmp_path: Path) -> None:
    text = rows(3).assign(name=["Zoë", "Ann", "Bo"]).to_csv(index=False)
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    found: list[str] = []
    frame = read_table(tmp_path / "a.csv", found)
    assert found == []
    assert frame["name"].tolist() == ["Zo\ufffd", "Ann", "Bo"]


@pytest.mark.parametrize("name", ["plain.csv", "zip.csv.gz"])
def test_a_sound_file_reads_the_same_either_way(name: str, tmp_path: Path) -> None:
    rows(20).to_csv(tmp_path / name, index=False, sep=";")
    pd.testing.assert_frame_equal(
        read_table(tmp_path / name, []), read_table(tmp_path / name), check_dtype=False, check_column_type=False
    )
