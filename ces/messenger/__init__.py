"""The messenger: how a Python service joins the Central Event System.

>>> from ces.messenger import Messenger
>>> def show(event, room):
...     print(f"{room}: {event.key} is {event.value}")
>>> def main(reactor):
...     messenger = Messenger("ws://event-hub", rooms=["ITB-1108"], reactor=reactor)
...     messenger.on_event(show)
...     messenger.connect()

docs/integration.md shows how to write a service; docs/api.md describes every public name.

The modules::

    messenger.py   Messenger: the link, the rooms, and the public methods
    reception.py   passes what arrives to callbacks and to `receive`
    inbox.py       records that nobody has received yet (pure)
    outgoing.py       events that the hub has not acknowledged yet
    sendable.py    makes a record from what an application sends (pure)
    waiting.py     a queue of Deferreds; the errors
    service.py     MessengerService: for ``.tac`` files and a MultiService
    once.py        send_once: connect, send, close

Importing the package does not import the reactor, or modules that only hub and repeater need.
"""

from __future__ import annotations

from ces.messenger.messenger import Messenger, State
from ces.messenger.once import Unconfirmed, send_once
from ces.messenger.reception import Received
from ces.messenger.service import MessengerService
from ces.messenger.waiting import Closed, Dropped, Kept, NotSent, TimedOut, TooManyWaiting
from ces.uplink.spool_file import SpoolError

__all__ = [
    "Closed",
    "Dropped",
    "Kept",
    "Messenger",
    "MessengerService",
    "NotSent",
    "Received",
    "SpoolError",
    "State",
    "TimedOut",
    "TooManyWaiting",
    "Unconfirmed",
    "send_once",
]
