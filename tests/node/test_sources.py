"""Tables from files and databases: the same patients, and no password where others can see it."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import make_url

from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.node.reading import read
from ahh_federated.node.settings import change
from ahh_federated.node.sources import CREDENTIAL, Source, file_source, read_source, sql_source
from ahh_federated.node.tables import load_cohort
from ahh_federated.study.fields import Table
from tests.study.samples import rows, small

STUDY = small()
SECRET = "Zq7-s3cret"
QUERY = "SELECT child, seen, sex, smoked, weight, bmi FROM visits WHERE name LIKE 'Name%' -- 100 % of :them\n"


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "visits.db"
    with sqlite3.connect(path) as db:
        rows(200).astype({"weight": float, "bmi": float}).replace({"smoked": {"": None}}).to_sql("visits", db, index=False)
    db.close()
    return f"sqlite:///{path}"


def same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    first, second = (load_cohort(frame, STUDY, "north") for frame in (one, other))
    return all(np.array_equal(first[name], second[name], equal_nan=True) for name in first.columns)


def test_a_file_and_a_query_give_the_same_patients(database: str, tmp_path: Path) -> None:
    rows(200).to_csv(tmp_path / "visits.csv", index=False)
    from_file, from_query = read(file_source(tmp_path / "visits.csv")), read(sql_source(database, QUERY))
    assert len(from_query) == 200
    assert {str(kind) for kind in from_query.dtypes} == {"object"}
    assert same(from_file, from_query)


def test_a_source_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    password = tmp_path / "password"
    for source in (
        file_source(tmp_path / "a.csv.gz"),
        sql_source("sqlite:///x.db", 'SELECT "a"\n  FROM [b]\n', password),
        sql_source("sqlite:///x.db", "SELECT 1", password_env="AHH_PASSWORD"),
    ):
        path.write_text("# kept\n[data]\n")
        change(path, "data", source.settings())
        assert read_source(Table(tomllib.loads(path.read_text())["data"], "data")) == source


BAD = {
    "nothing": ({}, "data names no table: run `ahh node connect TABLE`"),
    "both": ({"path": "a.csv", "url": "sqlite:///a"}, "data names a path and a url"),
    "near-miss": ({"pth": "a.csv"}, "data.pth is not a known key: did you mean path?"),
    "no-table": ({"path": "a.xlsx"}, "is not a table by its name: give a file that ends in .csv, .csv.gz, .parquet"),
    "file-with-query": ({"path": "a.csv", "query": "x"}, "has a path, so query and password have no use"),
    "no-query": ({"url": "sqlite:///a"}, "the query is empty"),
    "two-passwords": ({"url": "sqlite:///a", "query": "x", "password_file": "a", "password_env": "b"}, "give one of the two"),
    "no-url": ({"url": "db.example", "query": "x"}, "the URL names no database: write it like"),
    "unknown": ({"url": "foxpro://a/b", "query": "x"}, "of a database that this software does not know"),
    "no-driver": ({"url": "mysql+aiomysql://a/b", "query": "x"}, "the driver for mysql+aiomysql is not installed (aiomysql)"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_source_that_cannot_be_is_told(name: str) -> None:
    content, says = BAD[name]
    with pytest.raises(Misuse) as caught:
        read_source(Table(content, "data"))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"sqlite://reader:{SECRET}@/x.db",
        f"sqlite:///x.db?password={SECRET}",
        f"sqlite:///x.db?sslpassword={SECRET}",
        f"sqlite:///x.db?odbc_connect=DRIVER%3Dx%3BPWD%3D{SECRET}",
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(Misuse, match="the URL holds a password") as caught:
        sql_source(url, "SELECT 1")
    assert SECRET not in str(caught.value)


def refused(source: Source) -> str:
    with pytest.raises(Refusal) as caught:
        read(source)
    assert caught.value.reason == Reason.TABLE
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_queries_that_fail_quote_nothing(database: str, tmp_path: Path) -> None:
    for query in (f"SELECT '{SECRET}' FROM absent", f"SELECT {SECRET}", "SELECT 1; SELECT 2", "\x00"):
        assert "does not answer the query" in refused(sql_source(database, query))
    for query in ("DROP TABLE visits", "DELETE FROM visits", "CREATE TABLE x (a)"):  # opened read-only
        assert "does not answer the query" in refused(sql_source(database, query))
    assert "gives no table" in refused(sql_source(database, "PRAGMA shrink_memory"))
    assert len(read(sql_source(database, QUERY))) == 200


def test_an_absent_database_is_not_made(tmp_path: Path) -> None:
    assert "does not answer the query" in refused(sql_source(f"sqlite:///{tmp_path / 'absent.db'}", "SELECT 1"))
    assert list(tmp_path.iterdir()) == []


def test_no_rows_is_a_table(database: str) -> None:
    frame = read(sql_source(database, "SELECT * FROM visits WHERE 1 = 0"))
    assert list(frame.columns)[:2] == ["child", "seen"]
    assert len(load_cohort(frame, STUDY, "north")) == 0


def test_columns_of_one_name_are_not_merged(database: str) -> None:
    frame = read(sql_source(database, "SELECT child, bmi, weight AS bmi FROM visits"))
    assert list(frame.columns) == ["child", "bmi", "bmi"]


def test_where_the_password_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong account shows which password was tried; SQLite knows none, so the database is asked at a closed door."""
    seen: list[str | None] = []
    monkeypatch.setattr("ahh_federated.node.reading.create_engine", lambda url, **how: seen.append(url.password) or 1 / 0)
    password = tmp_path / "password"
    password.write_text(f"{SECRET}\n")
    password.chmod(0o600)
    from_file, from_env = (
        sql_source("sqlite://reader@/x", "SELECT 1", password),
        sql_source("sqlite://reader@/x", "SELECT 1", None, "AHH_TEST"),
    )
    refused(from_file)
    assert "the environment variable AHH_TEST with the password is empty" in refused(from_env)
    monkeypatch.setenv("AHH_TEST", SECRET + "2")
    refused(from_env)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    refused(from_file)
    (tmp_path / CREDENTIAL).write_text(SECRET + "3")
    (tmp_path / CREDENTIAL).chmod(0o400)
    refused(from_file)
    assert seen == [SECRET, SECRET + "2", SECRET, SECRET + "3"]
    password.chmod(0o604)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert "is open to everybody: chmod 600" in refused(from_file)
    password.unlink()
    assert "cannot be read (No such file or directory)" in refused(from_file)


