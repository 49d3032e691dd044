"""From a partner's file to one row per patient: formats, what is not known, reduction, folds."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.releases import Status
from ahh_federated.node.tables import find_tables, load_cohort, read_table
from ahh_federated.runtimes.frames import read_columns
from ahh_federated.study import Study
from tests.study.samples import answer, debits, desk, request, rows, small

STUDY = small()
COLUMNS = ["child", "seen", "sex", "smoked", "weight", "bmi"]


def reducing(rule: str) -> Study:
    order = '\norder = "seen"' if rule in ("first", "last") else ""
    return small(('reduce = "last"\norder = "seen"', f'reduce = "{rule}"{order}'))


def table(*lines: tuple[Any, ...]) -> pd.DataFrame:
    return pd.DataFrame(lines, columns=COLUMNS)


def load(frame: pd.DataFrame, study: Study = STUDY) -> Cohort:
    return load_cohort(frame, study, "north")


def same(one: Cohort, other: Cohort) -> bool:
    return len(one) == len(other) and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.columns)


def patients(frame: pd.DataFrame, study: Study) -> list[tuple[float, ...]]:
    """The patients of a cohort, sorted: their order carries nothing."""
    loaded = load(frame, study)
    columns = [np.where(np.isnan(loaded[name]), -1.0, loaded[name]).tolist() for name in sorted(loaded.columns)]
    return sorted(zip(*columns, strict=True))


def text_of(frame: pd.DataFrame, **how: Any) -> bytes:
    return frame.to_csv(index=False, **how).encode()


FORMATS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "north.csv": text_of,
    "NORTH.CSV": text_of,
    "semicolon.csv": lambda frame: text_of(frame, sep=";"),
    "tab.csv": lambda frame: text_of(frame, sep="\t"),
    "mark.csv": lambda frame: b"\xef\xbb\xbf" + text_of(frame),
    "windows.csv": lambda frame: text_of(frame, lineterminator="\r\n"),
    "spaces.csv": lambda frame: text_of(frame.map(lambda cell: f" {cell} ").rename(columns=lambda name: f" {name} ")),
    "quotes.csv": lambda frame: text_of(frame, quoting=1),
    "blank-lines.csv": lambda frame: b"\n" + text_of(frame).replace(b"\n", b"\n\n"),
    "separators-in-a-cell.csv": lambda frame: text_of(frame.assign(name="Peeters, An; \n of Antwerp")),
    "zipped.csv.gz": lambda frame: gzip.compress(text_of(frame)),
    "Zipped.CSV.GZ": lambda frame: gzip.compress(text_of(frame, sep=";")),
    "text.parquet": lambda frame: frame.to_parquet(index=False),
    "typed.parquet": lambda frame: frame.astype({"weight": float, "bmi": float}).to_parquet(index=False),
    "days.parquet": lambda frame: frame.assign(seen=pd.to_datetime(frame["seen"])).to_parquet(index=False),
    "categories.parquet": lambda frame: frame.astype({"sex": "category", "smoked": "category"}).to_parquet(index=False),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_holds_the_same_patients(name: str, tmp_path: Path) -> None:
    frame = rows(30)
    (tmp_path / name).write_bytes(FORMATS[name](frame))
    found = find_tables(tmp_path)
    assert list(found) == [name.split(".")[0]]
    assert same(load(read_table(tmp_path / name)), load(frame))


def test_whole_numbers_as_keys_are_one_key_in_every_format(tmp_path: Path) -> None:
    frame = rows(20).assign(child=range(20))
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "b.parquet", index=False)
    frame.astype({"child": float}).to_parquet(tmp_path / "c.parquet", index=False)
    folds = [load(read_table(path))["fold"].tolist() for path in find_tables(tmp_path).values()]
    assert folds[0] == folds[1] == folds[2]


def test_levels_that_are_numbers_survive_a_gap(tmp_path: Path) -> None:
    study = small(('levels = ["girl", "boy"]', 'levels = ["1", "2"]'), ("or not smoked == 'yes'", "or sex == '1'"))
    frame = rows(4).assign(sex=[1.0, 2.0, np.nan, 1.0])
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    assert np.array_equal(load(read_table(tmp_path / "a.parquet"), study)["sex"], [0, 1, np.nan, 0], equal_nan=True)


@pytest.mark.parametrize("levels", ['["1", "2"]', '["1.0", "2.0"]', '["1.00", "2"]'])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_whole_number_is_a_level_however_its_zeros_are_written(levels: str, suffix: str, tmp_path: Path) -> None:
    """pandas writes 1.0 into a CSV file once a column of whole numbers has a gap, and 1 if it has none."""
    study = small(
        ('levels = ["girl", "boy"]', f'levels = {levels}\nmissing = ["9"]'), ("or not smoked == 'yes'", "or fold == 'test'")
    )
    frame = rows(5).assign(sex=[1.0, 2.0, np.nan, 9.0, 1.0])
    path = tmp_path / f"a.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path, index=False)
    expected = [0, 1, np.nan, np.nan, 0]
    assert np.array_equal(load(read_table(path), study)["sex"], expected, equal_nan=True)
    assert np.array_equal(read_columns(frame, {"sex": study.columns["sex"]})["sex"], expected, equal_nan=True)


def test_a_code_declared_as_missing_is_no_level_that_differs_in_zeros() -> None:
    levels = 'levels = ["8.0", "9.0"]\nmissing = ["9"]'
    study = small(('levels = ["girl", "boy"]', levels), ("or not smoked == 'yes'", "or fold == 'test'"))
    found = load(rows(4).assign(sex=["8", "9", "9.0", "9.00"]), study)["sex"]
    assert np.array_equal(found, [0, np.nan, 1, np.nan], equal_nan=True)


def test_levels_that_differ_in_their_zeros_are_told_apart() -> None:
    study = small(('levels = ["girl", "boy"]', 'levels = ["1", "1.0"]'), ("or not smoked == 'yes'", "or fold == 'test'"))
    assert np.array_equal(load(rows(3).assign(sex=["1", "1.0", "1.00"]), study)["sex"], [0, 1, 0])


def test_what_is_not_known() -> None:
    cells = [
        "",
        " ",
        "NA",
        "nan",
        "NULL",
        "None",
        "999",
        "999.0",
        "0.49",
        "5.51",
        "-3",
        "1e9",
        "inf",
        "0.5",
        "5.5",
        " 3.25 ",
        "3e0",
    ]
    frame = rows(len(cells)).assign(weight=cells)
    expected = [np.nan] * 13 + [0.5, 5.5, 3.25, 3.0]
    assert np.array_equal(load(frame)["weight"], expected, equal_nan=True)


def test_outside_may_be_clipped_but_codes_may_not() -> None:
    study = small(("missing = [999]\n", 'missing = [999]\noutside = "clip"\n'))
    frame = rows(5).assign(weight=["0.1", "9", "999", "inf", ""])
    assert np.array_equal(load(frame, study)["weight"], [0.5, 5.5, np.nan, np.nan, np.nan], equal_nan=True)


def test_levels_and_their_codes_for_not_known() -> None:
    frame = rows(7).assign(smoked=["no", "yes", "stopped", " yes ", "unknown", "", "NA"])
    assert np.array_equal(load(frame)["smoked"], [0, 1, 2, 1, np.nan, np.nan, np.nan], equal_nan=True)


def test_a_level_named_none_is_a_level() -> None:
    study = small(('levels = ["girl", "boy"]', 'levels = ["none", "some"]'), ("not smoked == 'yes'", "sex == 'none'"))
    frame = rows(3).assign(sex=["none", "some", ""])
    assert np.array_equal(load(frame, study)["sex"], [0, 1, np.nan], equal_nan=True)


def test_a_case_of_a_value_not_known_is_not_known() -> None:
    assert np.array_equal(load(rows(4).assign(bmi=["20", "19.99", "", "99"]))["heavy"], [1, 0, np.nan, np.nan], equal_nan=True)


def test_columns_that_the_study_does_not_declare_are_not_loaded() -> None:
    assert set(load(rows(3)).columns) == {"sex", "smoked", "weight", "bmi", "heavy", "fold"}


VISITS = table(
    ("a", "2026-01-02", "girl", "no", "3.0", "20"),
    ("a", "2026-01-01", "boy", "yes", "4.0", "18"),
    ("a", "2026-01-03", "girl", "", "", "22"),
    ("b", "2026-01-01", "boy", "stopped", "2.0", ""),
)


@pytest.mark.parametrize(
    ("rule", "sex", "smoked", "weight", "bmi", "heavy"),
    [
        ("first", [1, 1], [1, 2], [4.0, 2.0], [18, np.nan], [0, np.nan]),
        ("last", [0, 1], [np.nan, 2], [np.nan, 2.0], [22, np.nan], [1, np.nan]),
        ("mean", [1, 1], [1, 2], [3.5, 2.0], [20, np.nan], [1, np.nan]),
        ("max", [1, 1], [1, 2], [4.0, 2.0], [22, np.nan], [1, np.nan]),
    ],
)
def test_how_rows_become_one(
    rule: str, sex: list[float], smoked: list[float], weight: list[float], bmi: list[float], heavy: list[float]
) -> None:
    loaded = load(VISITS, reducing(rule))
    assert len(loaded) == 2
    expected = {"sex": sex, "smoked": smoked, "weight": weight, "bmi": bmi, "heavy": heavy}
    for name, values in expected.items():
        assert np.array_equal(loaded[name], values, equal_nan=True), name


@pytest.mark.parametrize(
    "order",
    [
        ["2", "1", "10"],
        ["2026-01-02", "2026-01-01", "2026-01-10"],
        ["2026-01-02T10:00:00", "2026-01-02", "2026-01-02T10:00:01"],
        ["2026-01-02T10:00:00+02:00", "2026-01-02T07:59:00Z", "2026-01-02T09:00:00+00:00"],
        [1.5, -3.0, 1e9],
        pd.to_datetime(["2026-01-02", "2026-01-01", "2026-01-10"]),
        pd.to_datetime(["2026-01-02", "2026-01-01", "2026-01-10"]).date,
    ],
    ids=["numbers", "days", "hours", "zones", "floats", "timestamps", "dates"],
)
def test_first_and_last_by_numbers_days_or_hours(order: Any) -> None:
    frame = table(*[("a", "", "girl", "no", "3", bmi) for bmi in ("12", "11", "13")]).assign(seen=order)
    assert load(frame, reducing("first"))["bmi"].tolist() == [11]
    assert load(frame, reducing("last"))["bmi"].tolist() == [13]


def test_a_mean_is_of_what_is_known_after_the_declared_range() -> None:
    frame = table(*[("a", "1", "girl", "no", weight, "20") for weight in ("3", "4", "999", "3000", "")])
    assert load(frame, reducing("mean"))["weight"].tolist() == [3.5]
    assert load(frame, reducing("max"))["weight"].tolist() == [4.0]


ROW = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["girl", "boy", ""]),
    st.sampled_from(["no", "yes", "stopped", "unknown"]),
    st.sampled_from(["0.1", "0.7", "1.1", "1.3", "3.3", "5.5", "", "999", "0.30000000000000004"]),
    st.sampled_from(["10", "19.9", "20", "20.1", "33.3", "", "99"]),
)


@pytest.mark.parametrize("rule", ["first", "last", "mean", "max"])
@given(lines=st.lists(ROW, min_size=2, max_size=10), data=st.data())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_the_order_of_rows_never_matters(rule: str, lines: list[tuple[str, ...]], data: st.DataObject) -> None:
    study = reducing(rule)
    shuffled = data.draw(st.permutations(lines))
    assert patients(table(*lines), study) == patients(table(*shuffled), study)


@pytest.mark.parametrize("rule", ["first", "last"])
@given(lines=st.lists(ROW, min_size=2, max_size=10))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_first_and_last_keep_a_row_as_it_was(rule: str, lines: list[tuple[str, ...]]) -> None:
    frame = table(*lines)
    single = {patient for row in range(len(frame)) for patient in patients(frame.iloc[[row]], reducing("first"))}
    assert set(patients(frame, reducing(rule))) <= single


def test_another_patient_changes_nobody_else() -> None:
    frame = pd.concat([VISITS, rows(5)])
    for rule in ("first", "last", "mean", "max"):
        with_b, without_b = (patients(each, reducing(rule)) for each in (frame, frame[frame["child"] != "b"]))
        (removed,) = patients(VISITS[VISITS["child"] == "b"], reducing(rule))
        with_b.remove(removed)
        assert with_b == without_b


def test_a_patient_has_one_fold_at_every_partner_and_in_every_order() -> None:
    known = rows(200, seed=1)
    elsewhere = pd.concat([rows(50, seed=2), known.sample(120, random_state=3)]).assign(bmi="20")
    folds = [dict(zip(frame["child"], load(frame)["fold"], strict=True)) for frame in (known, elsewhere, known[::-1])]
    assert folds[0] == folds[2]
    assert all(folds[0][child] == fold for child, fold in folds[1].items() if child in folds[0])
    assert sum(child in folds[0] for child in folds[1]) == 120


def test_folds_are_the_hash_of_study_and_patient() -> None:
    frame = rows(100)
    digests = [hashlib.sha256(f"ahh-fold/1\0growth\0{key}".encode()).digest() for key in frame["child"]]
    fractions = np.array([int.from_bytes(digest[:8], "big") / 2**64 for digest in digests])
    fold = STUDY.fold
    assert fold is not None
    assert fold.levels == ("test", "train")
    assert load(frame)["fold"].tolist() == (fractions >= 0.3).astype(float).tolist()


def test_folds_follow_their_shares_and_differ_between_studies() -> None:
    frame = rows(4000)
    ours, theirs = (load(frame, study)["fold"] for study in (STUDY, small(('id = "growth"', 'id = "other"'))))
    assert ours.mean() == pytest.approx(0.7, abs=0.03)
    assert np.mean(ours == theirs) == pytest.approx(0.58, abs=0.03)


def test_folds_do_not_depend_on_the_order_of_keys_in_the_file() -> None:
    turned = small(("{ train = 0.7, test = 0.3 }", "{ test = 0.3, train = 0.7 }"))
    assert turned.digest == STUDY.digest
    assert load(rows(100), turned)["fold"].tolist() == load(rows(100))["fold"].tolist()


def test_folds_by_a_declared_column() -> None:
    study = small(
        ("{ train = 0.7, test = 0.3 }", '"smoked"'),
        ("fold == 'train'", "fold == 'no'"),
        ("fold == 'test'", "fold == 'yes'"),
        ('features = ["sex", "weight", "smoked"]', 'features = ["sex", "weight"]'),
    )
    loaded = load(rows(100), study)
    assert np.array_equal(loaded["fold"], loaded["smoked"], equal_nan=True)


def test_no_patients_at_all_is_a_cohort(tmp_path: Path) -> None:
    """A refusal would tell the coordinator that the table is empty; noise and the threshold do not."""
    (tmp_path / "a.csv").write_text(",".join(COLUMNS) + "\n")
    for rule in ("first", "last", "mean", "max", "forbid"):
        study = reducing(rule)
        nobody = load(read_table(tmp_path / "a.csv"), study)
        assert len(nobody) == 0
        asked = desk(study, nobody)
        assert answer(asked, request(study, "children")).status in (Status.RELEASED, Status.BELOW)
        assert debits(asked.ledger) == 1


def test_a_column_of_which_nothing_is_known_is_a_column() -> None:
    for empty in ("", None, np.nan, pd.NA):
        frame = rows(40).assign(weight=empty, sex=empty)
        loaded = load(frame)
        assert np.isnan(loaded["weight"]).all()
        assert np.isnan(loaded["sex"]).all()
        assert answer(desk(STUDY, loaded), request(STUDY, "size")).status in (Status.RELEASED, Status.BELOW)


def test_a_frame_is_left_as_it_was() -> None:
    frame = pd.concat([VISITS, VISITS])
    before = frame.copy(deep=True)
    load(frame)
    pd.testing.assert_frame_equal(frame, before)
