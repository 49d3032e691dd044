"""The checkpoints: of each node one, and the newest is the one with the most spent."""

from __future__ import annotations

import itertools
from contextlib import closing
from dataclasses import replace

import pytest

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
    return Checkpoint(
        node=node,
        public="ecdsa-sha2-nistp256 AAAA",
        seq=seq,
        hash=mark or f"{seq:064x}",
        ancestors=((seq - 1, f"{seq - 1:016x}"),),
        mu_squared=float(seq if spent is None else spent),
        slack=0.0,
        epsilon=1.0,
        epsilon_limit=4.0,
        delta_limit=1e-5,
        signature="signature",
    )


def test_the_newest_of_each_node(witness):
    assert witness.latest("SHA256:north") is None and witness.all() == ()
    for seq in (2, 5, 3):
        witness.keep(checkpoint(seq))
    witness.keep(checkpoint(1, node="SHA256:east"))
    assert witness.latest("SHA256:north") == checkpoint(5)
    assert witness.all() == (checkpoint(1, node="SHA256:east"), checkpoint(5))


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
    witness.keep(checkpoint(50, 10.0))
    assert witness.all() == (checkpoint(51, 61.1, mark=f"{51:062x}bb"),)


def test_the_same_again_changes_nothing(witness):
    """A node signs anew whenever it is asked, whether its ledger has moved or not."""
    witness.keep(checkpoint(5))
    witness.keep(replace(checkpoint(5), signature="another valid one"))
    assert witness.all() == (checkpoint(5),)


def test_in_whatever_order_they_come_the_same_one_is_kept(tmp_path):
    marks = [checkpoint(4, 2.0), checkpoint(5, 1.0), checkpoint(5, 2.0, mark="a" * 64), checkpoint(5, 2.0, mark="c" * 64)]
    for number, order in enumerate(itertools.permutations(marks)):
        with closing(Witness(tmp_path / f"{number}.db")) as witness:
            for each in order:
                witness.keep(each)
            assert witness.all() == (marks[3],)


def test_they_survive_a_restart(path, witness):
    witness.keep(checkpoint(5))
    with closing(Witness(path)) as again:
        assert again.latest("SHA256:north") == checkpoint(5)
