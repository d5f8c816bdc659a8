"""The fixtures that hold for every test catch what they are for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LEAKY = """
import pytest_twisted
from hypothesis import given, strategies
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger


def reactor():
    from twisted.internet import reactor
    return reactor


def test_leaves_a_delayed_call():
    reactor().callLater(3600, print)


def test_leaves_a_port():
    reactor().listenTCP(0, Factory(), interface="127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_leaves_a_failure_in_the_log():
    try:
        1 / 0
    except ZeroDivisionError:
        Logger().failure("a step went wrong")


def test_leaves_an_unhandled_error():
    Deferred().errback(ValueError("nobody looks"))


@given(strategies.booleans())
def test_leaves_an_unhandled_error_in_one_example(value):
    if value:
        Deferred().errback(ValueError("nobody looks"))


def test_expects_its_failure(logged_failures):
    Deferred().errback(ValueError("nobody looks"))
    [failure] = logged_failures.flush(ValueError)
    assert str(failure.value) == "nobody looks"
    assert logged_failures.flush() == []


@pytest_twisted.ensureDeferred
async def test_cleans_up():
    call = reactor().callLater(3600, print)
    port = reactor().listenTCP(0, Factory(), interface="127.0.0.1")
    call.cancel()
    await port.stopListening()


def test_does_nothing():
    pass
"""


def test_each_leak_is_an_error_of_the_test_that_left_it_alone(tmp_path):
    conftest = (Path(__file__).parent / "conftest.py").read_text()
    assert "SETTLE = 2.0" in conftest
    (tmp_path / "conftest.py").write_text(conftest.replace("SETTLE = 2.0", "SETTLE = 0.1"))
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    summary = [line for line in done.stdout.splitlines() if line.startswith(("PASSED", "ERROR", "FAILED"))]
    errors = {line.split("::")[1].split()[0] for line in summary if line.startswith("ERROR")}
    passed = {line.split("::")[1].split()[0] for line in summary if line.startswith("PASSED")}
    assert errors == {name for name in passed if name.startswith("test_leaves_")}
    assert len(errors) == 5
    assert len(passed) == 8
    for sign in ("left on the reactor", "a step went wrong", "nobody looks", "Port"):
        assert sign in done.stdout
