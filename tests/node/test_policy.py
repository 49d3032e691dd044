"""The node's own rules: written once with comments, read strictly, never guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ahh_federated.core.costs import Budget
from ahh_federated.errors import Misuse
from ahh_federated.node.policy import Policy, allow, read_policy, write_policy
from tests.study.samples import small

GOOD = "[budget]\nepsilon = 4\ndelta = 1e-5\n\n[cohort]\nminimum = 10\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules" / "policy.toml"


def complaint(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Misuse) as caught:
        read_policy(path)
    assert "policy.toml" in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_written_with_comments_and_read_back(path: Path) -> None:
    assert read_policy(path) == Policy() == Policy(Budget(4.0, 1e-5), 10)
    text = path.read_text(encoding="utf-8")
    assert "Raising it is the data steward's decision" in text
    assert read_policy(path) == Policy()
    assert path.read_text(encoding="utf-8") == text


def test_what_the_steward_wrote_holds(path: Path) -> None:
    path.parent.mkdir()
    written = "\ufeff# Règles\r\n" + GOOD.replace("\n", "\r\n").replace("epsilon = 4", "epsilon = 1.5").replace("10", "25")
    path.write_bytes(written.encode())
    assert read_policy(path) == Policy(Budget(1.5, 1e-5), 25)
    assert path.read_bytes() == written.encode()


BAD = {
    "no-budget": (GOOD.replace("[budget]", "[budge]"), "budget is missing, and budge looks like it: add a line [budget]"),
    "no-cohort": (GOOD.replace("[cohort]", "[cohorts]"), "cohort is missing, and cohorts looks like it: add a line [cohort]"),
    "no-epsilon": (GOOD.replace("epsilon = 4\n", ""), "budget.epsilon is missing: add it, for example epsilon = 1.0"),
    "no-delta": (GOOD.replace("delta = 1e-5\n", ""), "budget.delta is missing"),
    "no-minimum": (GOOD.replace("minimum = 10\n", ""), "cohort.minimum is missing"),
    "near-miss": (GOOD + "minimun = 10\n", "cohort.minimun is not a known key: did you mean minimum?"),
    "unknown-table": (GOOD + "[approve]\nall = true\n", "approve is not a known key"),
    "epsilon-zero": (GOOD.replace("epsilon = 4", "epsilon = 0"), "budget.epsilon is not a number above 0.001 and up to 10"),
    "epsilon-infinite": (GOOD.replace("epsilon = 4", "epsilon = inf"), "budget.epsilon is not a number above 0.001 and up to 10"),
    "epsilon-nan": (GOOD.replace("epsilon = 4", "epsilon = nan"), "budget.epsilon is not a number above 0.001 and up to 10"),
    "epsilon-huge": (GOOD.replace("epsilon = 4", "epsilon = 1" + "0" * 400), "budget.epsilon is not a number above 0.001"),
    "epsilon-text": (GOOD.replace("epsilon = 4", 'epsilon = "4"'), "budget.epsilon is not a number above 0.001 and up to 10"),
    "epsilon-flag": (GOOD.replace("epsilon = 4", "epsilon = true"), "budget.epsilon is not a number above 0.001 and up to 10"),
    "delta-one": (GOOD.replace("delta = 1e-5", "delta = 1"), "budget.delta is not a number above 1e-15 and up to 0.01"),
    "delta-tiny": (GOOD.replace("delta = 1e-5", "delta = 1e-20"), "budget.delta is not a number above 1e-15 and up to 0.01"),
    "minimum-half": (GOOD.replace("= 10", "= 10.5"), "cohort.minimum is not a whole number from 1 to 1000000"),
    "minimum-zero": (GOOD.replace("= 10", "= 0"), "cohort.minimum is not a whole number from 1 to 1000000"),
    "not-a-table": ("budget = 4\n" + GOOD.partition("\n\n")[2], "budget is not a table"),
    "not-toml": ("epsilon: 4\n", "is not valid TOML: mend it, or put the steward's copy back"),
    "not-utf8": (GOOD.encode() + b"# r\xe8gles\n", "is not valid TOML"),
    "too-many-digits": (GOOD.replace("= 10", "= " + "9" * 5000), "is not valid TOML"),
    "empty": ("", "budget is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_rule_that_cannot_be_read_is_never_a_default(name: str, path: Path) -> None:
    text, says = BAD[name]
    assert says in complaint(path, text)


def test_a_folder_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(Misuse, match=r"policy\.toml cannot be opened \(Is a directory\)"):
        read_policy(path)


def test_a_file_where_its_folder_should_be(path: Path) -> None:
    path.parent.write_text("")
    with pytest.raises(Misuse, match=r"policy\.toml cannot be opened"):
        read_policy(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_rights(path: Path) -> None:
    read_policy(path)
    path.chmod(0)
    with pytest.raises(Misuse, match="Permission denied"):
        read_policy(path)


NETWORK = GOOD + '\n[columns]\nallowed = ["sex", "bmi"]\n\n[requesters]\norganisations = ["A university"]\n'


def test_columns_and_organisations(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(NETWORK)
    policy = read_policy(path)
    assert policy.columns == {"sex", "bmi"}
    assert policy.organisations == ("A university",)
    assert policy.forbidden(small()) == ["smoked", "weight", "seen"]
    assert policy.objections(small()) == [
        "it asks for columns outside the policy (smoked, weight, seen): add them to columns.allowed in policy.toml"
    ]
    elsewhere = small(('organisation = "A university"', 'organisation = "A firm"'))
    assert [each[:33] for each in policy.objections(elsewhere)][1:] == ["the organisation 'A firm' may not"]


def test_without_the_tables_all_columns_and_any_organisation(path: Path) -> None:
    policy = read_policy(path)
    assert policy.objections(small()) == policy.forbidden(small()) == []


def test_a_nodes_first_rules_allow_no_column(path: Path) -> None:
    write_policy(path, allowed=())
    policy = read_policy(path)
    assert (policy.data, policy.columns, policy.organisations) == ("real", frozenset(), ())
    assert policy.forbidden(small()) == ["sex", "smoked", "weight", "bmi", "seen"]
    allow(path, ['odd "name"', "bmi"])
    assert read_policy(path).columns == {'odd "name"', "bmi"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NETWORK.replace("allowed", "alowed"), "columns.allowed is missing"),
        (NETWORK.replace('["sex", "bmi"]', '"all"'), "columns.allowed is not a list of texts"),
        (NETWORK.replace("organisations", "organisation"), "requesters.organisation is not a known key"),
        (NETWORK.replace("[requesters]", "[requester]"), "requester is not a known key: did you mean requesters?"),
    ],
)
def test_a_list_that_cannot_be_read_is_never_all(path: Path, text: str, says: str) -> None:
    assert says in complaint(path, text)
