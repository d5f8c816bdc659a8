"""The configuration file: TOML 1.0 whose keys are the names of options.

It reports each value as text, with the line it stands on. What a value means is decided in
:mod:`ces.config.settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ces.config.toml import Document, TomlError, describe
from ces.config.values import Kind, SettingError, did_you_mean


class SettingsFile:
    """The content of one file.

    :param text: the content.
    :param name: what error texts call the file.
    :param known: the keys that are allowed.
    :raises SettingError: when the text is not TOML, or has a key that is not in `known`.
    """

    def __init__(self, text: str, name: str, known: Sequence[str]) -> None:
        try:
            self._document = Document(text, name)
        except TomlError as error:
            raise SettingError(str(error)) from None
        for key in self._document.values:
            if key not in known:
                hint = did_you_mean(key.replace("_", "-").lower(), known) or f"; expected {', '.join(known)}"
                raise SettingError(f"{self._place(key)}: no such setting{hint}")

    def find(self, key: str, kind: Kind[Any], many: bool) -> tuple[str, list[str]] | None:
        """The place of a key and the texts of its values; None when the key is not in the file.

        :param many: whether a list gives several values.
        :raises SettingError: when a value has a type that the kind does not accept.
        """
        values = self._document.values
        if key not in values:
            return None
        place, value = self._place(key), values[key]
        texts = []
        for one in value if many and isinstance(value, list) else [value]:
            # Compare exact types: in Python a bool is an int.
            if type(one) is not str and type(one) not in kind.native:
                raise SettingError(f"{place}: expected {kind.expected}, got {describe(one)}")
            texts.append(str(one))
        return place, texts

    def _place(self, key: str) -> str:
        return f"{self._document.place((key,))}: {key}"
