"""Partners and researchers: tokens are spent once, keys never come back."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from ahh_federated.coordinator import roster as module
from ahh_federated.coordinator.roster import Roster
from ahh_federated.errors import Breach, Misuse, Unreachable
from ahh_federated.identity import Key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "coordinator.db"


@pytest.fixture
def roster(path):
    with closing(Roster(path)) as roster:
        yield roster


@pytest.fixture
def key(tmp_path):
    made = []

    def make() -> Key:
        made.append(Key.create(tmp_path / f"{len(made)}.key"))
        return made[-1]

    return make


def test_an_invited_key_joins(roster, key):
    mine = key()
    partner = roster.enrol(roster.invite("hospital-zas"), mine.public)
    assert (partner.name, partner.public, partner.fingerprint, partner.revoked) == (
        "hospital-zas",
        mine.public,
        mine.fingerprint,
        False,
    )
    assert roster.partners() == [partner] and roster.partner_of(mine.fingerprint) == partner
    assert roster.partner_of("SHA256:nobody") is None
    assert roster.invited() == []


def test_a_token_is_spent_by_one_key_which_may_ask_again(roster, key):
    mine, token = key(), roster.invite("hospital-zas")
    partner = roster.enrol(token, mine.public)
    assert roster.enrol(token, mine.public) == partner  # the answer was lost
    with pytest.raises(Misuse, match="used by another key"):
        roster.enrol(token, key().public)
    assert roster.partners() == [partner]


def test_of_many_joins_at_once_exactly_one_wins(path, roster, key):
    token = roster.invite("hospital-zas")
    keys = [key() for _ in range(12)]
    start, won, lost = threading.Barrier(len(keys)), [], []

    def enrol(mine: Key) -> None:
        with closing(Roster(path)) as own:  # a connection of its own, as another process has
            start.wait()
            try:
                won.append(own.enrol(token, mine.public))
            except Misuse as error:
                lost.append(str(error))

    threads = [threading.Thread(target=enrol, args=(mine,)) for mine in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(lost) == len(keys) - 1
    assert roster.partners() == won


@pytest.mark.parametrize("token", ["", "x", "a" * 43, "\ud800", "é" * 100, "' OR 1=1 --", "x" * 10_000])
def test_an_unknown_token_admits_nobody(roster, key, token):
    roster.invite("hospital-zas")
    with pytest.raises(Misuse, match="not known"):
        roster.enrol(token, key().public)
    assert roster.partners() == [] and roster.researcher(token) is None


def test_an_invitation_expires(roster, key, monkeypatch):
    token = roster.invite("hospital-zas", hours=1)
    monkeypatch.setattr(module, "now", lambda: "9999-01-01T00:00:00.000+00:00")
    with pytest.raises(Misuse, match="expired at"):
        roster.enrol(token, key().public)
    assert [guest.expired for guest in roster.invited()] == [True]


@pytest.mark.parametrize("hours", [0, -1, 721, float("nan"), float("inf")])
def test_hours_out_of_bounds(roster, hours):
    with pytest.raises(Misuse, match="outside"):
        roster.invite("hospital-zas", hours)
    assert roster.invited() == []


def test_inviting_again_withdraws_the_earlier_invitation(roster, key):
    first, second = roster.invite("hospital-zas"), roster.invite("hospital-zas")
    assert [guest.name for guest in roster.invited()] == ["hospital-zas"]
    with pytest.raises(Misuse, match="withdrawn"):
        roster.enrol(first, key().public)
    roster.enrol(second, key().public)


def test_a_partner_that_has_joined_is_not_invited(roster, key):
    roster.enrol(roster.invite("hospital-zas"), key().public)
    with pytest.raises(Misuse, match="joined already"):
        roster.invite("hospital-zas")


def test_a_key_is_one_partner(roster, key):
    mine = key()
    roster.enrol(roster.invite("hospital-zas"), mine.public)
    token = roster.invite("zone-noord")
    with pytest.raises(Misuse, match="has joined as hospital-zas"):
        roster.enrol(token, mine.public)
    assert roster.enrol(token, key().public).name == "zone-noord"  # the refusal did not spend it


def test_a_comment_or_another_spelling_is_the_same_key(roster, key):
    mine = key()
    first = roster.enrol(roster.invite("hospital-zas"), f"{mine.public} root@node\n")
    assert first.public == mine.public
    with pytest.raises(Misuse, match="has joined as"):
        roster.enrol(roster.invite("zone-noord"), f"{mine.public} somebody else")


def test_a_revoked_key_never_comes_back(roster, key):
    mine, spent = key(), roster.invite("hospital-zas")
    roster.enrol(spent, mine.public)
    revoked = roster.revoke("hospital-zas")
    assert revoked is not None and revoked.revoked and revoked.fingerprint == mine.fingerprint
    for token in (spent, roster.invite("hospital-zas"), roster.invite("another-name")):
        with pytest.raises(Misuse, match="was revoked and cannot join"):
            roster.enrol(token, mine.public)
    fresh = roster.enrol(roster.invite("hospital-zas"), key().public)
    assert [(each.name, each.revoked) for each in roster.partners()] == [("hospital-zas", True), ("hospital-zas", False)]
    assert fresh in roster.partners()
    partner = roster.partner_of(mine.fingerprint)
    assert partner is not None and partner.revoked


def test_revoking_withdraws_an_invitation(roster, key):
    token = roster.invite("hospital-zas")
    assert roster.revoke("hospital-zas") is None
    with pytest.raises(Misuse, match="withdrawn"):
        roster.enrol(token, key().public)
    for name in ("hospital-zas", "nobody"):
        with pytest.raises(Misuse, match="neither a partner nor invited"):
            roster.revoke(name)


@pytest.mark.parametrize("public", ["", "ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AAAA", "-----BEGIN", "\x00", "é"])
def test_what_is_no_key_does_not_spend_the_token(roster, key, public):
    token = roster.invite("hospital-zas")
    with pytest.raises(Breach):
        roster.enrol(token, public)
    roster.enrol(token, key().public)


def test_researchers(roster):
    token = roster.welcome("an-peeters")
    assert roster.researcher(token) == "an-peeters"
    again = roster.welcome("an-peeters")
    assert roster.researcher(token) is None and roster.researcher(again) == "an-peeters"
    assert [each.name for each in roster.researchers()] == ["an-peeters"]
    roster.dismiss("an-peeters")
    assert roster.researcher(again) is None and roster.researchers() == []
    with pytest.raises(Misuse, match="not a researcher here"):
        roster.dismiss("an-peeters")


def test_a_partners_token_is_no_researchers_token(roster, key):
    assert roster.researcher(roster.invite("hospital-zas")) is None
    with pytest.raises(Misuse, match="not known"):
        roster.enrol(roster.welcome("an-peeters"), key().public)


@pytest.mark.parametrize("name", ["", "../x", "an peeters", "1st", 'x"', "x" * 65])
def test_names(roster, name):
    with pytest.raises(Misuse):
        roster.invite(name)
    with pytest.raises(Misuse):
        roster.welcome(name)


def test_no_token_lies_on_the_disk(path, roster, key):
    tokens = [roster.invite("hospital-zas"), roster.welcome("an-peeters")]
    roster.enrol(tokens[0], key().public)
    held = b"".join(file.read_bytes() for file in path.parent.glob("coordinator.db*"))
    assert all(len(token) >= 43 and token.encode() not in held for token in tokens)
    assert path.stat().st_mode & 0o077 == 0


def test_every_token_is_compared_in_constant_time(roster, monkeypatch):
    compared = []
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    tokens = [roster.welcome(f"researcher-{k}") for k in range(5)]
    assert roster.researcher(tokens[0]) == "researcher-0"
    assert len(compared) == 5  # also those behind the one that fits


def test_a_roster_is_the_same_when_opened_again(path, roster, key):
    partner = roster.enrol(roster.invite("hospital-zas"), key().public)
    token = roster.welcome("an-peeters")
    with closing(Roster(path)) as again:
        assert again.partners() == [partner] and again.researcher(token) == "an-peeters"


def test_a_database_that_cannot_be_used(path, tmp_path):
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(Unreachable, match="cannot be used"):
        Roster(path)
    newer = tmp_path / "newer.db"
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(Unreachable, match="format 7"):
        Roster(newer)
    with pytest.raises(Unreachable, match="cannot be used"):
        Roster(tmp_path / "absent" / "coordinator.db")


def test_every_change_is_synced(path, roster):
    with roster._db.change() as db:
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
