"""Where a node's table is: a CSV or Parquet file, or a query to a database whose password is read anew each time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from ahh_federated.errors import Misuse, Reason, Refusal
from ahh_federated.node.tables import SUFFIXES, Frame, frame_of, read_table
from ahh_federated.study.fields import Table

CREDENTIAL = "ahh-database-password"  # the name under which systemd hands the password over
_SECRET = re.compile(r"passw|pwd|secret|token", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """Either `path`, or `url` and `query` with the password in a file or an environment variable."""

    path: Path | None = None
    url: str = ""
    query: str = ""
    password_file: Path | None = None
    password_env: str = ""

    @property
    def shown(self) -> str:
        """How messages name the table."""
        return self.path.name if self.path is not None else make_url(self.url).render_as_string(hide_password=True)

    def settings(self) -> dict[str, str]:
        """The keys of [data] in node.toml."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: str(value) for name, value in values.items() if value}


def file_source(path: Path) -> Source:
    """Raises Misuse when the file is no table by its name."""
    if not path.name.lower().endswith(SUFFIXES):
        raise Misuse(f"{path} is not a table by its name: give a file that ends in {', '.join(SUFFIXES)}, or --sql URL")
    return Source(path=path.absolute())


def sql_source(url: str, query: str, password_file: Path | None = None, password_env: str = "") -> Source:
    """Raises Misuse when the URL names no database or holds a password, or the query is empty."""
    parsed = _url(url)
    if not query.strip():
        raise Misuse("the query is empty: write the SELECT that gives the patients' table into the file")
    if password_file is not None and password_env:
        raise Misuse("the password is in a file or in an environment variable: give one of the two")
    if password_file is not None:
        password_file = password_file.absolute()
    return Source(url=parsed.render_as_string(), query=query, password_file=password_file, password_env=password_env)


def read_source(table: Table) -> Source:
    """The table [data] of node.toml.

    Raises:
        Misuse: naming the key, the reason and the fix.
    """
    path, url, query = (table.text(key, default="") for key in ("path", "url", "query"))
    password_file, password_env = table.text("password_file", default=""), table.text("password_env", default="")
    table.done()
    if bool(path) == bool(url):
        fix = "run `ahh node connect TABLE`, or `ahh node connect --sql URL --query-file FILE`"
        raise Misuse(f"{table.path} names {'a path and a url' if path else 'no table'}: {fix}")
    if path:
        if query or password_file or password_env:
            raise Misuse(f"{table.path} has a path, so query and password have no use: drop them")
        return file_source(Path(path))
    return sql_source(url, query, Path(password_file) if password_file else None, password_env)


def read(source: Source, found: list[str] | None = None) -> Frame:
    """All rows of the table; `found` as in `read_table`.

    Raises:
        Refusal: when it cannot be read; no message quotes a cell or a password.
    """
    return read_table(source.path, found) if source.path is not None else _query(source)


def stamp(source: Source) -> str:
    """A cheap sign of change for a file; for a database nothing is cheap, and it is empty."""
    if source.path is None:
        return ""
    try:
        state = source.path.stat()
    except OSError as error:
        raise Refusal(Reason.TABLE, f"{source.path} cannot be read ({error.strerror}): check the file and its rights") from None
    return f"{state.st_ino}:{state.st_size}:{state.st_mtime_ns}"


def _url(text: str) -> URL:
    try:
        url = make_url(text)
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise Misuse(
            "the URL is of a database that this software does not know: write postgresql, mysql, mssql, oracle ..."
        ) from None
    except (ArgumentError, ValueError):
        raise Misuse("the URL names no database: write it like postgresql+psycopg://reader@db.example:5432/children") from None
    except ImportError as error:
        raise Misuse(f"the driver for {url.drivername} is not installed ({error.name}): pip install {error.name}") from None
    if url.password is not None or any(_SECRET.search(f"{name} {value}") for name, value in url.query.items()):
        fix = "take it out, change it, and give --password-file FILE or --password-env NAME"
        raise Misuse(f"the URL holds a password, which others can see on a command line and in node.toml: {fix}")
    return url


def _query(source: Source) -> Frame:
    url, secret = _url(source.url), _password(source)
    if secret is not None:
        url = url.set(password=secret)
    if url.get_backend_name() == "sqlite" and url.database and not url.query:  # as it is, SQLite would make an absent file
        url = url.set(database=Path(url.database).absolute().as_uri(), query={"mode": "ro", "uri": "true"})
    try:
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
        options: dict[str, Any] = {"no_parameters": True}  # a % in the query is a %
        if engine.dialect.name == "postgresql":
            options["postgresql_readonly"] = True
        with engine.connect() as connection:  # rolled back at its end
            rows = connection.execution_options(**options).exec_driver_sql(source.query)
            if not rows.returns_rows:
                raise Refusal(Reason.TABLE, "the query gives no table: write a SELECT")
            names, cells = list(map(str, rows.keys())), [tuple(row) for row in rows]
    except Refusal:
        raise
    except Exception as error:  # drivers raise many kinds, and their texts may quote a cell, the query or the password
        fix = "check address, account, password and query with the database's own client"
        raise Refusal(Reason.TABLE, f"{source.shown} does not answer the query ({type(error).__name__}): {fix}") from None
    return frame_of(names, cells)


def _password(source: Source) -> str | None:
    if source.password_env:
        secret = os.environ.get(source.password_env)
        if not secret:
            fix = "set it for the process that serves, or use password_file"
            raise Refusal(Reason.TABLE, f"the environment variable {source.password_env} with the password is empty: {fix}")
        return secret
    if source.password_file is None:
        return None
    path = source.password_file
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):  # a systemd service, see `ahh node service`
        path = Path(folder) / CREDENTIAL if (Path(folder) / CREDENTIAL).exists() else path
    try:
        if path.stat().st_mode & 0o007:
            raise Refusal(Reason.TABLE, f"{path} with the password is open to everybody: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Refusal(Reason.TABLE, f"{path} with the password cannot be read ({why}): check the file and its rights") from None
