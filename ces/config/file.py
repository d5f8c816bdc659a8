"""The configuration file: TOML 1.0 whose keys are the names of options.

It reports each value as text, with the line it stands on. What a value means is decided in
:mod:`ces.config.settings`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from ces.config.values import Kind, SettingError, did_you_mean


class SettingsFile:
    """The content of one file.

    :param text: the content.
    :param name: what error texts call the file.
    :param known: the keys that are allowed.
    :raises SettingError: when the text is not TOML, or has a key that is not in `known`.
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
        """The place of a key and the texts of its values; None when the key is not in the file.

        :param many: whether a list gives several values.
        :raises SettingError: when a value has a type that the kind does not accept.
        """
        if key not in self._values:
            return None
        place, value = self._place(key), self._values[key]
        texts = []
        for one in value if many and isinstance(value, list) else [value]:
            # Compare exact types: in Python a bool is an int.
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
