"""How settings are declared and read.

The settings of a role are a frozen dataclass derived from :class:`Settings`. Each field is declared once,
with :func:`option`: its kind (which knows the unit and the bounds), its default and its help. Everything else
is derived from that: command line, environment, TOML file, ``--check``, ``--help`` and docs/settings.md.

The field ``ping_interval`` of a class with the prefix ``CES_HUB_`` is set by the first of these that exists:

1. the command line option ``--ping-interval``,
2. the environment variable ``CES_HUB_PING_INTERVAL``, then the option's other environment names, in order,
3. the key ``ping-interval`` of the TOML file,
4. the default.

An option with several values is repeated on the command line and is a list in TOML. In the environment its
values are separated by commas or white space. :mod:`ces.config.values` says how a value is written.

An empty environment variable counts as not set. A variable with the prefix that names no option is ignored:
container platforms create such names (``CES_HUB_PORT``) themselves.

This module reads no environment and no file; both are arguments.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ces.config.file import SettingsFile
from ces.config.values import Kind, SettingError, flag

__all__ = ["Option", "SettingError", "Settings", "option", "resolve"]

S = TypeVar("S", bound="Settings")
Parse = Callable[[str], Any]
Check = Callable[[Any], object]


@dataclass(frozen=True)
class Option:
    """One option as declared.

    many: whether it takes several values.
    env: further environment names, each with its own parser or None for the parser of the kind.
    default_text: describes a default that is worked out later.
    """

    name: str
    kind: Kind[Any]
    help: str
    default: Any
    many: bool
    env: Mapping[str, Parse | None]
    default_text: str | None

    @property
    def field(self) -> str:
        """Its name as an attribute of the settings."""
        return self.name.replace("-", "_")

    @property
    def is_flag(self) -> bool:
        """Whether the command line takes it without a value."""
        return self.kind is flag

    @property
    def shown_default(self) -> str:
        """The default as ``--help`` shows it; empty when there is nothing to show."""
        if self.default_text is not None:
            return self.default_text
        if self.many:
            return " ".join(self.kind.show(value) for value in self.default)
        return "" if self.default == "" else self.kind.show(self.default)


def option(
    default: Any,
    kind: Kind[Any],
    help: str,
    *,
    many: bool = False,
    env: Mapping[str, Parse | None] | None = None,
    default_text: str | None = None,
) -> Any:
    """Declare a field of a :class:`Settings`.

    :param default: the value when nothing sets it; a tuple when `many` is set.
    :param kind: what a value is: its unit and bounds, and how it is read and shown.
    :param help: what the option does, in one phrase for ``--help`` and the documentation.
    :param many: whether the option takes several values.
    :param env: further environment names, each with its own parser or None for the parser of `kind`.
    :param default_text: describes a default that is worked out later.
    """
    declared = {"kind": kind, "help": help, "many": many, "env": env or {}, "default_text": default_text}
    return dataclasses.field(default=default, metadata={"option": declared})


@dataclass(frozen=True)
class Settings:
    """The base class of settings. Its instances are never changed."""

    prefix: ClassVar[str] = ""

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """All declared options: those of the class itself, then those of its bases."""
        own = inspect.get_annotations(cls)
        declared = [
            Option(name=field.name.replace("_", "-"), default=field.default, **field.metadata["option"])
            for field in sorted(dataclasses.fields(cls), key=lambda field: field.name not in own)
        ]
        return tuple(declared)

    @classmethod
    def environment_names(cls, declared: Option) -> tuple[str, ...]:
        """The environment variables that set an option; the first one that is set counts."""
        return (cls.prefix + declared.field.upper(), *declared.env)

    def conflict(self) -> str | None:
        """Why the values contradict each other, as one sentence; None when they do not."""
        return None


def resolve(
    cls: type[S],
    given: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    toml_text: str | None = None,
    toml_name: str = "",
    checks: Mapping[str, Check] | None = None,
) -> S:
    """The settings of a role, from all sources.

    :param given: the command line: option name to the texts given, in order.
    :param environ: the environment.
    :param toml_text: the content of the configuration file; None when there is no file.
    :param toml_name: what error texts call that file.
    :param checks: option name to a further check of each value, for what this module cannot know. A check
        raises ValueError, which says what is wrong and what is expected.
    :raises SettingError: for the first value that cannot be used, even if another source overrides it.
    """
    known = [declared.name for declared in cls.options()]
    file = SettingsFile(toml_text, toml_name, known) if toml_text is not None else None
    values: dict[str, Any] = {}
    for declared in cls.options():
        check = (checks or {}).get(declared.name)
        sources = [
            _from_file(declared, file, check) if file else None,
            _from_environment(cls, declared, environ, check),
            _from_command_line(declared, given, check),
        ]
        for value in sources:
            if value is not None:
                values[declared.field] = value
    settings = cls(**values)
    conflict = settings.conflict()
    if conflict is not None:
        raise SettingError(conflict)
    return settings


def _from_file(declared: Option, file: SettingsFile, check: Check | None) -> Any:
    found = file.find(declared.name, declared.kind, declared.many)
    return _read(found[0], declared, found[1], declared.kind.parse, check) if found else None


def _from_environment(
    cls: type[Settings], declared: Option, environ: Mapping[str, str], check: Check | None
) -> Any:
    for name in cls.environment_names(declared):
        text = environ.get(name, "").strip()
        texts = [part for part in re.split(r"[,\s]+", text) if part] if declared.many else [text]
        if text and texts:
            parse = declared.env.get(name) or declared.kind.parse
            return _read(f"environment variable {name}", declared, texts, parse, check)
    return None


def _from_command_line(declared: Option, given: Mapping[str, Sequence[str]], check: Check | None) -> Any:
    texts = given.get(declared.name)
    return _read(f"option --{declared.name}", declared, texts, declared.kind.parse, check) if texts else None


def _read(place: str, declared: Option, texts: Sequence[str], parse: Parse, check: Check | None) -> Any:
    """The value of an option: the last text, or for an option with several values each different one."""
    try:
        values = [parse(text) for text in texts]
        if check is not None:
            for value in values:
                check(value)
    except ValueError as error:
        raise SettingError(f"{place}: {error}") from None
    return tuple(dict.fromkeys(values)) if declared.many else values[-1]
