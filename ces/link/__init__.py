"""Floor 1: one WebSocket link, either end.

::

    bytes -> protocol (frames, or Autobahn) -> wire (records, runs) -> owner.received(link, runs)
    owner -> link.put(run) ... turn.add(link) -> end of the reactor turn -> link.flush() -> one write

A hub, a repeater and a messenger each own links and implement `ces.link.owner.Owner`; a link knows nothing
else of them.
"""
