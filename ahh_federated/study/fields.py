"""Reading a TOML table key by key, with errors that name the key, the reason and the fix."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar, final

from ahh_federated.errors import Misuse

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_ABSENT: Any = object()
Option = TypeVar("Option", bound=str)
_LARGEST = 1e100
_LONGEST_KEY = 100  # characters of a key in a message, which may be shown on the terminal of somebody else


@final
class Table:
    """One table of a study file.  Every key must be read; `done` refuses those that nobody asked for."""

    def __init__(self, content: Any, path: str) -> None:
        if not isinstance(content, Mapping):
            inline = " " in path  # in an ask, which has no name in TOML
            fix = f"{path.rpartition('.')[2]} = {{ key = value }}" if inline else f"[{path}] with keys below it"
            raise Misuse(f"{path} is not a table: write it as {fix}")
        self._content = dict(content)
        self._read: set[str] = set()
        self.path = path

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def names(self) -> list[str]:
        """The keys as the file has them."""
        return list(self._content)

    def at(self, key: str) -> str:
        spelled = key if key.isprintable() and len(key) <= _LONGEST_KEY else ascii(key[:_LONGEST_KEY])
        return f"{self.path}.{spelled}" if self.path else spelled

    def _take(self, key: str, default: Any, example: str) -> Any:
        self._read.add(key)
        if key in self._content:
            return self._content[key]
        if default is _ABSENT:
            raise Misuse(f"{self.at(key)} is missing{self.instead(key)}: add it, for example {key} = {example}")
        return default

    def instead(self, key: str) -> str:
        """What was probably written for a key that is missing; empty when nothing looks like it."""
        near = difflib.get_close_matches(key, [each for each in self._content if each not in self._read], n=1, cutoff=0.75)
        return f", and {self.at(near[0])} looks like it" if near else ""

    def text(self, key: str, default: Any = _ABSENT, example: str = '"..."') -> str:
        value = self._take(key, default, example)
        if not isinstance(value, str) or (not value.strip() and default is _ABSENT) or len(value) > 4000:
            raise Misuse(f"{self.at(key)} is not a text of 1 to 4000 characters: write it as {key} = {example}")
        return _shown(value, self.at(key))

    def name(self, key: str, example: str = '"my-study"') -> str:
        return checked_name(self.text(key, example=example), self.at(key))

    def choice(self, key: str, options: Sequence[Option], default: Any = _ABSENT) -> Option:
        value = self._take(key, default, f'"{options[0]}"')
        for option in options:
            if value == option:
                return option
        raise Misuse(f"{self.at(key)} is not one of {', '.join(options)}: choose one of these")

    def number(self, key: str, low: float, high: float, default: Any = _ABSENT, example: str = "1.0") -> float:
        value = self._take(key, default, example)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            raise Misuse(f"{self.at(key)} is not a number above {low:g} and up to {high:g}: write for example {key} = {example}")
        return float(value)

    def integer(self, key: str, low: int, high: int, default: Any = _ABSENT) -> int:
        value = self._take(key, default, str(low))
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            example = low if default is _ABSENT else default
            raise Misuse(f"{self.at(key)} is not a whole number from {low} to {high}: write for example {key} = {example}")
        return value

    def day(self, key: str) -> date:
        value = self._take(key, _ABSENT, "2027-12-31")
        if type(value) is not date:
            raise Misuse(f"{self.at(key)} is not a date: write it without quotes, like {key} = 2027-12-31")
        return value

    def texts(self, key: str, default: Any = _ABSENT, example: str = '["no", "yes"]') -> tuple[str, ...]:
        value = self._take(key, default, example)
        fine = isinstance(value, list | tuple) and all(isinstance(each, str) and each and each == each.strip() for each in value)
        if not fine:
            raise Misuse(f"{self.at(key)} is not a list of texts without spaces around them: write it like {key} = {example}")
        if len(set(value)) != len(value):
            raise Misuse(f"{self.at(key)} names something twice: each may appear once")
        return tuple(_shown(each, self.at(key)) for each in value)

    def numbers(self, key: str, default: Any = _ABSENT, example: str = "[0.05, 0.1]") -> tuple[float, ...]:
        value = self._take(key, default, example)
        fine = isinstance(value, list | tuple) and all(
            isinstance(each, int | float) and not isinstance(each, bool) and -_LARGEST <= each <= _LARGEST for each in value
        )
        if not fine:
            raise Misuse(f"{self.at(key)} is not a list of finite numbers: write it like {key} = {example}")
        return tuple(float(each) for each in value)

    def raw(self, key: str, default: Any = _ABSENT, example: str = "...") -> Any:
        return self._take(key, default, example)

    def table(self, key: str) -> Table:
        if key not in self:
            said = f"{self.at(key)} is missing{self.instead(key)}"
            raise Misuse(f"{said}: add a line [{self.at(key)}] with its keys below it")
        return Table(self.raw(key), self.at(key))

    def done(self) -> None:
        for key in self._content:
            if key not in self._read:
                near = difflib.get_close_matches(key, sorted(self._read), n=1)
                hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(sorted(self._read))}"
                raise Misuse(f"{self.at(key)} is not a known key: {hint}")


def is_name(value: str) -> bool:
    """Whether a text is safe in filters, file names, on the wire and on a terminal."""
    return _NAME.fullmatch(value) is not None


def checked_name(value: str, path: str) -> str:
    """The same text when it is a name."""
    if not is_name(value):
        raise Misuse(f"{path}: {value!r} is not a name: a letter, then up to 63 letters, digits, - or _")
    return value


def _shown(value: str, path: str) -> str:
    """A data steward approves what is on the screen, so nothing may hide, reorder or erase a part of it."""
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t" for character in value):
        raise Misuse(f"{path} holds a control character, which is not seen on a screen: remove it")
    return value
