"""What the Central Event System costs, measured beside what else could carry its events.

``python -m benchmarks`` (``make bench``) runs everything; `README.md` says what is measured and how fair it
is. ::

    wire.py        what the load says and counts, per protocol (pure)
    load.py        raw sockets that publish in a closed loop and count
    peers.py       the servers, each a child process on a core of its own
    plain_hub.py   a hub on plain Autobahn; relay.py: what the kernel moves
    throughput.py  deliveries per second, latency, sizes, hub to hub
    growth.py      memory of idle links, what many links and rooms cost
    roles.py       messenger and repeater; the children that it starts are in member.py
    goals.py       the goals, medians and ratios (pure)
    report.py      Markdown and SVG (pure)
"""
