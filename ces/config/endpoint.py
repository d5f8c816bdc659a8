"""How far the ports of an endpoint can be reached.

An endpoint is written as for Twisted's ``serverFromString``: parts between colons, ``\\`` before a colon that
is part of a value. Only kinds that are known to stay on this machine count as such::

    tcp:7100:interface=127.0.0.1     tcp6:7100:interface=\\:\\:1     ssl:...:interface=localhost     unix:...

Anything else may be reached from elsewhere: sockets that come from systemd, and what stands behind
``haproxy:``, since a proxy passes on whom it likes.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

_PART = re.compile(r"(?:\\.|[^:\\])+", re.DOTALL)
_INTERNET = ("tcp", "tcp6", "ssl")


def stays_here(endpoint: str) -> bool:
    """Whether an endpoint is reached from this machine alone, as far as its text says."""
    kind, *parts = [re.sub(r"\\(.)", r"\1", part) for part in _PART.findall(endpoint)] or [""]
    if kind == "unix":
        return True
    named = [part.removeprefix("interface=") for part in parts if part.startswith("interface=")]
    return kind in _INTERNET and len(named) == 1 and is_loopback(named[0])


def is_loopback(host: str) -> bool:
    """Whether an address, or the name ``localhost``, is this machine's own and reached from nowhere else."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
