"""Conditions: three-valued logic, messages that help, and text that never runs."""

from __future__ import annotations

import builtins
import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahh_federated.core.cohorts import Cohort
from ahh_federated.core.columns import Column, Levels, Numeric
from ahh_federated.core.filters import parse_filter
from ahh_federated.errors import Misuse

COLUMNS: dict[str, Column] = {
    "age": Numeric("age", 0.0, 120.0, "years"),
    "bmi": Numeric("bmi", 10.0, 60.0, "kg/m2"),
    "sex": Levels("sex", ("boy", "girl")),
    "zone": Levels("zone", ("north", "east", 'it\'s "here"')),
}
AGES = [1.0, 2.0, 3.0, np.nan, 2.0, np.nan]
SEXES = [0.0, 1.0, np.nan, 0.0, 1.0, np.nan]
COHORT = Cohort.of(
    {"age": np.array(AGES), "bmi": np.full(6, 20.0), "sex": np.array(SEXES), "zone": np.array([0.0, 1, 2, 0, 1, np.nan])}
)


def holds(text: str, cohort: Cohort = COHORT) -> list[bool]:
    return parse_filter(text, COLUMNS).mask(cohort).tolist()


def case(text: str) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in parse_filter(text, COLUMNS).case(COHORT)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age == 2", [0, 1, 0, None, 1, None]),
        ("age != 2", [1, 0, 1, None, 0, None]),
        ("2 <= age", [0, 1, 1, None, 1, None]),
        ("2 > age", [1, 0, 0, None, 0, None]),
        ("1 < age <= 3.0", [0, 1, 1, None, 1, None]),
        ("age in [1, 3]", [1, 0, 1, None, 0, None]),
        ("age not in (1, 3)", [0, 1, 0, None, 1, None]),
        ("age in []", [0, 0, 0, None, 0, None]),
        ("age > -1", [1, 1, 1, None, 1, None]),
        ("sex == 'girl'", [0, 1, None, 0, 1, None]),
        ("'girl' != sex", [1, 0, None, 1, 0, None]),
        ("sex in ['boy']", [1, 0, None, 1, 0, None]),
        ("zone == 'it\\'s \"here\"'", [0, 0, 1, 0, 0, None]),
        ("not age == 2", [1, 0, 1, None, 0, None]),
        ("not not age == 2", [0, 1, 0, None, 1, None]),
        ("age == 2 and sex == 'girl'", [0, 1, 0, 0, 1, None]),
        ("age == 3 and sex == 'girl'", [0, 0, None, 0, 0, None]),
        ("age == 2 or sex == 'boy'", [1, 1, None, 1, 1, None]),
        ("age == 3 or sex == 'boy'", [1, 0, 1, 1, 0, None]),
        ("not (age == 2 or sex == 'boy')", [0, 0, None, 0, 0, None]),
        ("bmi > 5 or age > 1", [1, 1, 1, 1, 1, 1]),
        ("bmi < 5 and age > 1", [0, 0, 0, 0, 0, 0]),
    ],
)
def test_conditions_follow_kleene(text: str, expected: list[float | None]) -> None:
    assert case(text) == expected
    assert holds(text) == [value == 1 for value in expected]


TRUTHS: list[bool | None] = [True, False, None]
LEAVES = {True: "age == 1", False: "age == 2", None: "sex == 'girl'"}
ONE = Cohort.of({"age": np.array([1.0]), "sex": np.array([np.nan])})


def kleene(tree: Any) -> bool | None:
    """Kleene (1952): `and` is the least, `or` the greatest, of false < not known < true."""
    rank: dict[bool | None, int] = {False: 0, None: 1, True: 2}
    if not isinstance(tree, tuple):
        return tree
    if tree[0] == "not":
        value = kleene(tree[1])
        return None if value is None else not value
    choose: Callable[..., bool | None] = min if tree[0] == "and" else max
    return choose((kleene(part) for part in tree[1:]), key=lambda value: rank[value])


def written(tree: Any) -> str:
    if not isinstance(tree, tuple):
        return LEAVES[tree]
    if tree[0] == "not":
        return f"not ({written(tree[1])})"
    return f" {tree[0]} ".join(f"({written(part)})" for part in tree[1:])


