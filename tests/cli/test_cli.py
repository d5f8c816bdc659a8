"""The `ces` command without a network: its grammar, its lines, its count, its way of stopping."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel

from ces.cli.ledger import Ledger
from ces.cli.line import event_line, printable
from ces.cli.main import command_name, event_of, parser
from ces.cli.process import child_environment
from ces.cli.running import Stopping
from ces.cli.screen import Screen
from ces.event import Device, Event, Room, Tag

NOW = datetime(2026, 11, 23, 8, 0, 0, 123_456, tzinfo=UTC)
EVENT = Event(
    generating_system="ITB-1108-CP1",
    timestamp="2026-11-23T08:00:00.123456Z",
    event_tags=(Tag.CORE_STATE, Tag.USER_GENERATED),
    target_device=Device.of("ITB-1108-D1"),
    affected_room=Room.of("ITB-1108"),
    key="power",
    value="on",
)
LINE = (
    "08:00:00.123  ITB-1108    D1      power               on                        "
    "core-state user-generated"
)


# The grammar


def test_watch_takes_every_room_by_default_and_the_hub_of_the_fleet() -> None:
    arguments = parser({"HUB_ADDRESS": "event-hub"}).parse_args(["watch"])
    assert arguments.rooms == []
    assert arguments.hub == "ws://event-hub:7100"
    assert arguments.json is False


def test_hub_on_the_command_line_wins_over_the_environment() -> None:
    arguments = parser({"HUB_ADDRESS": "event-hub"}).parse_args(
        ["watch", "--hub", "localhost:7200", "ITB-1108"]
    )
    assert arguments.hub == "ws://localhost:7200"
    assert arguments.rooms == ["ITB-1108"]


def test_the_hub_is_the_local_one_by_default() -> None:
    assert parser({}).parse_args(["simulate"]).hub == "ws://localhost:7100"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "ces: the following arguments are required: COMMAND; see ces --help"),
        ("watch --hub ftp://x", "scheme 'ftp'"),
        ("watch {", "argument ROOM: the room begins with '{'"),
        ("send * power on", "argument ROOM-or-DEVICE: the room is '*'"),
        ("send ITB-1108 power", "the following arguments are required: VALUE; see ces send --help"),
        ("send --timeout 0 ITB-1108 power on", "argument --timeout: expected a number above 0, got '0'"),
        ("simulate --rooms 1.5", "argument --rooms: expected a whole number above 0, got '1.5'"),
        ("simulate --rate nan", "argument --rate: expected a number above 0, got 'nan'"),
        ("demo --seconds inf", "argument --seconds: expected a number above 0, got 'inf'"),
        ("watch --jsn", "unrecognized arguments: --jsn"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_status_2(
    line: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parser({}).parse_args(line.split())
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith("ces: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_send_makes_the_event_of_a_device_with_its_room() -> None:
    arguments = parser({}).parse_args(["send", "--user", "bwood7", "ITB-1108-D1", "volume", "-5"])
    assert event_of(arguments, NOW, "front-desk") == Event(
        generating_system="front-desk",
        timestamp="2026-11-23T08:00:00.123456Z",
        event_tags=("user-generated",),
        target_device=Device.of("ITB-1108-D1"),
        affected_room=Room.of("ITB-1108"),
        key="volume",
        value="-5",
        user="bwood7",
    )


def test_send_makes_the_event_of_a_room_with_the_tags_asked_for() -> None:
    arguments = parser({}).parse_args(
        ["send", "--tag", "alert", "--tag", "metrics", "ITB-1108", "help", "on"]
    )
    event = event_of(arguments, NOW, "front-desk")
    assert event.event_tags == ("alert", "metrics")
    assert event.affected_room == Room.of("ITB-1108")
    assert event.target_device == Device()


@pytest.mark.parametrize(
    ("argv0", "name"),
    [
        ("/srv/ces/.venv/bin/ces", ".venv/bin/ces"),
        (".venv/bin/ces", ".venv/bin/ces"),
        ("/usr/bin/ces", "/usr/bin/ces"),
        ("/srv/ces/ces/cli/main.py", "python -m ces.cli.main"),
    ],
)
def test_what_there_is_to_try_can_be_typed_as_it_stands(argv0: str, name: str) -> None:
    assert command_name(argv0, Path("/srv/ces")) == name


# Lines


def test_an_event_is_one_line_of_columns() -> None:
    assert event_line(EVENT, "ITB-1108", zone=UTC, width=200) == LINE


def test_a_line_is_cut_to_the_width() -> None:
    assert event_line(EVENT, "ITB-1108", zone=UTC, width=30) == LINE[:29] + "…"


def test_a_long_value_leaves_room_for_the_tags() -> None:
    line = event_line(Event(value="x" * 4000, event_tags=("hardware-info",)), "", zone=UTC, width=10_000)
    assert line.endswith(f"  {'x' * 39}…  hardware-info")


def test_the_tags_decide_the_colour() -> None:
    assert event_line(EVENT, "ITB-1108", zone=UTC, width=200, colour=True) == f"\x1b[32m{LINE}\x1b[0m"


def test_an_event_without_anything_is_still_a_line() -> None:
    assert event_line(Event(timestamp="soon"), "", zone=UTC, width=80).split() == ["-", "-", "-"]


def test_a_device_of_another_room_shows_its_whole_id() -> None:
    assert "  ITB-1108-D1  " in event_line(EVENT, "TNRB-1", zone=UTC, width=200)


@given(st.text(), st.text(), st.integers(1, 200))
def test_nothing_from_the_wire_steers_the_terminal(value: str, room: str, width: int) -> None:
    line = event_line(Event(key=value, value=value, event_tags=(value,)), room, zone=UTC, width=width)
    assert line.isprintable()
    assert len(line) <= width


def test_an_escape_sequence_is_shown_harmlessly() -> None:
    assert printable("on\x1b[2J\r\n") == "on?[2J??"


# The screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedPipe(io.StringIO):
    """Its reader has gone; it has a descriptor of its own, as standard output has."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = os.open(os.devnull, os.O_WRONLY)

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self.descriptor


