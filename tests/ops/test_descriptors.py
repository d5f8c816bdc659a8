"""Descriptors: how many are left, and how a port accepts while there are few."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from twisted.internet.error import ConnectBindError, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure

from ces.ops.descriptors import (
    BATCH,
    LOOK,
    OTHER,
    PAUSE,
    RESERVE,
    UNLINKED,
    Accepting,
    for_links,
    free,
    has_spare,
    raise_limit,
    too_low,
    why_failed,
)
from tests.support.descriptors import few_descriptors


@contextmanager
def taken() -> Iterator[int]:
    """Takes all descriptors up to some number, which is that of the next one. None beyond it is taken."""
    last = max(100, *map(int, os.listdir("/proc/self/fd")))
    with ExitStack() as files:
        number = os.dup(0)
        while number <= last:
            files.callback(os.close, number)
            number = os.dup(0)
        os.close(number)
        yield number


def test_newcomers_get_what_the_reserve_leaves() -> None:
    with taken() as first:
        with few_descriptors(first + RESERVE + 5):
            assert [free(most) for most in (3, 5, 6, BATCH)] == [3, 5, 5, 5]
            assert has_spare()
        with few_descriptors(first + RESERVE):
            assert free(BATCH) == 0
            assert has_spare()
        with few_descriptors(first + 2):
            assert free(BATCH) == 0
            assert not has_spare()
        with few_descriptors(first):
            assert free(BATCH) == 0
            assert not has_spare()


def test_where_the_limit_is_low_the_reserve_is_a_part_of_it() -> None:
    with few_descriptors(64):
        assert for_links() == 64 - 16 - 8 - OTHER
    with few_descriptors(1024):
        assert for_links() == 1024 - RESERVE - UNLINKED - OTHER


def test_the_soft_limit_is_raised_to_what_is_needed_and_no_further() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with few_descriptors(256):
        assert raise_limit(1000) is None
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (
            1000 + RESERVE + UNLINKED + OTHER,
            before[1],
        )
        assert raise_limit(500) is None
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000, "it is never lowered"


def test_a_hard_limit_that_is_too_low_is_one_sentence() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = hard + RESERVE + UNLINKED + OTHER
    with few_descriptors(256):
        assert raise_limit(hard) == too_low(hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    assert too_low(hard) == (
        f"the process may have {hard} descriptors, and all connections together may need {needed}. Raise this"
        " limit (LimitNOFILE= of systemd, ulimit -n), or lower link-limit and http-connections"
    )


def test_a_dial_without_a_descriptor_failed_for_that_and_not_for_a_bind() -> None:
    assert why_failed(Failure(ConnectBindError(errno.EMFILE, "Too many open files"))).startswith(
        "no descriptor is left, the process may have "
    )
    assert why_failed(Failure(ConnectionRefusedError())) == "Connection was refused by other side", (
        "any other reason is as Twisted says it"
    )


class FakePort:
    """A port that accepts as many as it is told."""

    _logger = Logger()

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.numberAccepts = 100
        self.reading = True

    def doRead(self) -> None:
        self.accepted.append(self.numberAccepts)

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class FakeDoor:
    """Has places, and answers to `make_room` with what is in `closes`."""

    def __init__(self, *closes: bool) -> None:
        self.places = 1000
        self.closes = list(closes)

    def room(self) -> int:
        return self.places

    def make_room(self) -> bool:
        return self.closes.pop(0)


def test_a_port_accepts_no_more_than_there_are_descriptors_and_places_for() -> None:
    with taken() as first:
        port, clock, door = FakePort(), Clock(), FakeDoor()
        Accepting(port, clock, door)
        port.doRead()
        with few_descriptors(first + RESERVE + 3):
            port.doRead()
        door.places = 2
        port.doRead()
        assert port.accepted == [BATCH, 3, 2]
        assert port.reading and clock.getDelayedCalls() == []


def test_a_port_without_places_looks_again_soon() -> None:
    port, clock, door = FakePort(), Clock(), FakeDoor()
    Accepting(port, clock, door)
    door.places = 0
    port.doRead()
    assert not port.reading
    clock.advance(LOOK)
    assert port.reading and port.accepted == []


def test_a_port_pauses_while_nobody_gives_way_and_goes_on_at_once_when_one_does() -> None:
    with taken() as first:
        port, clock, door = FakePort(), Clock(), FakeDoor(False, True, False)
        accepting = Accepting(port, clock, door)
        with few_descriptors(first):
            port.doRead()
            assert not port.reading
            clock.advance(PAUSE)
            assert port.reading
            port.doRead()
            assert not port.reading
            clock.advance(0)
        assert port.reading and door.closes == [False] and port.accepted == []
        port.doRead()
        assert port.accepted == [BATCH]
        with few_descriptors(first):
            port.doRead()
        accepting.stop()
        assert clock.getDelayedCalls() == []


def test_a_port_that_fails_to_accept_pauses_and_logs_nothing_itself() -> None:
    port, clock, door = FakePort(), Clock(), FakeDoor(False)
    Accepting(port, clock, door)
    port._logger.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")
    port._logger.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")
    assert not port.reading and door.closes == []
    clock.advance(PAUSE)
    assert port.reading
