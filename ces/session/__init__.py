"""Sessions, as pure code: what waits, what is in flight, what is retransmitted, how connections live.

::

    queue.py      SendQueue: the sending half of a session, and what waits behind it
    session.py    Session: the receiving half
    life.py       states and transitions of a connection; close codes; what an end means for the session
    priority.py   which records are evicted last
    interest.py   the rooms that the other side is still to be told of
    held.py       what waits for a repeater
"""
