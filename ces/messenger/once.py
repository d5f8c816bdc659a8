"""Sends one event and ends: connect, send, close."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred

import ces
from ces.messenger.messenger import Messenger
from ces.messenger.sendable import Sendable
from ces.model.address import Address


class Unconfirmed(ces.Error, ConnectionError):
    """The connection broke before the hub confirmed the event. The hub may have the event or not."""


def send_once(
    address: str | Address,
    event: Sendable,
    room: str | None = None,
    *,
    reactor: Any,
    timeout: float = 10.0,
    token: str = "",
    token_file: str | os.PathLike[str] = "",
) -> Deferred[None]:
    """Connect to the hub at `address`, send one event, and close the connection.

    A hub answers the closing handshake after it has read all that came before. So the answer confirms the
    event, also from a ces.1 hub.

    :param event: as in `Messenger.send`.
    :param room: as in `Messenger.send`.
    :param timeout: timeout for sending the event, in seconds. Failed dials are repeated until then.
    :param token: as in `Messenger`, and so is `token_file`.
    :return: fires with None when the hub has the event. Fails with `TimedOut`, with `Unconfirmed`, or with
        the ValueError or TypeError that `Messenger` and `Messenger.send` raise.
    """
    return Deferred.fromCoroutine(
        _send_once(address, event, room, reactor, timeout, {"token": token, "token_file": token_file})
    )


async def _send_once(
    address: str | Address,
    event: Sendable,
    room: str | None,
    reactor: Any,
    timeout: float,
    shown: dict[str, Any],
) -> None:
    messenger = Messenger(address, reactor=reactor, **shown)
    messenger.send(event, room)
    messenger.connect()
    try:
        await messenger.flush(timeout)
    finally:
        await messenger.close()
    if not messenger.factory.closed_in_order:
        raise Unconfirmed(f"the link to {messenger.address} broke before the hub confirmed the event")
