"""The Central Event System: a hub, a repeater and a messenger that carry room events over WebSocket links.

The floors, each of which imports only those above it in this list (``tests/test_floors.py`` checks it)::

    ces.model                              what an event, a record, a frame and a route are; pure
    ces.config, ces.session                settings; send queues, sessions, the life of a connection; pure
    ces.access                             who may do what: principals, tokens, the access file; pure
    ces.ops                                HTTP, status, metrics and logging
    ces.link                               links and the connections that carry them
    ces.uplink                             one link that is dialled and kept up, with its spool
    ces.hub, ces.repeater, ces.messenger   the three roles
    ces.tap, ces.cli                       twistd options and services; the ``ces`` command

The reactor enters at the last floor and is an argument everywhere above it in the list; nothing holds
module-level state. The wire is described in ``docs/protocol.md``.
"""

from __future__ import annotations

__version__ = "1.0.0"


class Error(Exception):
    """Base class of every error that this project defines.

    A more specific error is often also of a built-in kind: `ces.event.EventError`, for example, is a
    ValueError.
    """