trees = st.recursive(
    st.sampled_from(TRUTHS),
    lambda inner: (
        st.tuples(st.just("not"), inner)
        | st.tuples(st.sampled_from(["and", "or"]), inner, inner)
        | st.tuples(st.sampled_from(["and", "or"]), inner, inner, inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(tree=trees)
def test_any_nesting_follows_kleene(tree: Any) -> None:
    found = parse_filter(written(tree), COLUMNS).case(ONE)[0]
    assert (None if np.isnan(found) else bool(found)) == kleene(tree)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(width=64), max_size=10),
    name=st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    limit=st.floats(-1e9, 1e9) | st.integers(-(10**6), 10**6),
)
def test_a_comparison_is_the_patients_own(values: list[float], name: str, limit: float) -> None:
    act = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[name]
    expected = [not np.isnan(value) and bool(act(value, limit)) for value in values]
    cohort = Cohort.of({"age": np.array(values, dtype=np.float64)}, len(values))
    assert holds(f"age {name} {limit!r}", cohort) == expected
    assert [holds(f"age {name} {limit!r}", part)[0] for part in cohort.parts(1)] == expected


def test_a_filter_says_what_it_reads() -> None:
    found = parse_filter("  age > 2 and (sex == 'boy' or age < 1) ", COLUMNS)
    assert found.columns == ("age", "sex")
    assert found.text == "age > 2 and (sex == 'boy' or age < 1)"


def test_an_empty_cohort_has_an_empty_mask() -> None:
    assert holds("age > 2 or sex == 'boy'", COHORT.part(0, 0)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("agee > 2", ["'agee'", "not declared", "[columns.agee]"]),
        ("sex == 'girls'", ["'girls'", "'sex'", "['boy', 'girl']"]),
        ("sex > 'boy'", ["'sex'", "no order"]),
        ("sex == 1", ["not a level"]),
        ("age == 'old'", ["not a number", "years"]),
        ("age == True", ["not a number"]),
        ("age is 2", ["`is`"]),
        ("age in 3", ["list"]),
        ("age in {1, 2}", ["list"]),
        ("1 == 1", ["not a column"]),
        ("age", ["not allowed"]),
        ("age == bmi", ["not a number"]),
        ("age + 1 > 2", ["not a column"]),
        ("age >", ["not a condition"]),
        ("", ["not a condition"]),
        ("age > 1; age < 2", ["not a condition"]),
        ("age > 1\nage < 2", ["not a condition"]),
        ("a" * 2001, ["2001 characters"]),
    ],
)
def test_what_is_not_a_condition_is_named_with_a_fix(text: str, words: list[str]) -> None:
    with pytest.raises(Misuse) as caught:
        parse_filter(text, COLUMNS, "cases.tall.when")
    assert str(caught.value).startswith("cases.tall.when")
    assert all(word in str(caught.value) for word in words)


HOSTILE = {
    "import": "__import__('os').system('true')",
    "import in a comparison": "age == __import__('os').getpid()",
    "call": "print('run')",
    "call of a column": "age(1) == 1",
    "attribute": "age.__class__ == 1",
    "attributes": "().__class__.__bases__[0].__subclasses__() == age",
    "subscript": "age[0] == 1",
    "lambda": "(lambda: 1)() == age",
    "bare lambda": "lambda: age",
    "walrus": "(age := 5) == 5",
    "f-string": "f'{print(1)}' == sex",
    "f-string of a level": "sex == f'{\"boy\"}'",
    "comprehension": "age in [x for x in [1]]",
    "generator": "any(age for age in [1])",
    "starred": "age in [*[1]]",
    "conditional": "age == 1 if True else 2",
    "await": "await age",
    "yield": "(yield) == age",
    "power": "age == 9**9**9",
    "shift": "age == 1 << 10**9",
    "repeat": "sex == 'boy' * 10**10",
    "bytes": "sex == b'boy'",
    "none": "age == None",
    "ellipsis": "age == ...",
    "complex": "age == 1j",
    "chained constants": "1 < 2 < age",
    "unhashable": "age == {[]: 1}",
    "set of a list": "sex == {[1]}",
    "huge integer": "age < 1" + "0" * 400,
    "huge integer in a list": "age in [1" + "0" * 400 + "]",
    "null": "age == 1\0",
    "surrogate": "sex == '\ud800'",
    "parentheses": "(" * 100_000 + "age == 1" + ")" * 100_000,
    "parentheses within the length": "(" * 990 + "age == 1" + ")" * 990,
    "brackets": "age in " + "[" * 900 + "]" * 900,
    "minus signs": "age == " + "-" * 1500 + "1",
    "tildes": "~" * 1900 + "age",
    "sums": "+".join(["1"] * 900) + " == age",
    "bare sums": "+".join(["1"] * 900),
    "attribute chain": "age" + ".x" * 900,
    "subscript chain": "age" + "[0]" * 600,
    "call chain": "age" + "()" * 900,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_misuse_and_never_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **named: object) -> None:
        raise AssertionError("a condition ran")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(os, "getpid", never)
    monkeypatch.setattr(builtins, "eval", never)
    monkeypatch.setattr(builtins, "exec", never)
    monkeypatch.setattr(builtins, "print", never)
    with pytest.raises(Misuse) as caught:
        parse_filter(HOSTILE[name], COLUMNS)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(
    "text", ["not " * 480 + "age == 1", "(age<1or not " * 140 + "age<9" + ")" * 140, "(" * 90 + "age<9" + ")" * 90]
)
def test_what_was_parsed_can_be_evaluated_deep_in_a_stack(text: str) -> None:
    """A condition is parsed on approval, and evaluated after a debit, below other frames."""

    def below(frames: int) -> list[bool]:
        return below(frames - 1) if frames else found.mask(COHORT).tolist()

    try:
        found = parse_filter(text, COLUMNS)
    except Misuse:
        return
    assert below(300) == found.mask(COHORT).tolist()


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60) | st.text(alphabet="age sex=<>!()[]{}'\"andornti012.,:*-+\\\n", max_size=60))
def test_any_text_is_a_condition_or_misuse(text: str) -> None:
    try:
        found = parse_filter(text, COLUMNS)
    except Misuse:
        return
    assert found.mask(COHORT).shape == (6,)
