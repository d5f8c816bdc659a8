"""Uplinks: a link that is dialled and kept up, with what waits for it.

::

    uplink.py       Uplink: one dialled link; messenger, repeater and hub-to-hub links share it
    dialler.py      when to dial; the client factory
    spool.py        what waits for a hub, in memory and on disk
    spool_file.py   the file of a spool
"""
