"""The pool of targets that a repeater sends events to.

Owns one target per URL, as long as the routes name it or events are under way to it. Does not know rooms.
Targets are independent: each has its own queue, delay and limits, so a dead target delays no other. While
events wait for a target that is away, a sweep drops expired ones every `SWEEP` seconds.

All targets share one queue of dead letters. It can be retried even if the routes no longer name a target: an
operator has asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treq.client import HTTPClient
from twisted.internet.defer import Deferred, DeferredList

from ces.link.link import Link
from ces.link.schedule import Step
from ces.link.side import Side
from ces.model.address import HTTP_SCHEMES, REPEATER_PORT, WEBSOCKET_SCHEMES, parse_address
from ces.model.wire import Run
from ces.repeater.http_target import HttpTarget
from ces.repeater.idle import Idle
from ces.repeater.link_target import IDLE, Came, LinkTarget
from ces.repeater.settings import RepeaterSettings
from ces.repeater.target import LEAVING, Target
from ces.repeater.undelivered import Entry, Undelivered

SWEEP = 1.0
"""Interval of the sweep, in seconds."""


class Pool:
    """The targets of one repeater.

    :param name: the repeater's id.
    :param side: the repeater's side.
    :param client: the HTTP client for HTTP targets.

    undelivered: the dead letters of all targets.
    """

    def __init__(
        self,
        name: str,
        node: str,
        side: Side[Link],
        settings: RepeaterSettings,
        client: HTTPClient,
        reactor: Any,
        undelivered: Undelivered,
        came: Came,
    ) -> None:
        self.undelivered = Undelivered(settings.undelivered_bytes)
        self._name = name
        self._node = node
        self._came = came
        self._side = side
        self._settings = settings
        self._client = client
        self._reactor = reactor
        self._idle: Idle[LinkTarget] = Idle(settings.idle_ttl, side.clock, LinkTarget.rest, side.log)
        self._targets: dict[str, Target] = {}
        self._routed: frozenset[str] = frozenset()
        self._sweeping = Step(side.clock, self._sweep, "the sweep of targets", side.log)
        self._stopped = False
        self._ended = {"sent": 0, "dropped": 0, "failures": 0}

    def route(self, urls: Iterable[str]) -> None:
        """Set the targets that the routes name. Other targets end when they are idle."""
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
        """Send dead letters to their targets again, oldest first. The targets make their next attempt at
        once.

        The records queue behind those that wait for the target. Records that do not fit into its queue stay
        undelivered.

        :param url: the target; None means all targets.
        :return: the number of records that were queued.
        """
        if self._stopped:
            return 0
        space: dict[str, int] = {}

        def fits(entry: Entry) -> bool:
            if url not in (None, entry.target):
                return False
            if entry.target not in space:
                space[entry.target] = self._settings.target_buffer - self._target(entry.target).waiting
            # Once an entry does not fit, later ones of its target do not either: the order is kept.
            space[entry.target] -= entry.run.weight
            return space[entry.target] >= 0

        entries = self.undelivered.take(fits)
        for entry in entries:
            self.put(entry.target, entry.run)
        for known in space:
            self._target(known).wake()
        self._sweep_soon()  # for targets that no route names
        return sum(entry.records for entry in entries)

    def stop(self) -> Deferred[Any]:
        """Stop all targets and count the dead letters as lost. Later records are dropped.

        Fires when all targets have stopped.
        """
        self._stopped = True
        self._sweeping.cancel()
        stopped = DeferredList([target.stop() for target in self._targets.values()])
        lost = self.undelivered.give_up()
        if lost:
            self._side.log.warn("{records} undelivered records are lost: {why}", records=lost, why=LEAVING)
        return stopped

    def status(self) -> list[dict[str, Any]]:
        """The state of each target, as ``/status`` shows it."""
        return [target.status() for target in self._targets.values()]

    def total(self, what: str) -> int:
        """The sum of ``sent``, ``dropped`` or ``failures`` over all targets, ended ones included."""
        return self._ended[what] + sum([int(getattr(target, what)) for target in self._targets.values()])

    @property
    def waiting(self) -> int:
        """Bytes that wait for targets."""
        return sum(target.waiting for target in self._targets.values())

    def _target(self, url: str) -> Target:
        target = self._targets.get(url)
        if target is None:
            address = parse_address(url, REPEATER_PORT, WEBSOCKET_SCHEMES + HTTP_SCHEMES)
            if address.scheme in HTTP_SCHEMES:
                target = HttpTarget(address, self._side, self._settings, self.undelivered, self._client)
            else:
                target = LinkTarget(
                    address,
                    self._name,
                    self._node,
                    self._side,
                    self._settings,
                    self._idle,
                    self._reactor,
                    self.undelivered,
                    self._came,
                    self._sweep_soon,
                )
            self._targets[url] = target
        return target

    def _sweep_soon(self) -> None:
        if not self._sweeping.waits and not self._stopped:
            self._sweeping.within(self._sweep_interval)

    @property
    def _sweep_interval(self) -> float:
        return min(SWEEP, self._settings.target_patience)

    def _sweep(self) -> float | None:
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
        return self._sweep_interval if waits and not self._stopped else None

    def _forget(self, url: str) -> None:
        target = self._targets.pop(url)
        for what in self._ended:
            self._ended[what] += getattr(target, what)
