"""Signals: what they ask for is done in the reactor's next turn (SIGHUP: tests/repeater/test_repeater.py)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ces.ops.signals import Termination


class Reactor:
    """Writes down what is to be done later."""

    def __init__(self) -> None:
        self.running: list[Callable[[], None]] = []
        self.later: list[Callable[[], Any]] = []

    def callWhenRunning(self, what: Callable[[], None]) -> None:
        self.running.append(what)

    def callFromThread(self, what: Callable[..., Any], *given: Any) -> None:
        self.later.append(lambda: what(*given))


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in Termination.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", Termination.SIGNALS)
def test_a_signal_interrupts_nothing(handlers: None, number: signal.Signals) -> None:
    """Seen: a hub that got SIGTERM while it wrote a line to its log hung for ever."""
    seen: list[int] = []
    reactor = Reactor()
    Termination(reactor).startService()
    signal.signal(number, lambda number, frame: seen.append(number))  # as the reactor does when it starts
    for install in reactor.running:
        install()
    os.kill(os.getpid(), number)
    assert seen == []
    reactor.later.pop()()
    assert seen == [number]


def test_what_is_ignored_stays_so(handlers: None) -> None:
    reactor = Reactor()
    Termination(reactor).startService()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for install in reactor.running:
        install()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
