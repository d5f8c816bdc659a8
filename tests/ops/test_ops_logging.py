"""The level that changes while running, and the lines that cannot flood the log."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent

from ces.ops.logging import LEVELS, Limited, LogLevels


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def log(lines) -> Logger:
    def write(event: LogEvent) -> None:
        lines.append(f"{event['log_level'].name}: {formatEvent(event)}")

    return LogLevels("debug", write).logger("ces.test")


def test_events_below_the_level_are_not_logged():
    published: list[LogEvent] = []
    log = LogLevels("warn", published.append).logger("ces.test")
    for level in LEVELS:
        getattr(log, level)("at {name}", name=level)
    assert [formatEvent(event) for event in published] == ["at warn", "at error", "at critical"]
    assert {event["log_namespace"] for event in published} == {"ces.test"}


def test_a_new_level_holds_for_loggers_made_before():
    published: list[LogEvent] = []
    levels = LogLevels("error", published.append)
    log = levels.logger("ces.test")
    log.info("one")
    levels.set("debug")
    log.info("two")
    assert levels.level == "debug"
    assert [formatEvent(event) for event in published] == ["two"]


@pytest.mark.parametrize("level", ["loud", "", "INFO", "warning"])
def test_an_unknown_level_is_refused_with_a_sentence_and_changes_nothing(level):
    levels = LogLevels("warn")
    with pytest.raises(ValueError) as caught:
        levels.set(level)
    assert str(caught.value) == (
        f"there is no log level {level!r}; expected one of debug, info, warn, error, critical"
    )
    assert levels.level == "warn"


def test_the_first_line_of_a_key_is_written_at_once_and_the_next_ones_are_counted(log, lines):
    clock = Clock()
    limited = Limited(log, clock)
    for number in range(4):
        limited.warn("full", "number {number}", number=number)
    assert lines == ["warn: number 0"]
    clock.advance(9.9)
    limited.warn("full", "number {number}", number=4)
    clock.advance(0.1)
    limited.warn("full", "number {number}", number=5)
    clock.advance(20)
    limited.warn("full", "number {number}", number=6)
    assert lines[1:] == ["warn: number 5 (4 more like this in the last 10 s)", "warn: number 6"]


def test_keys_are_limited_each_on_its_own_and_every_level_is_there(log, lines):
    limited = Limited(log, Clock())
    for name in ("debug", "info", "warn", "error"):
        getattr(limited, name)(name, "a line")
        getattr(limited, name)(name, "another line")
    assert lines == ["debug: a line", "info: a line", "warn: a line", "error: a line"]


def test_many_keys_at_a_time_write_one_line_each_up_to_the_bound_and_one_for_the_rest(log, lines):
    clock = Clock()
    limited = Limited(log, clock, keys=3)
    for number in range(50):
        limited.info(f"peer {number}", "from {number}", number=number)
    assert lines == [f"info: from {number}" for number in range(4)]
    clock.advance(10)
    limited.info("peer 0", "from {number}", number=0)
    assert lines[4:] == ["info: from 0"]


def test_a_key_that_is_quiet_makes_room_for_a_new_one(log, lines):
    clock = Clock()
    limited = Limited(log, clock, keys=2)
    limited.info("a", "a")
    clock.advance(6)
    limited.info("b", "b")
    clock.advance(6)
    limited.info("c", "c")
    limited.info("c", "c again")
    limited.info("b", "b again")
    assert lines == ["info: a", "info: b", "info: c"]


def test_what_too_many_keys_left_out_is_told_with_the_next_line_that_they_share(log, lines):
    clock = Clock()
    limited = Limited(log, clock, keys=1)
    for _ in range(2):
        limited.info("a", "a")
        for number in range(3):
            limited.info(f"other {number}", "other")
        clock.advance(5)
    clock.advance(1)
    limited.info("a", "a")
    limited.info("another", "another")
    assert lines[:2] == ["info: a", "info: other"]
    assert lines[2:] == [
        "info: a (1 more like this in the last 11 s)",
        "info: another (5 more like this in the last 11 s)",
    ]


def test_fields_of_the_line_that_is_left_out_are_not_kept(log, lines):
    clock = Clock()
    limited = Limited(log, clock)
    limited.warn("key", "{what} {left}", what="a", left="b")
    limited.warn("key", "{what} {left}", what="c", left="d")
    clock.advance(10)
    limited.warn("key", "{what} {left}", what="e", left="f")
    assert lines == ["warn: a b", "warn: e f (1 more like this in the last 10 s)"]


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("Größe {0} %s", "Größe {0} %s"),
        ("one\r\n2026-11-23T08:00:00+0000 [-] two", r"one\r\n2026-11-23T08:00:00+0000 [-] two"),
        ("\u2028\u2029\x85\x0b", r"\u2028\u2029\x85\x0b"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_peer_says_stays_on_its_line_and_commands_no_terminal(log, lines, said, written):
    Limited(log, Clock()).warn("key", "it says {reason}, {count}", reason=said, count=1)
    assert lines == [f"warn: it says {written}, 1"]
