"""A cohort stays where it was loaded, shows nothing, and cannot be changed."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import numpy as np
import pytest

from ahh_federated.core.cohorts import Cohort

VALUES = np.array([31.25, 47.5, np.nan])


@pytest.fixture
def cohort() -> Cohort:
    return Cohort.of({"age": VALUES.copy(), "sex": np.array([0.0, 1.0, 1.0])})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_cohort_cannot_be_pickled(cohort: Cohort, protocol: int) -> None:
    for thing in (cohort, [cohort], {"cohort": cohort}, cohort.part(0, 1)):
        with pytest.raises(TypeError, match="never leaves"):
            pickle.dumps(thing, protocol)


def test_a_cohort_cannot_be_copied_or_dumped(cohort: Cohort) -> None:
    for act in (copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            act(cohort)


def test_a_cohort_shows_nothing(cohort: Cohort) -> None:
    for text in (repr(cohort), str(cohort), f"{cohort}", f"{[cohort]}", f"{cohort!r:>20}"):
        assert "31" not in text
        assert "age" not in text
        assert "3" not in text


def test_an_error_shows_no_value(cohort: Cohort) -> None:
    try:
        _ = cohort["weight"]
    except KeyError as error:
        assert "31" not in "".join(traceback.format_exception(error))
    else:
        pytest.fail("a column that is not there was found")


def test_a_cohort_cannot_be_changed(cohort: Cohort) -> None:
    with pytest.raises(AttributeError):
        cohort.size = 4
    with pytest.raises(TypeError):
        cohort.columns["age"] = VALUES
    for part in (cohort, cohort.part(0, 2)):
        with pytest.raises(ValueError, match="read-only"):
            part["age"][0] = 1.0


def test_loading_leaves_the_callers_array_as_it_was() -> None:
    values = VALUES.copy()
    cohort = Cohort.of({"age": values})
    assert values.flags.writeable
    values[0] = 99.0
    assert cohort["age"][0] == 31.25


def test_parts_are_the_whole(cohort: Cohort) -> None:
    for rows in (1, 2, 3, 10):
        parts = list(cohort.parts(rows))
        assert sum(len(part) for part in parts) == len(cohort)
        assert all(len(part["age"]) == len(part) for part in parts)
        assert np.array_equal(np.concatenate([part["age"] for part in parts]), VALUES, equal_nan=True)
    assert list(cohort.part(0, 0).parts(5)) == []


def test_keep_keeps_whole_patients(cohort: Cohort) -> None:
    kept = cohort.keep(np.array([True, False, True]))
    assert len(kept) == 2
    assert np.array_equal(kept["age"], [31.25, np.nan], equal_nan=True)
    assert kept["sex"].tolist() == [0.0, 1.0]


def test_patients_without_columns_can_be_counted() -> None:
    assert len(Cohort.of({}, 7)) == 7
    assert [len(part) for part in Cohort.of({}, 7).parts(3)] == [3, 3, 1]


@pytest.mark.parametrize(
    ("columns", "size"),
    [({"a": [1.0], "b": [1.0, 2.0]}, None), ({"a": [1.0]}, 2), ({}, None), ({"a": [[1.0, 2.0]]}, None)],
)
def test_columns_of_different_lengths_are_refused(columns: dict[str, list[float]], size: int | None) -> None:
    with pytest.raises(ValueError, match="one length"):
        Cohort.of({name: np.array(values) for name, values in columns.items()}, size)


def test_any_real_type_becomes_float64() -> None:
    for kind in (np.int64, np.float32, np.bool_, np.uint8):
        held = Cohort.of({"a": np.array([0, 1, 1], dtype=kind)})["a"]
        assert held.dtype == np.float64
        assert held.tolist() == [0.0, 1.0, 1.0]
