"""Tables that cannot be used: refused before anything is spent, with table, column, count and fix, and never a value."""

from __future__ import annotations

import datetime
import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ahh_federated as ahh
from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.ledger import Ledger
from ahh_federated.node.tables import find_tables, load_cohort, read_table
from ahh_federated.study import Study
from tests.study.samples import BUDGET, debits, rows, small

CANARY = "Zq7canary"
NUMBER = "17.2839506172"
STUDY = small()
FORBID = small(('reduce = "last"\norder = "seen"', 'reduce = "forbid"'))
HEADER = "child,seen,sex,smoked,weight,bmi,name\n"


@dataclass(frozen=True)
class Bad:
    """A file that a partner may hold, and what its node's operator must read about it."""

    name: str
    data: bytes
    says: tuple[str, ...]
    study: Study = STUDY
    suffix: str = ".csv"


def line(child: str = CANARY, seen: str = "2026-01-01", **cells: str) -> str:
    cells = {"sex": "girl", "smoked": "no", "weight": "3.1", "bmi": NUMBER, "name": CANARY, **cells}
    return ",".join([child, seen, *cells.values()]) + "\n"


def good(count: int = 3) -> str:
    return HEADER + "".join(line(f"{CANARY}{k}") for k in range(count))


def bad(name: str, text: str | bytes, *says: str, study: Study = STUDY, suffix: str = ".csv") -> Bad:
    return Bad(name, text if isinstance(text, bytes) else text.encode(), says, study, suffix)


def without(column: str) -> str:
    frame = pd.read_csv(io.StringIO(good()), dtype=str)
    return frame.drop(columns=column).to_csv(index=False)


def parquet(edit: Callable[[pd.DataFrame], object]) -> bytes:
    frame = pd.read_csv(io.StringIO(good()), dtype={"child": str})
    edited = edit(frame)
    kept = io.BytesIO()
    (edited if isinstance(edited, pd.DataFrame) else frame).to_parquet(kept, index=False)
    return kept.getvalue()


def put(column: str, values: object) -> Callable[[pd.DataFrame], object]:
    return lambda frame: frame.assign(**{column: values})


NOT_A_TABLE = "is not a table: save it as CSV with a header line, or as Parquet"
RAGGED = "rows have more or fewer cells than the header: write every cell, and quote the cells that hold the separator"
NUMBERS = "are not numbers: write numbers with a decimal point, and leave cells that are not known empty"
LEVELS = "are none of its levels ['girl', 'boy']: recode them, or declare the code in `levels` or `missing`"
GZIPPED = gzip.compress(good(500).encode())
DAY = datetime.date(2026, 1, 1)

