"""Where a node's table is: a CSV or Parquet file, or a query to a database.  reading.py reads it.

Most commands only need to know where it is, and SQLAlchemy takes a while to load: it is imported where a URL is looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ahh_federated.errors import Misuse
from ahh_federated.study.fields import Table

if TYPE_CHECKING:
    from sqlalchemy import URL

SUFFIXES = (".csv", ".csv.gz", ".parquet")
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
        return self.path.name if self.path is not None else checked_url(self.url).render_as_string(hide_password=True)

    def settings(self) -> dict[str, str]:
        """The keys of [data] in node.toml."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: str(value) for name, value in values.items() if value}


def file_source(path: Path) -> Source:
    """Raises Misuse when the file is no table by its name."""
    if not path.name.lower().endswith(SUFFIXES):
        raise Misuse(f"{path} is not a table by its name: give a file that ends in {', '.join(SUFFIXES)}, or --sql URL")
    return Source(path=_placed(path))


def sql_source(url: str, query: str, password_file: Path | None = None, password_env: str = "") -> Source:
    """Raises Misuse when the URL names no database or holds a password, or the query is empty."""
    parsed = checked_url(url)
    if not query.strip():
        raise Misuse("the query is empty: write the SELECT that gives the patients' table into the file")
    if password_file is not None and password_env:
        raise Misuse("the password is in a file or in an environment variable: give one of the two")
    if password_file is not None:
        password_file = _placed(password_file)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not parsed.database.startswith((":", "file:")):
        parsed = parsed.set(database=str(_placed(Path(parsed.database))))
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


def _placed(path: Path) -> Path:
    """Where a file is, whatever folder a command runs in.  A link stays one: it may point at another file tomorrow."""
    whole = path.absolute()
    return whole.parent.resolve() / whole.name if ".." in whole.parts else whole


def checked_url(text: str) -> URL:
    """Raises Misuse when the text names no database, its driver is not installed, or it holds a password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

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