def test_a_source_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    (tmp_path / "now.csv").symlink_to(tmp_path / "b" / "2026.csv")
    assert file_source(Path("../b/x.csv")).path == tmp_path / "b" / "x.csv"
    assert file_source(Path("../now.csv")).path == tmp_path / "now.csv"  # the link, which may be set to another file
    assert sql_source("sqlite:///x.db", "SELECT 1").url == f"sqlite:///{tmp_path}/a/x.db"
    assert sql_source("sqlite:///../x.db", "SELECT 1", Path("../pw")).url == f"sqlite:///{tmp_path}/x.db"
    assert sql_source("sqlite:///../x.db", "SELECT 1", Path("../pw")).password_file == tmp_path / "pw"
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x.db?uri=true"):
        assert make_url(sql_source(url, "SELECT 1").url) == make_url(url)


def test_an_unreadable_table_is_named_with_its_folder(tmp_path: Path) -> None:
    for name, content, says in (
        ("absent.csv", None, "cannot be read"),
        ("empty.csv", b"", "is not a table"),
        ("bad.parquet", b"no", "is not a table"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert refused(file_source(tmp_path / name)).startswith(f"{tmp_path / name} {says}")


def test_a_source_shows_no_more_than_where_it_is(tmp_path: Path) -> None:
    assert file_source(tmp_path / "a.csv").shown == "a.csv"
    assert sql_source("sqlite:////srv/a.db", QUERY).shown == "sqlite:////srv/a.db"


def installed(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server of its own on loopback, with one reader who needs a password."""
    initdb = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if initdb is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    if not installed("psycopg"):
        pytest.skip("psycopg is not installed")
    user = "postgres" if os.geteuid() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="ahh-postgres-"))
    if user is not None:  # the server refuses to run as root, and cannot enter pytest's folders
        shutil.chown(place, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "admin").write_text("admin")
    (place / "admin").chmod(0o644)
    tools = Path(initdb).parent
    how = {"user": user, "check": True, "cwd": place, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    made = [initdb, "-D", "data", "-U", "admin", "-A", "scram-sha-256", "--pwfile", "admin", "-E", "UTF8", "--no-sync"]
    subprocess.run(made, **how)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={place}"
    subprocess.run([tools / "pg_ctl", "-D", "data", "-w", "-o", options, "-l", "log", "start"], **how)
    try:
        fill(port)
        yield f"postgresql+psycopg://reader@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([tools / "pg_ctl", "-D", "data", "-m", "immediate", "stop"], **how)
        shutil.rmtree(place)


def fill(port: int) -> None:
    import psycopg

    with psycopg.connect(f"host=127.0.0.1 port={port} user=admin password=admin dbname=postgres") as db:
        db.execute(
            "CREATE TABLE visits (child int, seen date, sex text, smoked text, weight numeric(5,3), bmi float8, name text)"
        )
        db.execute(f"CREATE ROLE reader LOGIN PASSWORD '{SECRET}'")
        db.execute("GRANT ALL ON visits TO reader")
        for row in rows(200).assign(child=range(200)).replace({"smoked": {"": None}}).itertuples(index=False):
            db.execute("INSERT INTO visits VALUES (%s, %s, %s, %s, %s, %s, %s)", tuple(row))


def test_a_real_postgresql(postgres: str, tmp_path: Path) -> None:
    """Dates, decimals, numbers with gaps, a % in the query; the account may write, the node does not."""
    password = tmp_path / "password"
    password.write_text(SECRET)
    password.chmod(0o600)
    rows(200).assign(child=range(200)).to_csv(tmp_path / "visits.csv", index=False)
    from_query = read(sql_source(postgres, QUERY, password))
    assert same(read(file_source(tmp_path / "visits.csv")), from_query)
    for query in ("DELETE FROM visits RETURNING child", "UPDATE visits SET bmi = 1 RETURNING child", f"SELECT '{SECRET}'::int"):
        assert "does not answer the query" in refused(sql_source(postgres, query, password))
    assert len(read(sql_source(postgres, QUERY, password))) == 200
    password.write_text("wrong")
    said = refused(sql_source(postgres, QUERY, password))
    assert "does not answer the query (OperationalError)" in said
    assert "wrong" not in said
