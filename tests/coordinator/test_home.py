"""The coordinator's folder: made whole or not at all, for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ahh_federated.audit import verify_audit
from ahh_federated.coordinator import authority
from ahh_federated.coordinator.home import create_home, default_home, open_home, split_address
from ahh_federated.errors import Misuse


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "a" / "coordinator"


def test_a_new_home_has_everything_and_is_its_owners_alone(place):
    old = os.umask(0)  # the most careless account there is
    try:
        home = create_home(place, "antwerp", "localhost:8443")
    finally:
        os.umask(old)
    assert open_home(place) == home
    assert (home.name, home.address, home.listen) == ("antwerp", "localhost:8443", "0.0.0.0:8443")
    assert mode(place) == 0o700
    for path in (home.ca_key, home.key, home.database, home.audit.path):
        assert mode(path) == 0o600, path
    assert {path.name for path in place.parent.iterdir()} == {"coordinator"}
    assert verify_audit(home.audit.path)[:2] == (True, 1)


def test_the_paths_of_a_run(place):
    home = create_home(place, "antwerp", "localhost:8443", "127.0.0.1:9000")
    assert home.listen == "127.0.0.1:9000"
    assert home.transcript("a" * 64) == place / "runs" / ("a" * 64) / "transcript.jsonl"
    for digest in ("../../etc", "a" * 63, "A" * 64, ""):
        with pytest.raises(Misuse, match="not the digest"):
            home.run(digest)


@pytest.mark.parametrize(
    ("name", "address"),
    [("no name", "localhost:8443"), ("antwerp", "localhost"), ("antwerp", "0.0.0.0:8443"), ("antwerp", "[::]:8443")],
)
def test_what_cannot_work_leaves_nothing(place, name, address):
    with pytest.raises(Misuse):
        create_home(place, name, address)
    assert not place.exists() and not place.parent.exists()


def test_a_folder_that_holds_something_is_left_alone(place):
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(Misuse, match="holds something already"):
        create_home(place, "antwerp", "localhost:8443")
    assert [path.name for path in place.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_may_be_used_once(place):
    place.mkdir(parents=True)
    create_home(place, "antwerp", "localhost:8443")
    with pytest.raises(Misuse, match="holds something already"):
        create_home(place, "antwerp", "localhost:8443")


def test_a_failure_half_way_leaves_nothing(place, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(authority, "issue", fail)
    with pytest.raises(Misuse, match="No space left"):
        create_home(place, "antwerp", "localhost:8443")
    assert list(place.parent.iterdir()) == []


def test_no_home(place):
    with pytest.raises(Misuse, match="holds no coordinator"):
        open_home(place)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "antwerp"', "name = ", "not valid TOML"),
        ('name = "antwerp"', "", "name is missing"),
        ('address = "localhost:8443"', 'address = "localhost"', "not an address"),
        ('listen = "0.0.0.0:8443"', 'listen = "0.0.0.0:8443"\nlisen = 1', "lisen is not a known key"),
    ],
)
def test_a_file_that_was_edited_badly(place, old, new, message):
    create_home(place, "antwerp", "localhost:8443")
    file = place / "coordinator.toml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(Misuse, match=message):
        open_home(place)


@pytest.mark.parametrize("name", ["ca.key", "server.key"])
def test_keys_that_others_can_read_are_refused(place, name):
    create_home(place, "antwerp", "localhost:8443")
    (place / name).chmod(0o640)
    with pytest.raises(Misuse, match="chmod 600"):
        open_home(place)


def test_where_it_is_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("AHH_COORDINATOR_HOME", str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv("AHH_COORDINATOR_HOME")
    assert default_home() == Path.home() / ".ahh" / "coordinator"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("coordinator.example.org:8443", ("coordinator.example.org", 8443)),
        ("10.1.2.3:1", ("10.1.2.3", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_addresses(address, expected):
    assert split_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":8443",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:08443",
        "localhost:" + "9" * 5000,
        "localhost:٣",
        "a b:1",
        "a/b:1",
        "user@host:1",
        "2001:db8::1:8443",
        "[localhost]:8443",
        "[10.0.0.1]:8443",
        "10.0.0.256:8443",
        "-a.org:1",
        "a..org:1",
        "é.org:1",
        'x".org:1',
        "[fe80::1%eth0]:1",
        "x" * 64 + ".org:1",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(Misuse, match="HOST:PORT"):
        split_address(address)
