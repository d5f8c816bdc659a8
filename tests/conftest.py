"""What holds for every test: nothing is left on the reactor, and no unexpected failure is logged."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.interfaces import IListeningPort, ITransport
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher

from ces.link.direct import Sockets
from ces.model import wire
from tests.support.logged import LoggedFailures

# The same examples in every run; `pytest --hypothesis-profile=default` draws others.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Seconds that closing connections may take after a test; only a test that leaks waits for all of it.
SETTLE = 2.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long first, so that the processes which share the tests end together."""
    items.sort(key=lambda item: item.path.parent.name != "stress")
    items.sort(key=lambda item: item.path.name != "test_soak.py")


@pytest.fixture
def bare_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records weigh their bytes and no more, so that bounds can be as small as the records of a test."""
    monkeypatch.setattr(wire, "RECORD_BYTES", 0)


@pytest.fixture(scope="session", autouse=True)
def small_heap() -> None:
    """Set what is imported aside, so that collecting garbage after each test costs a millisecond."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logged_failures(small_heap: None) -> Iterator[LoggedFailures]:
    """Fail a test that logs a failure; one that means to calls ``logged_failures.flush(SomeError)``."""
    failures = LoggedFailures()
    globalLogPublisher.addObserver(failures)
    try:
        yield failures
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(failures)
    left = failures.describe()
    if left:
        pytest.fail("failures were logged:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def clean_reactor(logged_failures: LoggedFailures) -> Iterator[None]:
    """Fail a test that leaves delayed calls, listening ports or connections on the reactor."""
    from twisted.internet import reactor

    before = _occupants(reactor)
    yield
    deadline = time.monotonic() + SETTLE
    while (left := _occupants(reactor) - before) and time.monotonic() < deadline:
        pytest_twisted.blockon(deferLater(reactor, 0.001))
    described = [str(occupant) for occupant in left]
    for occupant in left:
        _evict(occupant)
    if described:
        pytest.fail("left on the reactor:\n" + "\n".join(described), pytrace=False)


def _occupants(reactor: Any) -> set[Any]:
    selectables = {*reactor.getReaders(), *reactor.getWriters()}
    nested = [one.transport for s in selectables if isinstance(s, Sockets) for one in s._reading.values()]
    selectables.update(nested)
    sockets = {s for s in selectables if IListeningPort.providedBy(s) or ITransport.providedBy(s)}
    return {*reactor.getDelayedCalls(), *sockets}


def _evict(occupant: Any) -> None:
    """Take a leak away, so that it fails the one test that left it."""
    if IListeningPort.providedBy(occupant):
        occupant.stopListening()
    elif ITransport.providedBy(occupant):
        occupant.abortConnection() if hasattr(occupant, "abortConnection") else occupant.loseConnection()
    elif occupant.active():
        occupant.cancel()
