"""Views without HTTP (`ces.ops.views`)."""

from __future__ import annotations

from typing import Any

from ces.ops.views import Build


def built(build: Build) -> Any:
    """What is shown in the end."""
    while True:
        try:
            next(build)
        except StopIteration as end:
            return end.value
