"""Remembers the rooms that this side has unsubscribed from.

The message that said so may be lost when the connection is cut. It is sent again after the link resumes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

R = TypeVar("R")

WITHDRAWN_ROOMS = 10_000
"""Limit of rooms remembered per link. Events of a forgotten room may still arrive after a cut; they are
ignored.
"""


def withdraw(withdrawn: dict[R, None], rooms: Iterable[R]) -> None:
    """Add `rooms` to `withdrawn`, and forget the oldest beyond `WITHDRAWN_ROOMS`."""
    withdrawn.update(dict.fromkeys(rooms))
    for room in list(islice(withdrawn, max(0, len(withdrawn) - WITHDRAWN_ROOMS))):
        del withdrawn[room]
