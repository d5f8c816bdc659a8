"""Rooms that the other side was told are wanted no more.

On a link that is cut it may not have heard that: when the link is back it is told again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

R = TypeVar("R")

WITHDRAWN_ROOMS = 10_000
"""At most so many are remembered for a link. After a cut a room beyond them may go on to be sent, though it
has no use.
"""


def withdraw(withdrawn: dict[R, None], rooms: Iterable[R]) -> None:
    """Remember these rooms as well, and forget the oldest beyond `WITHDRAWN_ROOMS`."""
    withdrawn.update(dict.fromkeys(rooms))
    for room in list(islice(withdrawn, max(0, len(withdrawn) - WITHDRAWN_ROOMS))):
        del withdrawn[room]
