"""docs/settings.md, made from the declarations of the settings.

``python -m ces.tap.reference docs/settings.md`` (``make docs``) writes the file; without an argument the text
goes to stdout. A test fails when the file is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ces.config.settings import Option, Settings
from ces.tap import hub, repeater
from ces.tap.options import CHECK_HELP, CONFIG_HELP, RoleOptions

ROLES: tuple[type[RoleOptions[Any]], ...] = (hub.Options, repeater.Options)

INTRODUCTION = """# Settings

<!-- Made by `make docs` from the declarations in ces/config/link.py, ces/hub/settings.py and
ces/repeater/settings.py. Do not edit. -->

The first of these that sets an option counts:

1. the command line: `--ping-interval 10s`
2. an environment variable: `CES_HUB_PING_INTERVAL=10s`
3. the TOML file that `--config` names: `ping-interval = "10s"`
4. the default

A time is written `30`, `30s`, `500ms`, `2m`, `1h` or `1d`; a number without a unit is in seconds. A size is
written `65536`, `512k`, `8MiB` or `1GiB`, with units of 1024; a number without a unit is in bytes. An option
that may be repeated is a list in TOML; in an environment variable its values are separated by commas or white
space. A flag is `--in-room` or `--no-in-room` on the command line, and `true` or `false` elsewhere.

`--check` checks all settings and exits. The commented files [hub.toml](../etc/hub.toml) and
[repeater.toml](../etc/repeater.toml) show every option with its default.
[Operations](operations.md#limits) says what happens at each limit, and how it shows.
"""


def page() -> str:
    """The text of docs/settings.md."""
    return "\n".join([INTRODUCTION, *(_section(role) for role in ROLES)])


def _section(role: type[RoleOptions[Any]]) -> str:
    settings = role.settings_class
    rows = [_row(settings, declared) for declared in settings.options()]
    rows.append(("`--config FILE`", f"`{settings.prefix}CONFIG`", "", "", f"{CONFIG_HELP}."))
    rows.append(("`--check`", "", "", "", f"{CHECK_HELP}."))
    head = ("option", "environment", "default", "values", "meaning")
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)]
    return "\n".join([f"## {role.program}", "", f"{role.summary}", "", *lines, ""])


def _row(settings: type[Settings], declared: Option) -> tuple[str, ...]:
    kind = declared.kind
    name = f"`--{declared.name}{' ' + kind.metavar if kind.metavar else ''}`"
    names = ", ".join(f"`{name}`" for name in settings.environment_names(declared))
    default = declared.shown_default
    if default and declared.default_text is None:
        default = " ".join(f"`{value}`" for value in default.split())
    often = "; may be repeated" if declared.many else ""
    return name, names, default, kind.values, f"{declared.help}{often}."


def main(arguments: Sequence[str]) -> None:
    """Write the page to the file that is named, or to stdout."""
    if arguments:
        Path(arguments[0]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main(sys.argv[1:])
