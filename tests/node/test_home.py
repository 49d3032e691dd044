"""A node's folder: made once, its owner's alone, and never a fresh budget by accident."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.identity import fingerprint
from ahh_federated.node.home import VARIABLE, Consortium, NodeHome, create_home, default_home, open_home, pseudonyms
from ahh_federated.node.policy import allow
from ahh_federated.node.sources import file_source

HARBOUR = Consortium("harbour", "zas", "node.example:8443", "PEM\n", {"zas": "SHA256:a", "ü x": "SHA256:b"})


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    return create_home(tmp_path / "deep" / "node", "hospital-zas")


def test_a_fresh_node_has_everything_and_allows_nothing(home: NodeHome) -> None:
    names = {path.name for path in home.path.iterdir()}
    assert names == {"node.toml", "node.key", "node.pub", "policy.toml", "ledger.db", "audit.jsonl", "studies", "consortia"}
    assert home.name == "hospital-zas"
    assert home.policy.columns == frozenset()
    assert home.policy.data == "real"
    assert home.consortia() == {}
    assert home.optouts == frozenset()
    assert not home.paused
    assert fingerprint(home.public_path.read_text().rpartition(" ")[0]) == home.key.fingerprint
    assert [entry["event"] for entry in home.audit.entries()] == ["init"]
    with home.ledger() as ledger:
        assert [entry.kind for entry in ledger.entries()] == ["budget"]
    with pytest.raises(Misuse, match="ahh node connect TABLE"):
        _ = home.source


def test_everything_is_its_owners_alone(home: NodeHome) -> None:
    home.add_consortium(HARBOUR)
    home.add_optouts(["a"])
    home.pause()
    for path in [home.path, *home.path.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.name not in ("node.pub", "policy.toml"):
            assert mode == (0o700 if path.is_dir() else 0o600), path
        assert not mode & 0o022


def test_settings_have_comments(home: NodeHome) -> None:
    for path in (home.config_path, home.policy_path):
        assert path.read_text().count("# ") >= 4


def test_a_node_is_made_once(home: NodeHome) -> None:
    key = home.key_path.read_bytes()
    with pytest.raises(Misuse, match="is a node already"):
        create_home(home.path, "other")
    assert home.key_path.read_bytes() == key


@pytest.mark.parametrize("left", ["node.key", "anything"])
def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("x")
    with pytest.raises(Misuse, match="is not empty, and no node"):
        create_home(tmp_path, "north")
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_an_empty_folder_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    create_home(tmp_path, "north")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["zone zuid", "../up", "a" * 65, "1st", "x\n"])
def test_a_name_that_is_none_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Misuse, match="is not a name"):
        create_home(tmp_path / "node", name)
    assert not (tmp_path / "node").exists()


def test_the_machines_name_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "north.hospital.example")
    assert create_home(tmp_path / "node").name == "north"


def test_no_node_is_told_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="is no node: run `ahh node init`"):
        open_home(tmp_path)


def test_where_the_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "here"))
    assert default_home() == tmp_path / "here"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home() == tmp_path / ".ahh" / "node"


def test_a_ledger_that_is_gone_is_no_fresh_budget(home: NodeHome) -> None:
    home.ledger_path.unlink()
    with pytest.raises(Refusal, match=r"ledger\.db is gone: put back a copy") as caught:
        home.ledger()
    assert caught.value.reason == Reason.LEDGER
    assert not home.ledger_path.exists()


def test_another_name_is_no_fresh_budget(home: NodeHome) -> None:
    home.config_path.write_text(home.config_path.read_text().replace("hospital-zas", "hospital-new"))
    with pytest.raises(Refusal, match="the file is the ledger of data set 'hospital-zas'"):
        home.ledger()


def test_rules_that_are_gone_are_no_default(home: NodeHome) -> None:
    home.policy_path.unlink()
    with pytest.raises(Misuse, match=r"policy\.toml is gone"):
        _ = home.policy
    assert not home.policy_path.exists()


def test_a_changed_budget_holds_from_then_on(home: NodeHome) -> None:
    home.policy_path.write_text(home.policy_path.read_text().replace("epsilon = 4", "epsilon = 2.5"))
    with home.ledger() as ledger:
        assert [entry.epsilon for entry in ledger.entries()] == [4.0, 2.5]


def test_a_table_is_connected_again_and_again(home: NodeHome, tmp_path: Path) -> None:
    for name in ("a.csv", "b.parquet"):
        home.connect(file_source(tmp_path / name))
        assert home.source.path == tmp_path / name
    text = home.config_path.read_text()
    assert "# Where the patients' table is" in text
    assert tomllib.loads(text) == {"name": "hospital-zas", "data": {"path": str(tmp_path / "b.parquet")}}


def test_allowing_columns_keeps_the_rest_of_the_rules(home: NodeHome) -> None:
    before = home.policy_path.read_text()
    allow(home.policy_path, ["sex", "bmi"])
    assert home.policy.columns == {"sex", "bmi"}
    assert home.policy_path.read_text() == before.replace("allowed = []", 'allowed = ["sex", "bmi"]')


def test_consortia_are_joined_and_left(home: NodeHome) -> None:
    other = Consortium("city", "zas-2", "[::1]:1", "PEM", {}, "2026-01-01T00:00:00+00:00", "the city")
    home.add_consortium(HARBOUR)
    home.add_consortium(other)
    assert home.consortia() == {"harbour": HARBOUR, "city": other}
    home.node_id_path("city").write_text("7")
    home.remove_consortium("city")
    assert home.consortia() == {"harbour": HARBOUR}
    assert {path.name for path in home.consortia_folder.iterdir()} == {"harbour.toml", "harbour.ca.pem"}
    with pytest.raises(Misuse, match="is not in a consortium 'city': it is in harbour"):
        home.remove_consortium("city")
    for name in ("../city", "a/b", ""):
        with pytest.raises(Misuse):
            home.node_id_path(name)
        with pytest.raises(Misuse):
            home.add_consortium(Consortium(name, "p", "a:1", "x"))


def test_a_consortium_without_its_authority_is_told(home: NodeHome) -> None:
    home.add_consortium(HARBOUR)
    (home.consortia_folder / "harbour.ca.pem").unlink()
    with pytest.raises(Misuse, match=r"harbour\.ca\.pem .* ask the coordinator for a new invitation"):
        home.consortia()


def test_opt_outs_are_merged(home: NodeHome) -> None:
    assert home.add_optouts(["b", "a"]) == 2
    assert home.add_optouts(["c", "a"]) == 3
    assert home.optouts == {"a", "b", "c"}
    assert home.optout_path.read_text() == "a\nb\nc\n"


@pytest.mark.parametrize("line", ["Zq7,girl,3200", "Zq7;girl", "Zq7\tgirl", '"Zq7"', "'Zq7'", "name = 1", "Zq7=girl", ","])
def test_what_is_no_pseudonym_is_refused(home: NodeHome, line: str) -> None:
    path = home.path.parent / "given.txt"
    path.write_text(f"p1\n\n{line}\np2\n")
    with pytest.raises(Misuse, match=r"given\.txt: line 3 holds a comma.*one pseudonym a line") as caught:
        pseudonyms(path)
    assert "Zq7" not in str(caught.value)


def test_pseudonyms_in_base64_hexadecimal_and_with_dashes(home: NodeHome) -> None:
    path = home.path.parent / "given.txt"
    path.write_text("\ufeffq83vASM=\r\nq83v/+==\r\n00ffA1\n  child-7/2:b  \n\n")
    assert pseudonyms(path) == ["q83vASM=", "q83v/+==", "00ffA1", "child-7/2:b"]


def test_pausing_lasts_until_it_is_ended(home: NodeHome) -> None:
    home.resume()
    home.pause()
    home.pause()
    assert NodeHome(home.path).paused
    home.resume()
    assert not home.paused
