"""One event, for a program that has nothing else to say: connect, send, close."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

import ces
from ces.messenger.messenger import Messenger
from ces.messenger.sendable import Sendable
from ces.model.address import Address


class Unconfirmed(ces.Error, ConnectionError):
    """The event left, but the link broke before the hub answered the close: it may have arrived."""


def send_once(
    address: str | Address, event: Sendable, room: str | None = None, *, reactor: Any, timeout: float = 10.0
) -> Deferred[None]:
    """Send one event to the hub at `address` and close the link.

    The hub answers the close when it has read all that came before it; so this fires once the hub has the
    event.

    :param timeout: seconds in which the event must have left; failed dials are repeated within them.
    :return: fires with None; fails with `TimedOut`, `Unconfirmed`, or the ValueError of what cannot be sent.
    """
    return Deferred.fromCoroutine(_send_once(address, event, room, reactor, timeout))


async def _send_once(
    address: str | Address, event: Sendable, room: str | None, reactor: Any, timeout: float
) -> None:
    messenger = Messenger(address, reactor=reactor)
    messenger.send(event, room)
    messenger.connect()
    try:
        await messenger.flush(timeout)
    finally:
        await messenger.close()
    if messenger.last is None or not messenger.last.wasClean:
        raise Unconfirmed(f"the link to {messenger.address} broke before the hub confirmed the event")
