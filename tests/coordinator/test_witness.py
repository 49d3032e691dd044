"""The checkpoints: the newest is the one with the most spent."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from ahh_federated.coordinator import witness as module
from ahh_federated.coordinator.witness import Witness
from ahh_federated.errands import Checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "coordinator.db"


@pytest.fixture
def witness(path):
    with closing(Witness(path)) as witness:
        yield witness


def checkpoint(seq: int, spent: float | None = None, node: str = "SHA256:north", mark: str = "") -> Checkpoint:
    return Checkpoint(node, seq, mark or f"{seq:064x}", float(seq if spent is None else spent), 0.0, 1.0, 4.0, 1e-5, "signature")


def test_the_newest_of_each_node(witness):
    assert witness.latest("SHA256:north") is None and witness.all() == [] and witness.history("SHA256:north") == ()
    for seq in (2, 5, 3):
        witness.keep(checkpoint(seq))
    witness.keep(checkpoint(1, node="SHA256:east"))
    assert witness.latest("SHA256:north") == checkpoint(5)
    assert witness.all() == [checkpoint(1, node="SHA256:east"), checkpoint(5)]
    assert witness.history("SHA256:north") == (checkpoint(5), checkpoint(3), checkpoint(2))


def test_with_as_much_spent_the_higher_entry_is_newer(witness):
    witness.keep(checkpoint(5, 1.0))
    witness.keep(checkpoint(4, 1.0))
    assert witness.latest("SHA256:north") == checkpoint(5, 1.0)


def test_a_ledger_that_burned_what_it_lost_goes_on_from_a_lower_entry(witness):
    witness.keep(checkpoint(50, 10.0))
    burned = checkpoint(41, 10.1, mark="b" * 64)
    witness.keep(burned)
    assert witness.latest("SHA256:north") == burned
    for seq in range(42, 52):
        witness.keep(checkpoint(seq, 10.1 + seq, mark=f"{seq:062x}bb"))
    assert witness.latest("SHA256:north") == checkpoint(51, 61.1, mark=f"{51:062x}bb")
    assert {each.hash for each in witness.history("SHA256:north") if each.seq == 50} == {f"{50:064x}", f"{50:062x}bb"}


def test_the_same_again_changes_nothing(witness):
    witness.keep(checkpoint(5))
    witness.keep(replace(checkpoint(5), signature="another valid one"))
    assert witness.history("SHA256:north") == (checkpoint(5),)


def test_of_each_node_the_newest_are_kept(witness, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    witness.keep(checkpoint(1, node="SHA256:east"))
    for seq in (4, 1, 5, 2, 3):
        witness.keep(checkpoint(seq))
    assert [each.seq for each in witness.history("SHA256:north")] == [5, 4, 3]
    assert witness.latest("SHA256:east") == checkpoint(1, node="SHA256:east")


def test_they_survive_a_restart(path, witness):
    witness.keep(checkpoint(5))
    with closing(Witness(path)) as again:
        assert again.latest("SHA256:north") == checkpoint(5)