FILES = [
    bad("no-key", without("child"), "lacks the column 'child': add it, or correct its name in the table or the study"),
    bad("no-order", without("seen"), "lacks the column 'seen'"),
    bad("no-column", without("bmi"), "lacks the column 'bmi'"),
    bad("other-case", good().replace("bmi", "BMI", 1), "lacks the column 'bmi'"),
    bad("no-header", good().removeprefix(HEADER), "lacks the column 'child'"),
    bad("bars", good().replace(",", "|"), "lacks the column 'child'"),
    bad("twice-in-header", good().replace("name", "bmi", 1), "has 2 columns named 'bmi': keep the right one"),
    bad("empty", "", NOT_A_TABLE),
    bad("blank-lines", "\n\n  \n", NOT_A_TABLE),
    bad("open-quote", good() + line(name='"' + CANARY), NOT_A_TABLE),
    bad("zip", b"PK\x03\x04" + CANARY.encode() * 20, NOT_A_TABLE, suffix=".parquet"),
    bad("cut-parquet", parquet(lambda frame: frame)[:-9], NOT_A_TABLE, suffix=".parquet"),
    bad("cut-gzip", GZIPPED[:-20], NOT_A_TABLE, suffix=".csv.gz"),
    bad("no-gzip", good(), "cannot be read (it is damaged): check the file and its rights", suffix=".csv.gz"),
    bad("latin-1", (good() + line(name="Zoë " + CANARY)).encode("latin-1"), "is not UTF-8: save it as UTF-8"),
    bad("utf-16", good().encode("utf-16"), "is not UTF-8: save it as UTF-8"),
    bad("long-row", good() + line(name=f"{CANARY},{CANARY}"), f"1 {RAGGED}"),
    bad("long-rows", HEADER + 3 * line(name=f"{CANARY},{CANARY}"), f"3 {RAGGED}"),
    bad("trailing-comma", HEADER + 2 * line(name=f"{CANARY},"), f"2 {RAGGED}"),
    bad("short-row", good() + f"{CANARY},2026-01-01,girl\n", f"1 {RAGGED}"),
    bad("cut-off", good()[:-25], f"1 {RAGGED}"),
    bad("comma-for-point", good() + line(bmi="17,28"), f"1 {RAGGED}"),
    bad("blank-key", good() + line(" ") + line(""), "2 rows have no 'child': give every row its patient's key"),
    bad("key-na", good() + line("NA") + line("null") + line("NaN"), "3 rows have no 'child'"),
    bad("repeated", good() + line(f"{CANARY}0"), "1 rows repeat a patient: remove them, or let the study say", study=FORBID),
    bad("repeated-with-spaces", good() + line(f" {CANARY}0 "), "1 rows repeat a patient", study=FORBID),
    bad("text-for-number", good() + 2 * line(bmi=CANARY), f"2 rows of 'bmi' {NUMBERS}"),
    bad("number-with-unit", good() + line(bmi=f"{NUMBER} kg"), f"1 rows of 'bmi' {NUMBERS}"),
    bad("quoted-decimal-comma", good() + line(bmi='"17,2839506172"'), f"1 rows of 'bmi' {NUMBERS}"),
    bad("decimal-comma", good().replace(",", ";").replace(".", ","), f"3 rows of 'weight' {NUMBERS}"),
    bad("yes-for-number", good() + line(weight="True"), f"1 rows of 'weight' {NUMBERS}"),
    bad("unknown-level", good() + 2 * line(sex=CANARY), f"2 rows of 'sex' {LEVELS}"),
    bad("level-in-capitals", good() + line(sex="GIRL"), f"1 rows of 'sex' {LEVELS}"),
    bad("missing-code-of-another", good() + line(sex="unknown"), f"1 rows of 'sex' {LEVELS}"),
    bad("order-blank", good() + line(seen=""), "1 rows of the order column are neither numbers nor ISO dates: mend them"),
    bad("order-local-date", good() + line(seen="31/12/2025"), "1 rows of the order column are neither numbers nor ISO dates"),
    bad("order-mixed", good() + line(seen="2026"), "3 rows of the order column are neither numbers nor ISO dates"),
    bad("parquet-dates", parquet(put("bmi", pd.Timestamp(DAY))), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-day", parquet(put("bmi", DAY)), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-spans", parquet(put("bmi", pd.Timedelta(days=1))), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-flags", parquet(put("bmi", True)), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-text", parquet(put("bmi", CANARY)), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-lists", parquet(put("bmi", [[1.5], [], [1.5, 2.0]])), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-tables", parquet(put("bmi", [{"a": 1}] * 3)), f"3 rows of 'bmi' {NUMBERS}", suffix=".parquet"),
    bad("parquet-level-lists", parquet(put("sex", [["girl", "boy"]] * 3)), f"3 rows of 'sex' {LEVELS}", suffix=".parquet"),
    bad("parquet-order-lists", parquet(put("seen", [[1, 2]] * 3)), "3 rows of the order column are neither", suffix=".parquet"),
    bad("parquet-flag-levels", parquet(put("sex", False)), f"3 rows of 'sex' {LEVELS}", suffix=".parquet"),
    bad("parquet-number-levels", parquet(put("sex", 1.0)), f"3 rows of 'sex' {LEVELS}", suffix=".parquet"),
    bad("parquet-no-time", parquet(put("seen", pd.NaT)), "3 rows of the order column are neither", suffix=".parquet"),
    bad("parquet-flag-order", parquet(put("seen", True)), "3 rows of the order column are neither", suffix=".parquet"),
    bad("parquet-no-key", parquet(put("child", None)), "3 rows have no 'child'", suffix=".parquet"),
]


def told(error: BaseException) -> str:
    """Everything that a log of this error would show, its chain included."""
    texts = [str(error), repr(error.args)]
    if error.__cause__ is not None or not error.__suppress_context__:
        texts += [told(each) for each in (error.__cause__, error.__context__) if each is not None]
    return " ".join(texts)


def no_value_in(text: str) -> bool:
    return CANARY not in text and CANARY.lower() not in text.lower() and "2839" not in text and "Zo" not in text


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 40
    assert len({each.name for each in FILES}) == len(FILES)


