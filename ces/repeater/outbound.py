"""What goes out: the pool of targets.

Owns one target per address, for as long as the routes name it or something is under way to it; does not
know rooms. Targets are independent: each has its own queue, delay and bounds, so that a dead one holds up
no other. What waits for a target that is away is looked at once in `SWEEP` seconds, while anything waits.

What targets did not get in the end is kept, by URL, for all of them together; it can be sent again whether or
not the routes still name the target, for who asks for that knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall

from ces.link.protocol import Link
from ces.link.side import Side
from ces.model.address import HTTP_SCHEMES, WEBSOCKET_SCHEMES, parse_address
from ces.model.wire import Run
from ces.repeater.http_target import HttpTarget
from ces.repeater.idle import Idle
from ces.repeater.link_target import IDLE, LinkTarget
from ces.repeater.settings import DEFAULT_PORT
from ces.repeater.target import LEAVING, Target, TargetLimits
from ces.repeater.undelivered import Entry, Undelivered

SWEEP = 1.0


class Pool:
    """The targets of one repeater.

    :param name: the repeater's id.
    :param side: of the repeater, which hands on what its links to targets do.
    :param client: for HTTP targets.
    :param undelivered: keeps what targets did not get.
    """

    def __init__(
        self,
        name: str,
        side: Side,
        limits: TargetLimits,
        client: HTTPClient,
        reactor: object,
        undelivered: Undelivered,
    ) -> None:
        self.undelivered = undelivered
        self._name = name
        self._side = side
        self._limits = limits
        self._client = client
        self._reactor = reactor
        self._idle: Idle[LinkTarget] = Idle(limits.idle_ttl, side.clock, LinkTarget.rest)
        self._targets: dict[str, Target] = {}
        self._routed: frozenset[str] = frozenset()
        self._sweeping: IDelayedCall | None = None
        self._stopped = False
        self._gone = {"sent": 0, "dropped": 0, "failures": 0}

    def route(self, urls: Iterable[str]) -> None:
        """The routes name these targets from now on; others end when they are idle."""
        self._routed = frozenset(urls)
        for url in sorted(self._routed):
            self._target(url)
        self._sweep_soon()

    def put(self, url: str, run: Run) -> None:
        """Send records to a target."""
        target = self._target(url)
        if self._stopped:
            target.drop(run.count, LEAVING)
            return
        target.put(run)
        if target.holds:
            self._sweep_soon()

    def retry(self, url: str | None = None) -> int:
        """Give what is undelivered back to its target, or to all, oldest first and behind what waits, and
        let them try it at once.

        :return: how many records that was. What does not fit beside what waits stays undelivered.
        """
        if self._stopped:
            return 0
        space: dict[str, int] = {}

        def fits(entry: Entry) -> bool:
            if url not in (None, entry.target):
                return False
            if entry.target not in space:
                space[entry.target] = self._limits.buffer - self._target(entry.target).waiting
            # One that does not fit keeps those behind it from overtaking.
            space[entry.target] -= len(entry.batch)
            return space[entry.target] >= 0

        entries = self.undelivered.take(fits)
        for entry in entries:
            self.put(entry.target, entry.run)
        for known in space:
            self._target(known).wake()
        self._sweep_soon()  # for targets that no route names
        return sum(entry.records for entry in entries)

    def received(self, link: Link) -> None:
        """Something came back on a link to a target."""
        target = self._of(link)
        if target is not None:
            target.received(link)

    def left(self, link: Link) -> None:
        """A link to a target has ended."""
        target = self._of(link)
        if target is not None:
            target.left(link)
            if target.holds:
                self._sweep_soon()

    def stop(self) -> Deferred[Any]:
        """Take no more, end everything and give up what is undelivered; fires when that is done."""
        self._stopped = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        gone = DeferredList([target.stop() for target in self._targets.values()])
        lost = self.undelivered.give_up()
        if lost:
            self._side.log.warn("{records} undelivered records are lost: {why}", records=lost, why=LEAVING)
        return gone

    def status(self) -> list[dict[str, Any]]:
        """Each target with its state."""
        return [target.status() for target in self._targets.values()]

    def total(self, what: str) -> int:
        """``sent``, ``dropped`` or ``failures`` of all targets there ever were."""
        return self._gone[what] + sum([int(getattr(target, what)) for target in self._targets.values()])

    @property
    def waiting(self) -> int:
        """Bytes that wait for targets."""
        return sum(target.waiting for target in self._targets.values())

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            address = parse_address(url, DEFAULT_PORT, WEBSOCKET_SCHEMES + HTTP_SCHEMES)
            if address.scheme in HTTP_SCHEMES:
                target = HttpTarget(address, self._side, self._limits, self.undelivered, self._client)
            else:
                target = LinkTarget(
                    address,
                    self._name,
                    self._side,
                    self._limits,
                    self._idle,
                    self._reactor,
                    self.undelivered,
                )
            self._targets[url] = target
        return target

    def _of(self, link: Link) -> LinkTarget | None:
        target = self._targets.get(link.factory.address.url())
        return target if isinstance(target, LinkTarget) else None

    def _sweep_soon(self) -> None:
        if self._sweeping is None and not self._stopped:
            wait = min(SWEEP, self._limits.patience)
            self._sweeping = self._side.clock.callLater(wait, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._side.clock.seconds()
        waits = False
        for url, target in list(self._targets.items()):
            holds = target.expire(now)
            if url not in self._routed:
                if not holds and target.state == IDLE:
                    self._forget(url)
                    continue
                waits = True
            waits = waits or holds
        if waits:
            self._sweep_soon()

    def _forget(self, url: str) -> None:
        target = self._targets.pop(url)
        for what in self._gone:
            self._gone[what] += getattr(target, what)
