"""Links: one peer's relationship with us, and the connections that carry it.

::

    serving.py, dialling.py   the two ends: what is answered and asked in the opening handshake
    connection.py             one WebSocket: bytes to messages and back, pings, deadlines, close
    link.py                   Link: session, send queue, counters; Owner: the only interface upward
    side.py                   what all links of one owner share
    encoding.py               runs to frames
    pressure.py               pauses publishers whose subscribers are congested
    turn.py, keepalive.py     one write per link and turn; one sweep for all deadlines
    schedule.py, slices.py    what is due now and then, and survives errors; work too long for one turn
    direct.py                 sockets without Twisted's detours
    shown.py, faces.py        what /status and /metrics show of links, and /links of each
    listen.py, tls.py         ports as a service; why a TLS connection failed

The way in: bytes -> `Connection` (frames, or Autobahn) -> `Link.take` (records, runs) -> `Owner.received`.
The way out: `Link.put` ... `Turn.add` -> end of the reactor turn -> `Link.flush` -> one write. Imports point
down this list from top to bottom, and nowhere up.
"""
