"""The life of a connection: how it opens and closes, as a table, and what its end means for the session.

Pure: no sockets, no clock. Both ends use the same table (docs/protocol.md section 5)::

    HANDSHAKE --ces.1--> OPEN                          records flow
        |                  ^
        +----ces.2--> HELLO+--admitted                 waits for the other side's hello

    HELLO, OPEN --we close--------> CLOSING --they close--> FINISHING --> CLOSED
    HELLO, OPEN --they close, we answer--------------------> FINISHING --> CLOSED

FINISHING means that both close frames are out. The serving side then ends its half of the stream; both sides
read the other half to its end. Only then is it known that the other side has read everything. A
connection may be dropped or lost in every state, which leads to CLOSED.
"""

from __future__ import annotations

from enum import Enum, auto

NORMAL, TOO_LARGE = 1000, 1009
GOING_AWAY, PROTOCOL_ERROR, NOT_AUTHENTICATED, NOT_ALLOWED = 4001, 4400, 4401, 4403
TOO_SLOW, REPLACED, TOO_FAST = 4408, 4409, 4429
"""Close codes (docs/protocol.md section 9)."""

RESUMABLE = frozenset({None, GOING_AWAY, TOO_SLOW, REPLACED})
"""Close codes after which the session is kept; None stands for a connection that was cut."""

HEARD = frozenset({NORMAL, GOING_AWAY})
"""After closing with one of these codes, a side still takes what the other one had sent before it knew."""


class State(Enum):
    """Where a connection is in its life."""

    HANDSHAKE = auto()
    HELLO = auto()
    OPEN = auto()
    CLOSING = auto()
    FINISHING = auto()
    CLOSED = auto()


class Step(Enum):
    """What happens to a connection."""

    CES1 = auto()
    """The opening handshake is done; the dialect is ces.1."""
    CES2 = auto()
    """The opening handshake is done; the dialect is ces.2."""
    ADMITTED = auto()
    """The connection has its link."""
    CLOSE_SENT = auto()
    CLOSE_RECEIVED = auto()
    LOST = auto()
    """The connection is gone, or was dropped by this side."""


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.HANDSHAKE, Step.CES1): State.OPEN,
    (State.HANDSHAKE, Step.CES2): State.HELLO,
    (State.HELLO, Step.ADMITTED): State.OPEN,
    (State.OPEN, Step.ADMITTED): State.OPEN,
    (State.HELLO, Step.CLOSE_SENT): State.CLOSING,
    (State.OPEN, Step.CLOSE_SENT): State.CLOSING,
    (State.HELLO, Step.CLOSE_RECEIVED): State.FINISHING,
    (State.OPEN, Step.CLOSE_RECEIVED): State.FINISHING,
    (State.CLOSING, Step.CLOSE_RECEIVED): State.FINISHING,
    **{(state, Step.LOST): State.CLOSED for state in State},
}
"""Every step that may happen in a state, and where it leads."""


class Fate(Enum):
    """What becomes of a session when its connection has ended."""

    KEPT = auto()
    """It may be resumed within the window."""
    DELIVERED = auto()
    """It is over, and all that was sent has arrived."""
    UNKNOWN = auto()
    """It is over; whether what is in flight has arrived is not known."""


def fate(code: int | None, finished: bool) -> Fate:
    """What the end of a connection means for its session.

    :param code: what it was closed with, by whichever side; None when it was cut.
    :param finished: both close frames were exchanged and the other side's stream was read to its end.
    """
    if code in RESUMABLE:
        return Fate.KEPT
    return Fate.DELIVERED if finished else Fate.UNKNOWN
