"""Settings: one declaration per role, from which every way of setting a value follows.

A role's settings are a frozen dataclass derived from :class:`Settings` whose fields :func:`option` makes.
The field ``ping_interval`` of a class with the prefix ``CES_HUB_`` can then be set, the first that is there
winning, as

- the command line option ``--ping-interval``,
- the environment variable ``CES_HUB_PING_INTERVAL``, then the option's further names, in their order,
- the key ``ping-interval`` of the TOML file,
- the default.

An option of many values is repeated on the command line, a list in TOML, and in the environment its values
are separated by commas or white space. How a value itself is written: :mod:`ces.config.values`.

An environment variable that is empty counts as not set. One that has the prefix but names no option is left
alone: container platforms make such names (``CES_HUB_PORT``) by themselves.

This module reads neither the environment nor a file: both are arguments.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ces.config.file import SettingsFile
from ces.config.values import (
    LOG_LEVELS,
    Kind,
    SettingError,
    choice,
    flag,
    integer,
    seconds,
    show_seconds,
    size,
    word,
)

__all__ = ["LinkSettings", "Option", "SettingError", "Settings", "option", "resolve"]

S = TypeVar("S", bound="Settings")
Parse = Callable[[str], Any]
Check = Callable[[Any], object]


@dataclass(frozen=True)
class Option:
    """One option as declared: what it means, what its values are and how else the environment may name it."""

    name: str
    kind: Kind[Any]
    help: str
    default: Any
    many: bool
    env: Mapping[str, Parse | None]
    default_text: str | None

    @property
    def is_flag(self) -> bool:
        """Whether the command line gives it without a value."""
        return self.kind is flag

    @property
    def shown_default(self) -> str:
        """The default as ``--help`` shows it; empty when there is none to show."""
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

    :param default: the value when nothing sets it; a tuple when `many`.
    :param help: one sentence for ``--help``, units included.
    :param env: further environment names, each with a parser of its own or None for the option's.
    :param default_text: what ``--help`` says of a default that is worked out later.
    """
    declared = {"kind": kind, "help": help, "many": many, "env": env or {}, "default_text": default_text}
    return dataclasses.field(default=default, metadata={"option": declared})


@dataclass(frozen=True)
class Settings:
    """The base of every role's settings."""

    prefix: ClassVar[str] = ""

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Every declared option, the class's own before those of its bases."""
        own = inspect.get_annotations(cls)
        declared = [
            Option(name=field.name.replace("_", "-"), default=field.default, **field.metadata["option"])
            for field in sorted(dataclasses.fields(cls), key=lambda field: field.name not in own)
        ]
        return tuple(declared)

    @classmethod
    def environment_names(cls, declared: Option) -> tuple[str, ...]:
        """The environment variables that set an option, the one that counts first in front."""
        return (cls.prefix + declared.name.upper().replace("-", "_"), *declared.env)

    def conflict(self) -> str | None:
        """What is wrong with the values taken together, as one sentence; None when nothing is."""
        return None


def resolve(
    cls: type[S],
    given: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    toml_text: str | None = None,
    toml_name: str = "",
    checks: Mapping[str, Check] | None = None,
) -> S:
    """Settle every option of a role.

    :param given: what the command line says: option name to the texts given, in their order.
    :param environ: the environment.
    :param toml_text: the content of the configuration file, None when there is none.
    :param toml_name: what errors call that file.
    :param checks: option name to a further check of one value, for what this floor cannot know; it raises
        ValueError with what is wrong and what is expected.
    :raises SettingError: for the first setting that cannot be used, overridden ones of the file included.
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
                values[declared.name.replace("-", "_")] = value
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
    """The value of an option; of many, each once. The last text counts where there can be only one."""
    try:
        values = [parse(text) for text in texts]
        if check is not None:
            for value in values:
                check(value)
    except ValueError as error:
        raise SettingError(f"{place}: {error}") from None
    return tuple(dict.fromkeys(values)) if declared.many else values[-1]


@dataclass(frozen=True)
class LinkSettings(Settings):
    """What every role that serves and dials links can be told of them (protocol.md sections 2 and 8)."""

    ping_interval: float = option(30.0, seconds(0.1), "how often a served link is pinged")
    silence_timeout: float = option(60.0, seconds(0.1), "silence after which a served link is closed")
    dial_silence_timeout: float = option(90.0, seconds(0.1), "silence after which a dialled link is closed")
    handshake_timeout: float = option(10.0, seconds(0.1), "how long a link may take to open or to close")
    session_window: float = option(
        120.0, seconds(0, 3600), "how long a link that was cut is waited for, its session with it"
    )
    slow_timeout: float = option(
        30.0, seconds(0.5), "a link that takes nothing of what waits for it for so long is closed with 4408"
    )
    backpressure_time: float = option(
        5.0, seconds(0, 60), "how long those that feed a full link are not read from while it drains"
    )
    buffer_limit: int = option(2**28, size(2**16), "how much may wait for all links together")
    keep_tags: tuple[str, ...] = option(
        ("alert", "user-generated"),
        word("TAG"),
        "event tags whose records are dropped last when too much waits",
        many=True,
    )
    drain_timeout: float = option(5.0, seconds(0, 600), "how long to send what waits before going away")
    message_limit: int = option(2**20, size(1024, 2**30), "largest message that a link may send")
    header_limit: int = option(
        2**14, size(1024, 2**20), "largest opening handshake of a link, and largest head of an HTTP request"
    )
    link_limit: int = option(
        20_000, integer(1, 10**6), "how many links are served at a time; more are answered with 503"
    )
    address_limit: int = option(
        10_000,
        integer(1, 10**6),
        "how many of them from one address; a proxy is one address",
    )
    record_rate: int = option(
        0,
        integer(0, 10**9),
        "records a second that a messenger or an outside service may send, ten seconds' worth at once; what"
        " sends more is closed with 4429; 0 sets no limit",
    )
    byte_rate: int = option(0, size(0), "the same in bytes a second")
    http_connections: int = option(
        1000, integer(1, 10**6), "HTTP connections at a time, links not counted; more are answered with 503"
    )
    json_depth: int = option(64, integer(1, 500), "how deeply an event that comes by HTTP may be nested")
    log_level: str = option(
        "info", choice("LEVEL", LOG_LEVELS), f"the least level to log: {', '.join(LOG_LEVELS)}"
    )

    def conflict(self) -> str | None:
        """A served link must be pinged before its silence ends it."""
        if self.silence_timeout <= self.ping_interval:
            return (
                f"silence-timeout ({show_seconds(self.silence_timeout)}) must be longer than ping-interval "
                f"({show_seconds(self.ping_interval)}), or idle links would be closed between two pings"
            )
        return None
