"""What holds for every test: nothing is left on the reactor, and no unexpected failure is logged.

And the soak, which takes a minute and little of a core: it runs beside the other tests and is asked last.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
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

SOAK = pytest.StashKey["subprocess.Popen[str]"]()
"""The process of the soak."""

SOAK_HOURS = "0.0167"

# Seconds that closing connections may take after a test; only a test that leaks waits for all of it.
SETTLE = 2.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has been running for longest is asked last."""
    items.sort(key=_of_soak)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the soak, if it is wanted."""
    if any(map(_of_soak, session.items)) and not session.config.option.collectonly:
        session.config.stash[SOAK] = subprocess.Popen(
            [sys.executable, "-m", "tests.stress.soak", SOAK_HOURS, "1"],
            cwd=session.config.rootpath,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the soak, and all that it has started, if nobody has waited for it."""
    soak = config.stash.get(SOAK, None)
    if soak is not None:
        with suppress(ProcessLookupError):
            os.killpg(soak.pid, signal.SIGKILL)
        soak.wait()
        if soak.stdout is not None:
            soak.stdout.close()


@pytest.fixture
def bare_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records weigh their bytes and no more, so that bounds can be as small as the records of a test."""
    monkeypatch.setattr(wire, "RECORD_BYTES", 0)


@pytest.fixture
def soak(pytestconfig: pytest.Config) -> subprocess.Popen[str]:
    """The soak, which runs since the tests were collected."""
    return pytestconfig.stash[SOAK]


def _of_soak(item: pytest.Item) -> bool:
    return item.path.name == "test_soak.py"


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
