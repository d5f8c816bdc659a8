"""The configuration file: TOML 1.0 with the options' names as its keys, and where in it each of them stands.

It knows which names there may be and gives values as texts; what they mean is for :mod:`ces.config.settings`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from ces.config.values import Kind, SettingError, did_you_mean


class SettingsFile:
    """The content of one file.

    :param text: the content; `name` names the file in errors.
    :param known: the keys there may be.
    :raises SettingError: when it is not TOML or holds another key.
    """

    def __init__(self, text: str, name: str, known: Sequence[str]) -> None:
        self._lines = text.splitlines()
        self._name = name
        try:
            self._values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingError(self._syntax(str(error))) from None
        except RecursionError:
            raise SettingError(f"{name}: values are nested too deeply to be settings") from None
        for key in self._values:
            if key not in known:
                hint = did_you_mean(key.replace("_", "-").lower(), known) or f"; expected {', '.join(known)}"
                raise SettingError(f"{self._place(key)}: no such setting{hint}")

    def find(self, key: str, kind: Kind[Any], many: bool) -> tuple[str, list[str]] | None:
        """The place of a key and the texts of its values (of its one value unless `many`), None without it.

        :raises SettingError: when a value has a type that cannot stand for the kind.
        """
        if key not in self._values:
            return None
        place, value = self._place(key), self._values[key]
        texts = []
        for one in value if many and isinstance(value, list) else [value]:
            # The exact type: in Python a bool is an int.
            if type(one) is not str and type(one) not in kind.native:
                raise SettingError(f"{place}: expected {kind.expected}, got {_describe(one)}")
            texts.append(str(one))
        return place, texts

    def _place(self, key: str) -> str:
        pattern = re.compile(rf"\s*(?:\[+\s*)?([\"']?){re.escape(key)}\1\s*[=.\]]")
        for number, line in enumerate(self._lines, 1):
            if pattern.match(line):
                return f"{self._name}, line {number}: {key}"
        return f"{self._name}: {key}"

    def _syntax(self, error: str) -> str:
        match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", error, re.DOTALL)
        if match is None:
            return f"{self._name}: {error}"
        what = match[1][:1].lower() + match[1][1:]
        where = f"column {match[3]}" if match[3] else "the end of the file"
        return f"{self._name}, line {match[2] or max(1, len(self._lines))}: {what} at {where}"


def _describe(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "a table"
        case list():
            return "a list"
        case int() | float():
            return str(value)
        case _:
            return f"the date or time {value}"
