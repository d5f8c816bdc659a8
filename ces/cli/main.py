"""The `ces` command line: parses the arguments and runs one command on the reactor.

    ces demo      [--seconds N]
    ces watch     [--hub URL] [--json] [ROOM ...]
    ces send      [--hub URL] [--tag T ...] [--user U] [--timeout S] ROOM-or-DEVICE KEY VALUE
    ces simulate  [--hub URL] [--rooms N] [--building NAME] [--rate X]
    ces reload    PIDFILE
    ces token new [--kinds K ...] [--publish P ...] [--subscribe P ...] [--to FILE] NAME

Exit status: 0 for success, 1 for a failure (one sentence on standard error says why), 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import ces
from ces.access.bearer import Bearer, TokenError
from ces.access.principal import KINDS, MESSENGER
from ces.model.address import HUB_PORT, AddressError, parse_address
from ces.model.event import Device, Event, Room, Tag, rfc3339
from ces.model.wire import event_room_fault, room_fault

__all__ = ["command_name", "event_of", "main", "parser"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ces` and return the exit status.

    :param argv: the arguments; the default is those of the process.
    """
    arguments = parser(os.environ).parse_args(argv)
    try:
        return _run(arguments)
    except KeyboardInterrupt:  # Ctrl-C before the reactor handles the signal
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports an error in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ces: {message}; see {self.prog} --help\n")


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The parser of the command line. HUB_ADDRESS in `environ` is the default hub, and CES_TOKEN_FILE
    the default token file.
    """
    hub = environ.get("HUB_ADDRESS") or f"ws://localhost:{HUB_PORT}"
    token = environ.get("CES_TOKEN_FILE", "")
    top = _Parser(prog="ces", description="The Central Event System at the command line.")
    top.add_argument("--version", action="version", version=f"ces {ces.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="run two hubs, a repeater and a simulated building")
    demo.add_argument("--seconds", type=_positive, metavar="N", help="stop after N seconds")

    watch = commands.add_parser("watch", help="show the events of rooms")
    _add_hub(watch, hub, token)
    watch.add_argument("--json", action="store_true", help="print each event's JSON, one event a line")
    watch.add_argument("rooms", nargs="*", type=_subscribed, metavar="ROOM", help="default: every room")

    send = commands.add_parser("send", help="send one event")
    _add_hub(send, hub, token)
    send.add_argument("--tag", action="append", default=[], dest="tags", metavar="T", help="may be repeated")
    send.add_argument("--user", default="", metavar="U", help="the user who caused the event")
    send.add_argument("--timeout", type=_positive, default=5.0, metavar="S", help="in seconds (default: 5)")
    send.add_argument("about", type=_tagged, metavar="ROOM-or-DEVICE", help="such as ITB-1108 or ITB-1108-D1")
    send.add_argument("key", metavar="KEY", help="such as power")
    send.add_argument("value", metavar="VALUE", help="such as on")

    simulate = commands.add_parser("simulate", help="simulate a building whose devices send events")
    _add_hub(simulate, hub, token)
    simulate.add_argument(
        "--rooms", type=_count, default=20, metavar="N", help="number of rooms (default: 20)"
    )
    simulate.add_argument(
        "--building", type=_tagged, default="ITB", metavar="NAME", help="its name (default: ITB)"
    )
    simulate.add_argument(
        "--rate", type=_positive, default=1.0, metavar="X", help="factor for the event rate (default: 1)"
    )

    reload = commands.add_parser("reload", help="let a hub or a repeater read its files again (SIGHUP)")
    reload.add_argument("pidfile", metavar="PIDFILE", help="the file that twistd --pidfile has written")

    tokens = commands.add_parser("token", help="make tokens for the access file")
    actions = tokens.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a token, and show it once with its table for the access file")
    new.add_argument("name", metavar="NAME", help="the name of the principal")
    kinds = f"some of {', '.join(KINDS)} (default: messenger)"
    new.add_argument("--kinds", nargs="+", default=[MESSENGER], metavar="K", help=kinds)
    for what, use in (("publish", "it may send to"), ("subscribe", "it may have")):
        rooms = f"rooms that {use}: ITB-1108, ITB-* or * (default: none)"
        new.add_argument(f"--{what}", nargs="+", default=[], metavar="P", help=rooms)
    new.add_argument(
        "--to", default="", metavar="FILE", help="write the token to a new file instead of showing it"
    )
    return top


def event_of(arguments: argparse.Namespace, now: datetime, sender: str) -> Event:
    """The event that the arguments of `ces send` describe. An id of three parts names a device in a room."""
    is_device = arguments.about.count("-") >= 2
    return Event(
        generating_system=sender,
        timestamp=rfc3339(now),
        event_tags=tuple(arguments.tags) or (Tag.USER_GENERATED,),
        target_device=Device.of(arguments.about) if is_device else Device(),
        affected_room=Room.of(arguments.about),
        key=arguments.key,
        value=arguments.value,
        user=arguments.user,
    )


def command_name(argv0: str, here: Path) -> str:
    """How the user can call `ces` from the directory `here`, given how this process was called (`argv0`)."""
    called = Path(argv0)
    if called.name != "ces":
        return "python -m ces.cli.main"
    absolute = here / called
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else argv0


def _at_once(arguments: argparse.Namespace) -> str:
    """Do what needs no hub and no reactor. Returns what there is to say of it.

    :raises ces.Error: when it cannot be done.
    """
    if arguments.command == "token":
        from ces.cli.token import make

        return make(
            arguments.name, arguments.kinds, arguments.publish, arguments.subscribe, file=arguments.to
        )
    from ces.cli.reload import reload

    return f"process {reload(arguments.pidfile)} reads its files again; its log says what came of it\n"


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command in ("token", "reload"):
        try:
            sys.stdout.write(_at_once(arguments))
        except ces.Error as error:
            print(f"ces: {error}", file=sys.stderr)
            return 1
        return 0
    # Imported here because it is slow: --help and wrong arguments need none of it.
    import socket

    from twisted.logger import LogLevel, globalLogBeginner

    from ces.cli import commands
    from ces.cli.demo import demo
    from ces.cli.running import Command, run
    from ces.cli.screen import Screen

    # `watch` shows its messenger's warnings. The other commands report the state of their messengers
    # themselves.
    least = LogLevel.warn if arguments.command == "watch" else LogLevel.error
    screen = Screen(sys.stdout, sys.stderr, environ=os.environ, least=least)
    observers: Any = [screen.log]  # any callable works, but Twisted's annotation requires the interface
    globalLogBeginner.beginLoggingTo(observers, discardBuffer=True, redirectStandardIO=False)
    command: Command
    if arguments.command == "demo":
        name = command_name(sys.argv[0], Path.cwd())
        command = partial(demo, screen=screen, seconds=arguments.seconds, command=name)
    elif arguments.command == "watch":
        rooms = arguments.rooms or ["*"]
        command = partial(
            commands.watch,
            screen=screen,
            hub=arguments.hub,
            token_file=arguments.token_file,
            rooms=rooms,
            as_json=arguments.json,
        )
    elif arguments.command == "send":
        event = event_of(arguments, datetime.now(UTC), socket.gethostname())
        command = partial(
            commands.send,
            screen=screen,
            hub=arguments.hub,
            token_file=arguments.token_file,
            event=event,
            timeout=arguments.timeout,
        )
    else:
        command = partial(
            commands.simulate,
            screen=screen,
            hub=arguments.hub,
            token_file=arguments.token_file,
            name=arguments.building,
            rooms=arguments.rooms,
            rate=arguments.rate,
        )
    return run(command)


def _add_hub(command: argparse.ArgumentParser, default: str, token_file: str) -> None:
    command.add_argument(
        "--hub",
        type=_hub,
        default=default,
        metavar="URL",
        help=f"host, host:port or a ws/wss URL (default: $HUB_ADDRESS, else ws://localhost:{HUB_PORT})",
    )
    command.add_argument(
        "--token-file",
        type=_token_file,
        default=token_file,
        metavar="FILE",
        help="file with the token that the hub is shown (default: $CES_TOKEN_FILE, else none)",
    )


def _token_file(text: str) -> str:
    try:
        Bearer(file=text)
    except TokenError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _hub(text: str) -> str:
    try:
        return parse_address(text, HUB_PORT).url()
    except AddressError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str, convert: Callable[[str], float], kind: str) -> float:
    try:
        number = convert(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected {kind} above 0, got {text!r}")
    return number


def _positive(text: str) -> float:
    return _number(text, float, "a number")


def _count(text: str) -> int:
    return int(_number(text, int, "a whole number"))


def _room(text: str, fault: Callable[[bytes], str | None]) -> str:
    # In arguments that are not UTF-8, Python puts lone surrogates.
    said = fault(text.encode("utf-8", "surrogateescape"))
    if said is not None:
        raise argparse.ArgumentTypeError(said)
    return text


def _subscribed(text: str) -> str:
    return _room(text, room_fault)


def _tagged(text: str) -> str:
    return _room(text, event_room_fault)


if __name__ == "__main__":
    sys.exit(main())
