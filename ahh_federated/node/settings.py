"""The partner's own TOML files: changing one table of them while every comment stays, and writing files whole or not at all."""

from __future__ import annotations

import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ahh_federated.errors import Misuse

Value = str | Sequence[str]
_TEXT = r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'"
_VALUE = rf"(?:{_TEXT})|\[(?:{_TEXT}|[^\[\]\"'])*\]|[^\n#\"'\[]+"
_KEPT = re.compile(r"[ \t]*(#[^\n]*)?(\n|\Z)")
_ASSIGNMENT = re.compile(rf"[ \t]*[\w\"'.-]+[ \t]*=[ \t]*(?:{_VALUE})[ \t]*(#[^\n]*)?(\n|\Z)", re.DOTALL)


def change(path: Path, table: str, values: Mapping[str, Value]) -> None:
    """Let the table of a TOML file hold these keys and no others; all the rest of the file stays as it is.

    Raises:
        Misuse: when the file cannot be read or written, or is too intricate to change without a loss.
    """
    lines = "".join(f"{name} = {_spelled(value)}\n" for name, value in values.items())
    try:
        text = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
        before = tomllib.loads(text)
        changed = _changed(text, table, lines)
        expected = {**before, table: {name: value if isinstance(value, str) else list(value) for name, value in values.items()}}
        if tomllib.loads(changed) != expected:
            raise ValueError
    except OSError as error:
        raise Misuse(f"{path} cannot be read ({error.strerror}): check the file and its rights") from None
    except (ValueError, RecursionError):
        fix = f"mend it, or write these lines below [{table}] by hand:\n{lines}"
        raise Misuse(f"{path} is not a TOML file that can be changed without a loss: {fix}") from None
    write(path, changed.encode(), path.stat().st_mode & 0o777)


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole: whoever reads it sees the old content or the new one, also after a crash.

    Raises:
        Misuse: when it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Misuse(f"{path} cannot be written ({error.strerror}): check the disk and the rights of its folder") from None


def quoted(text: str) -> str:
    """A text as a TOML string on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _spelled(value: Value) -> str:
    if not isinstance(value, str):
        return f"[{', '.join(quoted(each) for each in value)}]"
    if "\n" not in value:
        return quoted(value)
    body = quoted(value)[1:-1].replace("\\n", "\n").replace('\\"', '"').replace('""', '"\\"')
    return f'"""\n{body}"""' if "\\\n" not in body and not body.endswith('"') else quoted(value)


def _changed(text: str, table: str, lines: str) -> str:
    header = re.search(rf"^[ \t]*\[{re.escape(table)}\][ \t]*(#[^\n]*)?(\n|\Z)", text, re.MULTILINE)
    if header is None:
        return f"{text.rstrip()}\n\n[{table}]\n{lines}".lstrip("\n")
    place, before, after, seen = header.end(), "", "", False
    while place < len(text):
        if found := _KEPT.match(text, place):
            before, after = (before, after + found[0]) if seen or not found[1] else (before + found[0], after)
            seen = seen or not found[1]  # a comment behind a blank line may be about the next table
        else:
            found = _ASSIGNMENT.match(text, place)
            if found is None:  # the next table
                break
            seen = True
        place = found.end()
    start = (text[: header.end()] + before).rstrip("\n") + "\n"
    return start + lines + (after or ("\n" if text[place:] else "")) + text[place:]
