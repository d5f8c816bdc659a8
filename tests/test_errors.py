"""The errors of the project have one base class."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import ces
from ces.event import EventError
from ces.link.listen import CannotServe
from ces.messenger import TimedOut, Unconfirmed
from ces.session.queue import OutOfStep


def exceptions() -> Iterator[type[BaseException]]:
    """Every exception class that a module of `ces` defines."""
    for found in pkgutil.walk_packages(ces.__path__, "ces."):
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, BaseException):
                yield value


def test_every_error_of_the_project_is_a_ces_error() -> None:
    found = list(exceptions())
    assert len(found) > 10, "the walk found the modules"
    assert [error for error in found if not issubclass(error, ces.Error)] == []


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (EventError, ValueError),
        (OutOfStep, ValueError),
        (TimedOut, TimeoutError),
        (Unconfirmed, ConnectionError),
        (CannotServe, SystemExit),
    ],
)
def test_an_error_is_still_of_the_built_in_kind(error: type[BaseException], base: type) -> None:
    assert issubclass(error, base)
    assert str(error("why")) == "why"


def test_a_service_that_cannot_serve_ends_the_process_with_its_sentence() -> None:
    assert CannotServe("why").code == "why"