def test_colours_are_for_terminals_only() -> None:
    file, terminal = io.StringIO(), Terminal()
    Screen(file, io.StringIO(), environ={}).title("hello")
    Screen(terminal, io.StringIO(), environ={}).title("hello")
    assert file.getvalue() == "hello\n"
    assert terminal.getvalue() == "\x1b[1mhello\x1b[0m\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_refused(environ: dict[str, str]) -> None:
    terminal = Terminal()
    Screen(terminal, io.StringIO(), environ=environ).title("hello")
    assert terminal.getvalue() == "hello\n"


def test_events_go_to_the_results_and_notes_beside_them() -> None:
    results, notes = io.StringIO(), io.StringIO()
    screen = Screen(results, notes, environ={}, zone=UTC)
    screen.event(EVENT, "ITB-1108")
    screen.note("no link")
    assert results.getvalue() == LINE + "\n"
    assert notes.getvalue() == "ces: no link\n"


def test_a_reader_who_leaves_is_noticed_once_and_nothing_more_is_written() -> None:
    left: list[bool] = []
    pipe = ClosedPipe()
    screen = Screen(pipe, io.StringIO(), environ={}, reader_left=lambda: left.append(True))
    screen.line("one")
    screen.line("two")
    os.close(pipe.descriptor)
    assert left == [True]


def test_of_the_log_only_warnings_are_shown_and_no_traceback() -> None:
    notes = io.StringIO()
    screen = Screen(io.StringIO(), notes, environ={})
    log = Logger(namespace="test", observer=screen.log)  # type: ignore[arg-type]
    log.info("all is well")
    log.warn("{count} records were dropped", count=3)
    try:
        raise ValueError("no such thing")
    except ValueError:
        log.failure("it broke", level=LogLevel.error)
    assert notes.getvalue() == "ces: 3 records were dropped\nces: it broke: no such thing\n"


# The count


