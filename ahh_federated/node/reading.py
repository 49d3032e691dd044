"""Reading a node's table; a database's password is read anew each time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from ahh_federated.errors import Reason, Refusal
from ahh_federated.node.sources import CREDENTIAL, Source, checked_url
from ahh_federated.node.tables import Frame, frame_of, read_table


def read(source: Source, found: list[str] | None = None) -> Frame:
    """All rows of the table; `found` as in `read_table`.

    Raises:
        Refusal: when it cannot be read; no message quotes a cell or a password.
    """
    return read_table(source.path, found) if source.path is not None else _query(source)


def _query(source: Source) -> Frame:
    url, secret = checked_url(source.url), _password(source)
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
