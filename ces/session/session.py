"""What one side has received in a session, and what it has acknowledged (docs/protocol.md section 5).

Pure: counts, no clock. The sending half of a session is `ces.session.queue.SendQueue`. Both halves outlive
the connections that carry them.
"""

from __future__ import annotations

ACK_RECORDS = 256
ACK_BYTES = 256 * 1024
"""An acknowledgement is due at the latest after this number of records, or of bytes."""

ACK_SECONDS = 0.1
"""An acknowledgement is due at the latest after this time, in seconds."""

ACK_CHANGES = 4
"""An acknowledgement is due at the latest after this number of subscription changes: half of those that may
be in flight (`ces.session.interest.WINDOW`).
"""


class Session:
    """The receiving half of one session.

    :param id: names the session; "" on ces.1, where nothing is acknowledged.

    received: records for which this side has taken responsibility.
    reported: how many of them the other side has been told of.
    changes: subscription changes that this side has taken.
    changes_reported: how many of them the other side has been told of.
    gaps: gaps that the other side has told this side of.
    """

    __slots__ = ("_fresh", "changes", "changes_reported", "gaps", "id", "received", "reported")

    def __init__(self, id: str = "") -> None:
        self.id = id
        self.received = 0
        self.reported = 0
        self.changes = self.changes_reported = self.gaps = 0
        self._fresh = 0

    def took(self, records: int, size: int) -> bool:
        """Responsibility was taken for records that came; whether an acknowledgement is due at once."""
        self.received += records
        self._fresh += size
        return self.received - self.reported >= ACK_RECORDS or self._fresh >= ACK_BYTES

    def took_change(self) -> bool:
        """A subscription change was taken; whether an acknowledgement is due at once."""
        self.changes += 1
        return self.changes - self.changes_reported >= ACK_CHANGES

    @property
    def unreported(self) -> bool:
        """Whether anything received is not acknowledged."""
        return self.received != self.reported or self.changes != self.changes_reported

    def report(self) -> int:
        """The number to acknowledge. It counts as told from now on."""
        self.reported = self.received
        self.changes_reported = self.changes
        self._fresh = 0
        return self.received