def test_each_event_is_sent_seen_or_missing() -> None:
    ledger = Ledger(timeout=3.0)
    ledger.sent(b"a", 0.0)
    ledger.sent(b"b", 1.0)
    ledger.seen(b"a")
    assert (ledger.sent_count, ledger.seen_count, ledger.outstanding) == (2, 1, 1)
    assert ledger.missing(3.9) == 0
    assert ledger.missing(4.0) == 1
    ledger.seen(b"b")
    assert ledger.missing(9.0) == 0


def test_an_event_that_comes_twice_and_one_from_elsewhere_are_told_apart() -> None:
    ledger = Ledger()
    ledger.sent(b"a", 0.0)
    for event in (b"a", b"a", b"b"):
        ledger.seen(event)
    assert (ledger.seen_count, ledger.twice_count, ledger.foreign_count) == (1, 1, 1)


def test_equal_events_are_counted_each() -> None:
    ledger = Ledger()
    ledger.sent(b"a", 0.0)
    ledger.sent(b"a", 1.0)
    ledger.seen(b"a")
    assert ledger.outstanding == 1
    assert ledger.missing(10.0) == 1


def test_what_is_remembered_is_bounded_and_what_is_given_up_stays_missing() -> None:
    ledger = Ledger(bound=2)
    for event in (b"a", b"b", b"c"):
        ledger.sent(event, 0.0)
    assert ledger.missing(0.0) == 1
    ledger.seen(b"b")
    ledger.seen(b"c")
    assert ledger.missing(100.0) == 1
    assert ledger.outstanding == 1


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"b", b"c"]))))
def test_the_count_agrees_with_a_plain_one(steps: list[tuple[bool, bytes]]) -> None:
    ledger, open_events, arrived = Ledger(timeout=0.0), [], 0
    for sends, event in steps:
        if sends:
            ledger.sent(event, 0.0)
            open_events.append(event)
        else:
            ledger.seen(event)
            arrived += 1
            if event in open_events:
                open_events.remove(event)
    assert ledger.missing(1.0) == ledger.outstanding == len(open_events)
    assert ledger.seen_count + ledger.twice_count + ledger.foreign_count == arrived


# Stopping


def test_a_wait_ends_when_stopping_is_requested() -> None:
    clock = Clock()
    stopping = Stopping(clock)
    answers: list[bool] = []
    stopping.within(10).addCallback(answers.append)
    stopping.within(None).addCallback(answers.append)
    stopping.request()
    stopping.request()
    assert answers == [True, True]
    assert clock.getDelayedCalls() == []
    stopping.within(10).addCallback(answers.append)
    assert answers == [True, True, True]


def test_a_wait_ends_by_itself_when_stopping_is_not_requested() -> None:
    clock = Clock()
    answers: list[bool] = []
    stopping = Stopping(clock)
    stopping.within(10).addCallback(answers.append)
    clock.advance(10)
    stopping.request()
    assert answers == [False]


def test_what_is_awaited_is_cancelled_when_stopping_is_requested() -> None:
    stopping = Stopping(Clock())
    waited_for: Deferred[None] = Deferred()
    failures: list[type[BaseException] | None] = []
    stopping.cancels(waited_for).addErrback(lambda failure: failures.append(failure.type))
    stopping.request()
    assert failures == [CancelledError]


def test_what_has_come_is_not_cancelled() -> None:
    stopping = Stopping(Clock())
    waited_for: Deferred[str] = Deferred()
    answers: list[str] = []
    stopping.cancels(waited_for).addCallback(answers.append)
    waited_for.callback("here")
    stopping.request()
    assert answers == ["here"]


# Processes


def test_children_get_none_of_the_parents_settings_and_find_the_package() -> None:
    environment = child_environment(
        {
            "PATH": "/bin",
            "CES_HUB_LISTEN": "tcp:1",
            "CES_REPEATER_ID": "x",
            "ROOM_SYSTEM": "1",
            "PYTHONPATH": "/lib",
        }
    )
    path = environment.pop("PYTHONPATH").split(os.pathsep)
    assert environment == {"PATH": "/bin"}
    assert (Path(path[0]) / "ces" / "cli").is_dir()
    assert path[1:] == ["/lib"]
