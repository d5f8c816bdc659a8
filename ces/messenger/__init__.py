"""The messenger: how a Python service joins the Central Event System.

>>> from ces.messenger import Messenger
>>> def show(event, room):
...     print(f"{room}: {event.key} is {event.value}")
>>> def main(reactor):
...     messenger = Messenger("ws://event-hub", rooms=["ITB-1108"], reactor=reactor)
...     messenger.on_event(show)
...     messenger.connect()

The parts::

    messenger.py   Messenger: the link, the rooms, the face of all of it
    reception.py   what arrives: callbacks, and who waits in `receive`
    inbox.py       what has arrived and was not asked for yet (pure)
    spool.py       what was sent and is not on a link yet, and who waits for that
    sendable.py    what an application may send, as a record (pure)
    waiting.py     Deferreds that wait in turn; the errors that they end with
    service.py     MessengerService: in ``.tac`` files and in a MultiService
    once.py        send_once: connect, send, close

Importing the package loads neither the reactor nor anything that only hub and repeater need.
"""

from __future__ import annotations

from ces.messenger.messenger import Messenger, State
from ces.messenger.once import Unconfirmed, send_once
from ces.messenger.reception import Received
from ces.messenger.service import MessengerService
from ces.messenger.waiting import Closed, Dropped, Kept, TimedOut, TooManyWaiting
from ces.uplink.spool_file import SpoolError

__all__ = [
    "Closed",
    "Dropped",
    "Kept",
    "Messenger",
    "MessengerService",
    "Received",
    "SpoolError",
    "State",
    "TimedOut",
    "TooManyWaiting",
    "Unconfirmed",
    "send_once",
]
