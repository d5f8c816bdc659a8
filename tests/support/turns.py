"""A clock that goes on turn by turn, as a reactor does: what is due at once is due in the next turn."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock


class TurnClock(Clock):
    """Twisted's own would do all that is due at once in one `advance`, however often it is asked again."""

    def advance(self, amount: float) -> None:
        """Let time pass. No time at all is one turn."""
        if amount:
            super().advance(amount)
        else:
            self.turn()

    def turn(self) -> None:
        """Do what is due now, and nothing that is only asked for meanwhile."""
        due = [call for call in self.calls if call.getTime() <= self.seconds()]
        for call in due:
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)


class TurnReactor(TurnClock, MemoryReactorClock):
    """A reactor in memory, with such a clock."""
