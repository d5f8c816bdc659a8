"""Several kinds of fault at a time: one to three of them, drawn from a seed.

Beside the faults of the network (`tests.support.faults`) there are those of processes:

==========  ==============================================================================================
clock       the system clock of a process is set, forward or back, by seconds to hours
sleep       a process is stopped (SIGSTOP) for a while: a laptop that sleeps, a machine that is moved
==========  ==============================================================================================

A run adds kinds of its own. Kinds are dealt like cards: each comes once before any comes again, so that a
short run has them all.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from tests.support.faults import FAULTS, REFUSALS, Proxy
from tests.support.wall import Wall

MOST = 3
"""Faults at a time, at most."""

STEPS = (1.0, 5.0, 60.0, 900.0, 3600.0, 6 * 3600.0)
"""A clock is set by up to twice so many seconds."""

FAR = 24 * 3600.0
"""A clock that is farther off than this is set towards the right time."""

NETWORK = (*FAULTS, *REFUSALS)


class Trouble:
    """Injects faults.

    :param proxies: those whose connections suffer. The list may grow.
    :param pids: the processes that may sleep, asked each time.
    :param walls: the clocks that may be set.
    :param sleep: the shortest and the longest sleep, in seconds.
    :param more: further kinds; each is called to inject one, and returns whether it could.

    done: how many faults of each kind there were.
    """

    def __init__(
        self,
        seed: int,
        reactor: Any,
        proxies: Sequence[Proxy],
        pids: Callable[[], Iterable[int | None]],
        walls: Sequence[Wall],
        sleep: tuple[float, float],
        more: dict[str, Callable[[], bool]] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.latest: list[str] = []
        """What was injected in this round, for those who look for what caused a finding."""
        self._reactor, self._proxies, self._pids, self._walls = reactor, proxies, pids, walls
        self._sleep = sleep
        self._asleep: dict[int, IDelayedCall] = {}
        self._kinds: dict[str, Callable[[], bool]] = {
            **{name: lambda name=name: self._cut(name) for name in NETWORK},  # type: ignore[misc]
            "clock": self._set_clock,
            "sleep": self._put_to_sleep,
            **(more or {}),
        }
        self._deck: list[str] = []

    def strike(self) -> None:
        """Inject one to three faults."""
        for _ in range(self.random.randint(1, MOST)):
            if not self._deck:
                self._deck = self.random.sample(list(self._kinds), len(self._kinds))
            # A kind that is not possible now (everything is cut) stays for the next time.
            for name in list(self._deck):
                if self._kinds[name]():
                    self._deck.remove(name)
                    self.done[name] += 1
                    self.latest.append(name)
                    break

    def leave_out(self, kinds: Iterable[str]) -> None:
        """Inject no faults of these kinds."""
        for name in kinds:
            del self._kinds[name]

    @property
    def count(self) -> int:
        """How many faults there were."""
        return self.done.total()

    def rest(self) -> None:
        """End what lasts: wake all that sleep."""
        for pid in list(self._asleep):
            self.wake(pid)

    @property
    def lasts(self) -> bool:
        """Whether a proxy still answers by itself, or a process still sleeps."""
        return bool(self._asleep) or any(proxy.refusing for proxy in self._proxies)

    # -- the kinds -------------------------------------------------------------------------------------------

    def _cut(self, name: str) -> bool:
        proxies = list(self._proxies)
        self.random.shuffle(proxies)
        return any(proxy.strike((name,)) for proxy in proxies)

    def _set_clock(self) -> bool:
        if not self._walls:
            return False
        wall = self.random.choice(self._walls)
        step = self.random.choice(STEPS) * self.random.uniform(1, 2) * self.random.choice((-1, 1))
        if abs(wall.offset) > FAR:
            step = -abs(step) if wall.offset > 0 else abs(step)
        wall.step(step)
        return True

    def _put_to_sleep(self) -> bool:
        awake = [pid for pid in self._pids() if pid is not None and pid not in self._asleep]
        if not awake:
            return False
        self.stop(self.random.choice(awake), self.random.uniform(*self._sleep))
        return True

    def stop(self, pid: int, seconds: float) -> None:
        """Stop a process for a while."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._asleep[pid] = self._reactor.callLater(seconds, self.wake, pid)

    def wake(self, pid: int) -> None:
        """Continue a process."""
        call = self._asleep.pop(pid, None)
        if call is not None and call.active():
            call.cancel()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