@pytest.mark.parametrize("each", FILES, ids=lambda each: each.name)
def test_is_refused_with_a_message_that_helps_and_no_value(each: Bad, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"north{each.suffix}"
    path.write_bytes(each.data)
    with pytest.raises(Refusal) as caught:
        load_cohort(read_table(path), each.study, path.name)
    message = str(caught.value)
    assert caught.value.reason is Reason.TABLE
    assert path.name in message
    assert all(part in message for part in each.says)
    assert no_value_in(told(caught.value))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("each", FILES, ids=lambda each: each.name)
def test_nothing_is_asked_or_spent_anywhere(each: Bad, tmp_path: Path) -> None:
    """One partner's table is bad: the others are not asked either, and no ledger has a debit."""
    for name in ("east", "south", "west"):
        rows(40).to_csv(tmp_path / f"{name}.csv", index=False)
        (tmp_path / ".ahh").mkdir(exist_ok=True)
        Ledger.open(tmp_path / ".ahh" / f"{name}.ledger", dataset=name, budget=BUDGET).close()
    (tmp_path / f"north{each.suffix}").write_bytes(each.data)
    with pytest.raises(Refusal) as caught:
        ahh.run(each.study, tmp_path, out=tmp_path / "out")
    assert caught.value.reason is Reason.TABLE
    for name in ("east", "south", "west"):
        with Ledger.inspect(tmp_path / ".ahh" / f"{name}.ledger") as ledger:
            assert debits(ledger) == 0
    assert not (tmp_path / ".ahh" / "north.ledger").exists()
    assert not (tmp_path / "out").exists()


def frames() -> dict[str, pd.DataFrame]:
    frame = pd.read_csv(io.StringIO(good()), dtype=str)
    return {
        "has 2 columns named 'child'": pd.concat([frame, frame], axis=1),
        "lacks the column 'bmi'": frame.rename(columns={"bmi": 5}),
        "1 rows of 'bmi' are not numbers": frame.assign(bmi=[CANARY, 1, None]),
        "3 rows of 'weight' are not numbers": frame.assign(weight=[1 + 2j] * 3),
        "2 rows of 'weight' are not numbers": frame.assign(weight=pd.to_datetime(["2026-01-01", None, "2026-01-02"])),
        "2 rows of 'bmi' are not numbers": frame.assign(bmi=pd.to_timedelta([1, None, 2], unit="D")),
        "3 rows of 'bmi' are not numbers": frame.assign(bmi=[True, False, True]),
        "1 rows of the order column are neither": frame.assign(seen=pd.to_datetime(["2026-01-01", None, "2026-01-02"])),
        "3 rows of the order column are neither": frame.assign(seen=pd.to_timedelta([1, 2, 3], unit="D")),
        "2 rows of 'sex' are none of its levels": frame.assign(sex=pd.Categorical(["girl", CANARY, CANARY])),
    }


@pytest.mark.parametrize("says", frames())
def test_frames_of_the_laboratory_are_judged_alike(says: str) -> None:
    with pytest.raises(Refusal) as caught:
        load_cohort(frames()[says], STUDY, "north")
    assert says in str(caught.value)
    assert no_value_in(told(caught.value))


def test_two_files_for_one_partner(tmp_path: Path) -> None:
    (tmp_path / "north.csv").write_text(good())
    (tmp_path / "north.parquet").write_bytes(b"")
    with pytest.raises(Refusal, match=r"north\.parquet and north\.csv name one partner: keep one of them"):
        find_tables(tmp_path)


@pytest.mark.parametrize("files", [[], ["readme.txt", ".hidden.csv", ".hidden.xlsx", "north.csv.bak"]])
def test_no_tables(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text(good())
    with pytest.raises(Refusal, match="holds no table: put one CSV or Parquet file per partner there"):
        find_tables(tmp_path)


@pytest.mark.parametrize("name", ["north.xlsx", "north.SAV", "north.tsv"])
def test_a_table_in_another_form_is_not_passed_over(name: str, tmp_path: Path) -> None:
    """The others would pay, and the study would lack a partner."""
    (tmp_path / "south.csv").write_text(good())
    (tmp_path / name).write_text(good())
    with pytest.raises(Refusal, match=rf"{name} is no CSV or Parquet file: save it as one, or take it out"):
        find_tables(tmp_path)


@pytest.mark.parametrize("name", ["none", "file.csv"])
def test_no_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text(good())
    with pytest.raises(Refusal, match="is not a folder: give a folder with one table per partner"):
        find_tables(tmp_path / name)


def test_a_folder_named_like_a_table(tmp_path: Path) -> None:
    (tmp_path / "north.csv").mkdir()
    with pytest.raises(Refusal, match=r"north\.csv cannot be read \(Is a directory\)"):
        read_table(find_tables(tmp_path)["north"])


def test_another_unit_is_not_known_rather_than_wrong() -> None:
    """Grams for kilograms fall outside the public range: a fact of the design, told here so that nobody is surprised."""
    grams = rows(50)
    grams["weight"] = [str(1000 * float(value)) for value in grams["weight"]]
    assert np.isnan(load_cohort(grams, STUDY, "north")["weight"]).all()
    clipped = small(('unit = "kg"\n', 'unit = "kg"\noutside = "clip"\n'))
    assert (load_cohort(grams, clipped, "north")["weight"] == 5.5).all()


def test_decimals_of_a_database_are_numbers() -> None:
    table = rows(3).assign(bmi=[Decimal("17.5"), Decimal("18"), None])
    assert load_cohort(table, STUDY, "north")["bmi"][:2].tolist() == [17.5, 18.0]
