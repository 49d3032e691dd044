"""`ahh node ...`: what an IT department and a data steward type, and what they read."""

from __future__ import annotations

import re
import sqlite3
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ahh_federated.cli.main import main
from ahh_federated.core.costs import Event
from ahh_federated.node.home import VARIABLE, NodeHome, open_home
from ahh_federated.node.memory import Memory, checkpoint
from ahh_federated.node.stewardship import decision, propose
from ahh_federated.study import canonical, open_study
from tests.study.samples import rows, small

TEXT = (Path(__file__).parents[1] / "study" / "small.toml").read_text()
STUDY = small()


class Node:
    """Types `ahh node ...` in a folder of its own, with a table and the study as files."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        rows(300).to_csv(folder / "north.csv", index=False)
        (folder / "growth.toml").write_text(TEXT)

    @property
    def home(self) -> NodeHome:
        return open_home(self.folder / "node")

    def __call__(self, *words: str, status: int = 0) -> str:
        self._capsys.readouterr()
        found = main(["node", *words])
        printed = self._capsys.readouterr()
        assert found == status, printed.out + printed.err
        return printed.err if status == 2 or "refused:" in printed.err else printed.out

    def propose(self) -> None:
        propose(self.home, canonical(STUDY.content), "harbour")


@pytest.fixture
def empty(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "node"))
    monkeypatch.setattr("getpass.getuser", lambda: "an")
    return Node(tmp_path, capsys)


@pytest.fixture
def ahh(empty: Node) -> Node:
    empty("init", "--name", "north")
    empty("connect", "north.csv", "--allow", "all")
    return empty


def test_init_shows_the_fingerprint_and_what_is_next(empty: Node) -> None:
    printed = empty("init", "--name", "north")
    assert empty.home.key.fingerprint in printed
    order = [printed.index(f"ahh node {verb}") for verb in ("join", "connect", "doctor", "serve")]
    assert order == sorted(order)
    assert "is a node already" in empty("init", "--name", "north", status=2)
    assert "PRIVATE" not in printed


def test_the_folder_can_be_named(empty: Node) -> None:
    empty("init", "--name", "south", "--home", "elsewhere")
    assert (empty.folder / "elsewhere" / "node.key").exists()
    assert "is no node: run `ahh node init`" in empty("studies", status=2)
    assert "no study was proposed yet" in empty("studies", "--home", "elsewhere")


def test_connect_reads_once_and_names_columns_only(empty: Node) -> None:
    empty("init", "--name", "north")
    printed = empty("connect", "north.csv")
    assert "north.csv: 300 rows, 7 columns: child, seen, sex, smoked, weight, bmi, name" in printed
    assert "no column yet" in printed
    assert empty.home.policy.columns == frozenset()
    assert "studies may touch bmi, sex" in empty("connect", "north.csv", "--allow", "sex, bmi")
    assert empty.home.policy.columns == {"sex", "bmi"}
    assert "bmi, sex" in empty("connect", "north.csv")
    assert "the table has no column 'bmj'" in empty("connect", "north.csv", "--allow", "bmj", status=2)
    assert empty.home.policy.columns == {"sex", "bmi"}
    assert "cannot be read" in empty("connect", "absent.csv", status=3)
    assert empty.home.source.path == empty.folder / "north.csv"


def test_connect_to_a_database(empty: Node) -> None:
    empty("init", "--name", "north")
    with sqlite3.connect(empty.folder / "a.db") as db:
        rows(50).to_sql("visits", db, index=False)
    db.close()
    (empty.folder / "query.sql").write_text("SELECT child, seen,\n  sex\nFROM visits\n")
    (empty.folder / "password").write_text("Zq7-s3cret")
    (empty.folder / "password").chmod(0o600)
    url = f"sqlite:///{empty.folder}/a.db"
    printed = empty(
        "connect", "--sql", url, "--query-file", "query.sql", "--password-file", "password", "--allow", "all", status=3
    )
    assert "does not answer" in printed  # SQLite has no accounts, and says so
    printed = empty("connect", "--sql", url, "--query-file", "query.sql", "--allow", "all")
    assert "50 rows, 3 columns: child, seen, sex" in printed
    assert empty.home.source.query == "SELECT child, seen,\n  sex\nFROM visits\n"
    assert "Zq7" not in empty.home.config_path.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "connect one table"),
        (["north.csv", "--sql", "sqlite://"], "connect one table"),
        (["north.csv", "--password-env", "X"], "a file needs no query and no password"),
        (["--sql", "sqlite:///a.db"], "--sql needs --query-file FILE"),
        (["--sql", "sqlite:///a.db", "--query-file", "absent"], "absent cannot be read"),
        (["--sql", "sqlite://u:p@/a.db", "--query-file", "growth.toml"], "the URL holds a password"),
        (["growth.toml"], "is not a table by its name"),
    ],
)
def test_connect_says_what_is_wrong_with_the_call(ahh: Node, words: list[str], says: str) -> None:
    before = ahh.home.config_path.read_text()
    assert says in ahh("connect", *words, status=2)
    assert ahh.home.config_path.read_text() == before


def test_check_has_a_line_for_each_fault(ahh: Node) -> None:
    assert "give a study file" in ahh("check")
    assert f"growth ({STUDY.digest[:12]}): ok" in ahh("check", "growth.toml")
    rows(300).assign(weight="3200").drop(columns="bmi").to_csv("north.csv", index=False)
    ahh.propose()
    for words in (["check"], ["check", "growth"], ["check", "growth.toml"]):
        printed = ahh(*words, status=3)
        assert "MEND: the table lacks the column 'bmi'" in printed
        assert "MEND: 'weight': 300 of 300 known values are outside 0.5 to 5.5 kg" in printed
        assert "they look like g" in printed
    assert "no study 'nothing' was proposed here" in ahh("check", "nothing", status=2)


def test_a_fault_that_stops_nothing_is_no_failure(ahh: Node) -> None:
    frame = rows(300)
    frame.loc[0, "bmi"] = "-7"
    frame.to_csv("north.csv", index=False)
    Path("north.csv").write_text(Path("north.csv").read_text() + "short,row\n")
    printed = ahh("check", "growth.toml")
    assert "look: north.csv: 1 rows have more or fewer cells" in printed
    assert "look: 'bmi': 1 of 300 known values are outside" in printed


def test_inspect_says_it_in_plain_words(ahh: Node) -> None:
    ahh.propose()
    printed = ahh("inspect", "growth")
    expected = [
        "Growth of children (growth, version 1)",
        STUDY.digest,
        "through harbour on",
        "A researcher, A university",
        "fictitious-1",
        "Find children who would gain from early help.",
        "2030-12-31; after that day this node refuses",
        "weight: 0.5 to 5.5 kg, what is outside counts as not known; not known: 999",
        "smoked: no, yes, stopped; not known: unknown",
        "heavy, made from these: Heavy for the age; yes where bmi >= 20",
        "child tells patients apart and is not analysed; of several rows the last by seen counts",
        "6 asks, 9 messages",
        "how many patients, by sex by fold; of patients where weight >= 1.5 or not smoked == 'yes'; 1 message",
        "sums from which a model of heavy is fitted, with sex, weight, smoked; of patients where fold == 'train'; 4 messages",
        "how many patients, by what the model predicts and by heavy",
        "epsilon 2 at delta 1e-06, for this study alone",
        "of the data set's budget, epsilon 4 at delta 1e-05, 0 is spent; after it 1.",
        "The policy of this node forbids nothing in it.",
        "Nobody has decided yet: `ahh node approve growth`",
    ]
    flat = " ".join(printed.split())
    assert [words for words in expected if words not in flat] == []
    assert max(map(len, printed.splitlines())) <= 105


def test_inspect_warns(ahh: Node) -> None:
    ahh("connect", "north.csv", "--allow", "sex")
    rules = ahh.home.policy_path
    rules.write_text(rules.read_text().replace("epsilon = 4", "epsilon = 1"))
    printed = " ".join(ahh("inspect", "growth.toml").split())
    assert "MORE THAN THERE IS" in printed
    assert "The policy of this node forbids it: it asks for columns outside the policy" in printed


def test_a_budget_that_is_not_enough_is_told(ahh: Node) -> None:
    ahh.propose()
    rules = ahh.home.policy_path
    enough = rules.read_text()
    assert "WARNING" not in ahh("approve", "growth")
    for epsilon, which in ((1, "some of its questions"), (0.1, "every new question of it")):
        rules.write_text(enough.replace("epsilon = 4", f"epsilon = {epsilon}"))
        said = " ".join(ahh("inspect", "growth").split())
        assert f"epsilon {epsilon:g} at delta 1e-05, 0 is spent; after it 1." in said
        assert f"MORE THAN THERE IS, so {which} will be refused, unless the data steward raises budget.epsilon" in said
        warned = ahh("approve", "growth")
        assert "approved growth" in warned
        assert f"WARNING: of the data set's budget, epsilon {epsilon:g} at delta 1e-05, 0 is spent" in warned
        assert f"so {which} will be refused" in warned
    ahh.home.ledger_path.unlink()
    assert "WARNING: whether the budget is enough cannot be told: " in ahh("approve", "growth")


def test_the_two_deltas_are_told_apart(ahh: Node) -> None:
    ahh.propose()
    words = "the two are at different deltas: the same noise is a smaller epsilon at a larger delta"
    assert words in " ".join(ahh("inspect", "growth").split())
    rules = ahh.home.policy_path
    rules.write_text(rules.read_text().replace("delta = 1e-05", "delta = 1e-06"))
    assert words not in " ".join(ahh("inspect", "growth").split())


def test_a_study_cannot_forge_a_line_of_the_page(ahh: Node) -> None:
    title = 'title = "Growth\\nThe policy of this node forbids nothing in it.\\nIt was approved by Bo"'
    Path("forged.toml").write_text(TEXT.replace('title = "Growth of children"', title))
    printed = ahh("inspect", "forged.toml").splitlines()
    assert not any(line.startswith("It was approved") for line in printed)
    assert sum(line.startswith("The policy of this node forbids nothing") for line in printed) == 1


def test_approve_refuse_revoke(ahh: Node) -> None:
    ahh.propose()
    assert "waits for you" in ahh("studies")
    assert "approved growth" in ahh("approve", "growth")
    printed = ahh("approve", "growth", "--ceiling", "1.5", "--until", "2029-06-30", "--by", "Dr An")
    assert "up to epsilon 1.5 until 2029-06-30" in printed
    assert "beyond the ceiling its questions will be refused" in printed
    made = decision(ahh.home, STUDY.digest)
    assert made is not None
    assert (made.verdict, made.ceiling, made.expires.isoformat(), made.by) == ("approved", 1.5, "2029-06-30", "Dr An")
    assert "approved, up to epsilon 1.5, until 2029-06-30" in ahh("studies")
    assert f"It was approved by Dr An on {datetime.now(UTC).date()}, up to epsilon 1.5 and 2029-06-30." in ahh(
        "inspect", "growth"
    )
    assert "revoked growth" in ahh("revoke", "growth")
    assert "nothing to revoke" in ahh("revoke", "growth", status=2)
    assert "refused growth" in ahh("refuse", "growth")
    assert ": refused" in ahh("studies")
    assert [entry["event"] for entry in ahh.home.audit.entries()][-4:] == ["approved", "approved", "revoked", "refused"]


def test_a_study_can_be_approved_before_it_comes(ahh: Node) -> None:
    ahh("approve", "growth.toml")
    assert "from a file" in ahh("studies")
    ahh.propose()
    assert "through harbour" in ahh("studies")
    assert "approved" in ahh("studies")


def test_what_the_policy_forbids_is_not_approved(ahh: Node) -> None:
    ahh.propose()
    ahh("connect", "north.csv", "--allow", "sex")
    assert "outside the policy" in ahh("approve", "growth", status=3)
    assert decision(ahh.home, STUDY.digest) is None


@pytest.mark.parametrize(
    "words", [["approve", "growth", "--until", "tomorrow"], ["approve", "growth", "--ceiling", "much"], ["fly"], []]
)
def test_wrong_calls_exit_with_two(ahh: Node, words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["node", *words])
    assert left.value.code == 2


def test_optout_says_how_many_and_not_who(ahh: Node) -> None:
    Path("a.txt").write_text("Zq7canary\n\n p1-3 \n")
    Path("b.txt").write_text("p1-4\np1-3\n")
    assert "2 pseudonyms read; 2 are on the list" in (first := ahh("optout", "a.txt"))
    assert "2 pseudonyms read; 3 are on the list" in (second := ahh("optout", "b.txt"))
    assert ahh.home.optouts == {"Zq7canary", "p1-3", "p1-4"}
    assert "Zq7" not in first + second + ahh("audit", "show") + ahh("check", "growth.toml")
    assert "absent.txt cannot be read" in ahh("optout", "absent.txt", status=2)


def test_optout_says_how_many_are_in_the_table(ahh: Node) -> None:
    known = sorted(set(rows(300)["child"].astype(str)))
    Path("strangers.txt").write_text("Zq7canary\nchild\n")
    Path("some.txt").write_text(f"{known[0]}\n{known[1]}\nZq7canary\n")
    assert "in the table" not in ahh("optout", "some.txt")  # which column has the keys, no study has said
    ahh.propose()
    assert "0 of 2 are in the table, in its column 'child'" in ahh("optout", "strangers.txt")
    assert "2 of 3 are in the table, in its column 'child'" in ahh("optout", "some.txt")
    Path("north.csv").unlink()
    assert "in the table" not in ahh("optout", "some.txt")


def test_a_table_is_no_list_of_pseudonyms(ahh: Node) -> None:
    """Or whole rows of patients would be copied into the list, and nobody left out."""
    said = ahh("optout", "north.csv", status=2)
    assert "line 1 holds a comma" in said
    assert rows(300)["name"].iloc[0] not in said
    assert not ahh.home.optout_path.exists()
    assert "optout" not in [entry["event"] for entry in ahh.home.audit.entries()]


def test_pause_and_resume(ahh: Node) -> None:
    assert "answers nothing until" in ahh("pause")
    assert ahh.home.paused
    ahh("resume")
    assert not ahh.home.paused
    assert [entry["event"] for entry in ahh.home.audit.entries()][-2:] == ["pause", "resume"]


def test_ledger_show_verify_export(ahh: Node) -> None:
    assert "of 4 at delta 1e-05" in ahh("ledger", "show")
    assert "whole: 1 entries are sound" in ahh("ledger", "verify")
    ahh("ledger", "export", "a.jsonl")
    ahh("ledger", "export", "a.csv", "--csv")
    assert '"kind": "budget"' in Path("a.jsonl").read_text()
    assert Path("a.csv").read_text().startswith("seq,kind,time,")
    assert "a.csv exists" in ahh("ledger", "export", "a.csv", status=2)
    ahh.home.ledger_path.unlink()
    assert "ledger.db is gone" in ahh("ledger", "show", status=3)


def test_ledger_recover_burns_what_a_backup_forgot(ahh: Node) -> None:
    assert "nothing to recover" in ahh("ledger", "recover", status=2)
    home, event = ahh.home, Event(1 << 20, 1 << 22, 1)
    backup = home.ledger_path.read_bytes()
    with home.ledger() as ledger:
        ledger.debit(request="r", study="s", ask="a", query="q", event=event, ceiling=home.policy.budget)
        shown = checkpoint(ledger, home.policy, home.key)
    for path in home.path.glob("ledger.db*"):
        path.unlink()
    home.ledger_path.write_bytes(backup)
    home.ledger_path.chmod(0o600)
    with home.ledger() as ledger, pytest.raises(Exception, match="older copy"):
        Memory(home.witness_path, home.key).require(ledger, [shown])
    propose(home, canonical(STUDY.content), "harbour")
    ahh("approve", "growth")
    said = ahh("ledger", "recover")
    made = decision(home, STUDY.digest)
    assert "revoked the approval of growth" in said and made is not None and made.verdict == "revoked"
    burned = re.search(r"burned epsilon ([\d.]+) that this ledger forgot; ([\d.]+) of 4 is spent", said)
    assert burned
    with home.ledger() as ledger:
        assert ledger.spent().epsilon(shown.delta_limit) >= shown.epsilon
    assert "whole" in ahh("ledger", "verify")
    assert [entry["event"] for entry in home.audit.entries()][-2:] == ["recover", "revoked"]


def test_audit_show_and_verify(ahh: Node) -> None:
    assert re.search(r"1 20\d\d-\S+ init node=north fingerprint=SHA256:", ahh("audit", "show"))
    assert "audit.jsonl: whole: 2 events are sound" in ahh("audit", "verify")
    path = ahh.home.audit_path
    path.write_text(path.read_text().replace("north", "south"))
    assert "audit.jsonl: BROKEN: line 1 was changed" in ahh("audit", "verify", status=3)


def test_doctor_ends_with_three_until_all_is_well(ahh: Node) -> None:
    printed = ahh("doctor", status=3)
    assert "ok   ledger" in printed
    assert "MEND consortia    none joined" in printed


def test_service_prints_a_unit(ahh: Node) -> None:
    printed = ahh("service", "--user", "hospital")
    assert "User=hospital\n" in printed
    assert f"Environment=AHH_NODE_HOME={ahh.home.path}\n" in printed


def test_incident_packs_a_bundle(ahh: Node) -> None:
    assert "it holds no patient's value" in ahh("incident", "--out", "i.zip")
    with zipfile.ZipFile("i.zip") as bundle:
        assert "audit.jsonl" in bundle.namelist()
    ahh("incident")
    assert len(list(Path().glob("incident-north-*.zip"))) == 1


def test_leave_is_for_members(ahh: Node) -> None:
    assert "is not in a consortium 'harbour'" in ahh("leave", "harbour", status=2)


def test_join_needs_an_invitation(ahh: Node) -> None:
    assert "ahh:" in ahh("join", "growth.toml", status=2)


def test_the_small_study_is_the_file(ahh: Node) -> None:
    assert open_study("growth.toml").digest == STUDY.digest
