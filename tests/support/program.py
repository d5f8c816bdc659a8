"""Runs a test program that is called by hand on the reactor."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred


def exit_status(run: Callable[[Any], Coroutine[Any, Any, bool]]) -> int:
    """The exit status of the program: 0 when nothing was wrong.

    :param run: is given the reactor, runs the program, and returns whether all was right.
    """
    fine = False

    async def judged(reactor: Any) -> None:
        nonlocal fine
        fine = await run(reactor)

    try:
        task.react(lambda reactor: Deferred.fromCoroutine(judged(reactor)))
    except SystemExit as ended:
        return 0 if fine and not ended.code else 1
    raise AssertionError("react ends by SystemExit")
