"""twistd's options of a role, built from its settings: command line, environment and file in one place.

Whatever is wrong is one sentence on stderr that begins with the program's name, and exit status 1: never a
usage page, never a traceback. ``--check`` settles the lot, says so and exits.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorCore
from twisted.python.usage import Options, UsageError

import ces
from ces.config.settings import Option, SettingError, Settings, resolve
from ces.config.values import did_you_mean

S = TypeVar("S", bound=Settings)

CONFIG_HELP = "configuration file (TOML) with these options' names as its keys"
CHECK_HELP = "check every setting and the files they name, say what is wrong, and exit"


def check_endpoint(description: str) -> None:
    """Check that a text describes a Twisted server endpoint, as far as one can without listening.

    :raises ValueError: with what is wrong and what is expected.
    """
    expected = f"expected a Twisted endpoint such as tcp:7100:interface=127.0.0.1, got {description!r}"
    try:
        # No reactor: an endpoint only keeps it until it listens.
        serverFromString(cast(IReactorCore, None), description)
    except Exception as error:  # Each kind of endpoint has its own way to refuse, and plugins may add more.
        raise ValueError(f"{expected} ({_endpoint_fault(error)})") from None
    port = re.match(r"(?:tcp6?|ssl):(?:port=)?([0-9]+)", description)
    if port and int(port[1]) > 65535:
        raise ValueError(f"{expected} (a port is at most 65535)")


def _endpoint_fault(error: Exception) -> str:
    """Why Twisted refuses an endpoint, where its own words speak of its code."""
    match error:
        case OSError(filename=str()):
            return f"{error.filename}: {error.strerror}"
        case TypeError() | KeyError() | IndexError():
            return "a part of it is missing or too much"
        case ValueError() if "int()" in str(error):
            return "a part that has to be a number is none"
        case _:
            return str(error)


class RoleOptions(Options, Generic[S]):
    """The options of one role; a subclass says which.

    :param environ: where settings come from that the command line does not give.

    settings: what was settled, once `parseOptions` has returned.
    """

    program: ClassVar[str]
    summary: ClassVar[str]
    settings_class: ClassVar[type[Settings]]
    settings: S

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for declared in cls.settings_class.options():
            for name, method in _option_methods(declared).items():
                setattr(cls, f"opt_{name.replace('-', '_')}", method)

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._environ = os.environ if environ is None else environ
        self._config = self._environ.get(f"{self.settings_class.prefix}CONFIG", "")
        self._check = False
        self.given: dict[str, list[str]] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line and settle every option.

        :raises SystemExit: with a sentence that begins with the program's name; 0 after ``--check``.
        """
        try:
            super().parseOptions(options)
        except UsageError as error:
            raise SystemExit(f"{self.program}: {self._usage_fault(str(error))}") from None
        except SettingError as error:
            raise SystemExit(f"{self.program}: {error}") from None

    def parseArgs(self, *args: str) -> None:
        """Refuse what is no option."""
        if args:
            raise UsageError(f"unexpected argument {args[0]!r}; every setting is an option: see --help")

    def postOptions(self) -> None:
        """Settle the lot."""
        text = self._config_text()
        known = {declared.name for declared in self.settings_class.options()}
        checks = {"listen": check_endpoint} if "listen" in known else {}
        settled = resolve(self.settings_class, self.given, self._environ, text, self._config, checks)
        self.settings = self.complete(cast(S, settled))
        if self._check:
            print(f"{self.program}: the configuration is valid")
            raise SystemExit(0)

    def complete(self, settings: S) -> S:
        """Work out what only this floor can know, and check the files that settings name.

        :raises SettingError: with a sentence that says where and what is wrong.
        """
        return settings

    def opt_config(self, file: str) -> None:
        """Named by CONFIG_HELP."""
        self._config = file

    def opt_check(self) -> None:
        """Named by CHECK_HELP."""
        self._check = True

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"{self.program} {ces.__version__}")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """What ``--help`` prints."""
        prefix = self.settings_class.prefix
        rows = [_help_row(declared, prefix) for declared in self.settings_class.options()]
        rows += [("--config FILE", f"{CONFIG_HELP} [{prefix}CONFIG]"), ("--check", CHECK_HELP)]
        rows += [("--version", "print the version and exit"), ("--help", "print this and exit")]
        column = max(len(name) for name, _ in rows) + 4
        lines = [
            textwrap.fill(
                f"  {name}".ljust(column) + text,
                max(width or 0, 100),
                subsequent_indent=" " * column,
                break_on_hyphens=False,
                break_long_words=False,
            )
            for name, text in rows
        ]
        return "\n".join(
            [
                self.summary,
                "",
                "Options, each with the environment variables that also set it:",
                *lines,
                "",
                "The command line wins over the environment, that over the file, the file over the default.",
            ]
        )

    def _config_text(self) -> str | None:
        if not self._config:
            return None
        try:
            return Path(self._config).read_text(encoding="utf-8")
        except OSError as error:
            raise SettingError(f"configuration file {self._config}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise SettingError(
                f"{self._config}: not UTF-8 at byte {error.start}, as TOML has to be"
            ) from None

    def _usage_fault(self, text: str) -> str:
        """Twisted's and getopt's complaint in the words of this project."""
        match = re.fullmatch(r"option (--?\S*) (.*)", text)
        if match is None:
            return text
        option, fault = match[1], match[2]
        if fault == "not recognized":
            names = [f"--{name.rstrip('=')}" for name in cast(list[str], cast(Any, self).longOpt)]
            return f"option {option}: no such option{did_you_mean(option, names) or '; see --help'}"
        return f"option {option}: " + {
            "requires argument": "a value is missing",
            "must not have an argument": "takes no value",
            "not a unique prefix": "several options begin so; write it in full",
        }.get(fault, fault)


def _option_methods(declared: Option) -> dict[str, Callable[..., None]]:
    """The methods by which Twisted's Options learns of an option: name to method."""

    def give(self: RoleOptions[Any], value: str) -> None:
        self.given.setdefault(declared.name, []).append(value)

    def switch_on(self: RoleOptions[Any]) -> None:
        give(self, "true")

    def switch_off(self: RoleOptions[Any]) -> None:
        give(self, "false")

    if declared.is_flag:
        return {declared.name: switch_on, f"no-{declared.name}": switch_off}
    return {declared.name: give}


def _help_row(declared: Option, prefix: str) -> tuple[str, str]:
    names = [f"{prefix}{declared.name.upper().replace('-', '_')}", *declared.env]
    default = f"; default {declared.shown_default}" if declared.shown_default else ""
    often = "; may be repeated" if declared.many else ""
    flag = f"--{declared.name}, --no-{declared.name}"
    name = flag if declared.is_flag else f"--{declared.name} {declared.kind.metavar}"
    return name, f"{declared.help}{often}{default} [{', '.join(names)}]"
