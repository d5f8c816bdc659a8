"""Benchmarks of the Central Event System and of other servers that could carry its events.

``python -m benchmarks`` (``make bench``) runs everything. `README.md` explains what is measured and why the
comparison is fair. ::

    wire.py        the protocols, as the load speaks and counts them (pure)
    load.py        raw sockets that publish in a closed loop and count deliveries
    peers.py       the servers, each a child process on its own core
    plain_hub.py   a hub on plain Autobahn
    relay.py       a relay that shows what the kernel can move
    throughput.py  deliveries per second, latency, event sizes, hub to hub
    growth.py      memory of idle links, cost of many links and rooms
    roles.py       messenger and repeater; member.py is the messenger's process
    goals.py       goals, medians and ratios (pure)
    report.py      Markdown and SVG (pure)
"""
