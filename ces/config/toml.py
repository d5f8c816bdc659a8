"""TOML 1.0 with the line of each key, for files that people write: settings, routes, who may do what.

An error text must say where. `tomllib` does not keep places, so they are looked for in the text once an error
is found: a place may be wrong where the text hides it (in a string of several lines), and is then left out or
near.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ces

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_HEADER = re.compile(rf"\s*\[\[?(\s*{_KEY}(?:\s*\.\s*{_KEY})*)\s*\]")
_ENTRY = re.compile(rf"(\s*{_KEY}(?:\s*\.\s*{_KEY})*)\s*=")

FILE_BYTES = 16 * 2**20
"""Largest file that is read, in bytes."""


class TomlError(ces.Error, ValueError):
    """The text is not TOML, or the file cannot be read. One sentence that names the file and the line."""


class Document:
    """The content of one file.

    :param text: the content.
    :param name: what error texts call the file.
    :raises TomlError: when the text is not TOML.

    values: the content as `tomllib` gives it.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._lines = text.splitlines()
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TomlError(self._syntax(str(error))) from None
        except RecursionError:
            raise TomlError(f"{name}: values are nested too deeply") from None
        except ValueError:  # Python reads no integer of more than 4300 digits
            raise TomlError(f"{name}: a number has too many digits") from None

    def line(self, path: tuple[str, ...], value: str = "") -> int | None:
        """The number of the line on which a key stands, or the text `value` after that key.

        :param path: the names of the tables that the key is in, and its own.
        :return: None when it is not found.
        """
        found = None
        for number, line, begins in self._walk():
            if found is None:
                found = number if begins is not None and begins[: len(path)] == path else None
            elif begins is not None and begins[: len(path)] != path:
                return found
            if found is not None and value and value in line:
                return number
        return found

    def place(self, path: tuple[str, ...], value: str = "") -> str:
        """The file and, if it is found, the line of a key, or of the text `value` after that key."""
        number = self.line(path, value)
        return self.name if number is None else f"{self.name}, line {number}"

    def _walk(self) -> Iterator[tuple[int, str, tuple[str, ...] | None]]:
        """Each line, with its number and the path of the table or key that begins on it."""
        table: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, 1):
            begins: tuple[str, ...] | None = None
            if match := _HEADER.match(line):
                begins = table = _names(match[1])
            elif match := _ENTRY.match(line):
                begins = table + _names(match[1])
            yield number, line, begins

    def _syntax(self, error: str) -> str:
        match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", error, re.DOTALL)
        if match is None:
            return f"{self.name}: {error}"
        what = match[1][:1].lower() + match[1][1:]
        where = f"column {match[3]}" if match[3] else "the end of the file"
        return f"{self.name}, line {match[2] or max(1, len(self._lines))}: {what} at {where}"


def read_document(path: str) -> Document:
    """Read a file.

    :raises TomlError: when it cannot be read, is not TOML, or is larger than `FILE_BYTES`.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise TomlError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TomlError(f"{path}: cannot be read: it is not UTF-8") from None
    except ValueError:  # open() knows no file with a NUL in its name
        raise TomlError(f"{path!r}: cannot be read: this is no name of a file") from None
    if len(data) > FILE_BYTES:
        raise TomlError(f"{path}: has more than {FILE_BYTES} bytes")
    return Document(text, path)


def describe(value: object) -> str:
    """What a value is, for error texts. Of a string it says no more than that: it may be a secret."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return "a string"
        case dict():
            return "a table"
        case list():
            return "a list"
        case int() | float():
            return str(value)
        case _:
            return f"the date or time {value}"


def _names(key: str) -> tuple[str, ...]:
    """The names of a dotted key."""
    names: list[str] = []
    try:
        rest: object = tomllib.loads(f"{key} = 0")
    except ValueError:
        return ()
    while isinstance(rest, dict):
        ((name, rest),) = rest.items()
        names.append(name)
    return tuple(names)
