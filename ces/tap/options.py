"""The twistd options of a role, built from its settings.

An error is one sentence on stderr that begins with the name of the program, with exit status 1: never a usage
page, never a traceback. ``--check`` reads all settings, reports the first error or that there is none, and
exits.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorCore
from twisted.python.usage import Options, UsageError

import ces
from ces.access.bearer import Bearer, TokenError
from ces.access.file import AccessError, access_of
from ces.config.link import LinkSettings
from ces.config.settings import Option, SettingError, Settings, resolve
from ces.config.values import did_you_mean
from ces.ops.descriptors import too_low

S = TypeVar("S", bound=LinkSettings)

CONFIG_HELP = "Configuration file (TOML) whose keys are the names of these options"
CHECK_HELP = (
    "Check all settings, the files that they name and the limit of descriptors, report the first error, and"
    " exit"
)
VERSION_HELP = "Print the version and exit"
HELP_HELP = "Print this text and exit"


def check_endpoint(description: str) -> None:
    """Check that a text describes a Twisted server endpoint, as far as possible without listening.

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
    """Why Twisted refuses an endpoint; in our words where those of Twisted are about its code."""
    match error:
        case OSError(filename=str()):
            return f"{error.filename}: {error.strerror}"
        case TypeError() | KeyError() | IndexError():
            return "a part is missing, or there is one too many"
        case ValueError() if "int()" in str(error):
            return "a part that must be a number is not one"
        case _:
            return str(error)


class RoleOptions(Options, Generic[S]):
    """The options of one role, which a subclass names.

    :param environ: the environment variables; by default those of the process.

    settings: the result, once `parseOptions` has returned.
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
        """Read the command line, the environment and the file.

        :raises SystemExit: with a sentence that begins with the name of the program; 0 after ``--check``.
        """
        try:
            super().parseOptions(options)
        except UsageError as error:
            raise SystemExit(f"{self.program}: {self._usage_fault(str(error))}") from None
        except SettingError as error:
            raise SystemExit(f"{self.program}: {error}") from None

    def parseArgs(self, *args: str) -> None:
        """Refuse arguments that are not options."""
        if args:
            raise UsageError(f"unexpected argument {args[0]!r}; every setting is an option: see --help")

    def postOptions(self) -> None:
        """Read and check all settings."""
        text = self._config_text()
        known = {declared.name for declared in self.settings_class.options()}
        checks = {"listen": check_endpoint} if "listen" in known else {}
        resolved = resolve(self.settings_class, self.given, self._environ, text, self._config, checks)
        self.settings = self.complete(cast(S, resolved))
        if self._check:
            print(f"{self.program}: the configuration is valid")
            fault = too_low(self.settings.descriptors)
            if fault is not None:
                print(f"{self.program}: {fault}", file=sys.stderr)
            raise SystemExit(0)

    def complete(self, settings: S) -> S:
        """Check the files that settings name, and make their paths absolute.

        twistd may change the working directory before they are used.

        :raises SettingError: with a sentence that says what is wrong and where.
        """
        if not isinstance(settings, LinkSettings):
            return settings
        try:
            access_of(settings.access)
            Bearer(file=settings.token_file)
        except (AccessError, TokenError) as error:
            raise SettingError(str(error)) from None
        return dataclasses.replace(
            settings,
            access=os.path.abspath(settings.access) if settings.access else "",
            token_file=os.path.abspath(settings.token_file) if settings.token_file else "",
        )

    def opt_config(self, file: str) -> None:
        """Take the file that CONFIG_HELP describes."""
        self._config = file

    def opt_check(self) -> None:
        """Do what CHECK_HELP says."""
        self._check = True

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"{self.program} {ces.__version__}")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The text that ``--help`` prints."""
        settings = self.settings_class
        rows = [_help_row(settings, declared) for declared in settings.options()]
        rows += [("--config FILE", f"{CONFIG_HELP} [{settings.prefix}CONFIG]"), ("--check", CHECK_HELP)]
        rows += [("--version", VERSION_HELP), ("--help", HELP_HELP)]
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
                "Options, each with the environment variables that set it too:",
                *lines,
                "",
                "Precedence: the command line, then the environment, then the file, then the default.",
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
                f"{self._config}: not UTF-8 at byte {error.start}; TOML must be UTF-8"
            ) from None

    def _usage_fault(self, text: str) -> str:
        """An error of Twisted or getopt, in our words."""
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
            "not a unique prefix": "several options begin like this; write the name in full",
        }.get(fault, fault)


def _option_methods(declared: Option) -> dict[str, Callable[..., None]]:
    """The methods from which Twisted's Options learns of an option: name to method."""

    def give(self: RoleOptions[Any], value: str) -> None:
        self.given.setdefault(declared.name, []).append(value)

    def switch_on(self: RoleOptions[Any]) -> None:
        give(self, "true")

    def switch_off(self: RoleOptions[Any]) -> None:
        give(self, "false")

    if declared.is_flag:
        return {declared.name: switch_on, f"no-{declared.name}": switch_off}
    return {declared.name: give}


def _help_row(settings: type[Settings], declared: Option) -> tuple[str, str]:
    names = settings.environment_names(declared)
    bounds = f" ({declared.kind.values})" if declared.kind.least is not None else ""
    default = f"; default {declared.shown_default}" if declared.shown_default else ""
    often = "; may be repeated" if declared.many else ""
    flag = f"--{declared.name}, --no-{declared.name}"
    name = flag if declared.is_flag else f"--{declared.name} {declared.kind.metavar}"
    return name, f"{declared.help}{often}{default}{bounds} [{', '.join(names)}]"
