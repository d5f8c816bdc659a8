"""The authorities that requests name: ``Host`` and ``Origin``.

Grammar (RFC 9110 section 7.2, RFC 3986 section 3.2.2, RFC 6454 section 7)::

    Host   = host [":" [port]]
    Origin = "null" | scheme "://" host [":" port]
    host   = name | IPv4 | "[" IPv6 "]"          a name may be empty in Host
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

_NAME = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_HOST = re.compile(rf"(?:\[([0-9A-Fa-f:.]+)\]|({_NAME}*))(?::([0-9]{{0,5}}))?")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\s]+)/?")

DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


class Host(NamedTuple):
    """What a Host header names.

    name: in lower case, without brackets and without a dot at its end.
    port: None if none is written.
    """

    name: str
    port: int | None

    @property
    def is_address(self) -> bool:
        """Whether it is an IP address and no name."""
        try:
            ip_address(self.name)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


class Origin(NamedTuple):
    """What an Origin header names: where a web page comes from.

    port: that of the scheme if none is written; None for a scheme that has none.
    """

    scheme: str
    name: str
    port: int | None

    def is_of(self, host: Host) -> bool:
        """Whether it is the origin of pages that are served under `host`, plainly or through a TLS proxy."""
        port = DEFAULT_PORTS.get(self.scheme) if host.port is None else host.port
        return (self.name, self.port) == (host.name, port)

    def __str__(self) -> str:
        default = DEFAULT_PORTS.get(self.scheme) == self.port
        return f"{self.scheme}://{Host(self.name, None if default else self.port)}"


def parse_host(text: str) -> Host | None:
    """Parse a Host header. Returns None when it is not valid."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    literal, name, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and port > 65535:
        return None
    if literal is not None:
        try:
            name = str(IPv6Address(literal))
        except ValueError:
            return None
    return Host(name.lower().removesuffix("."), port)


def parse_origin(text: str) -> Origin | None:
    """Parse an Origin header. Returns None for ``null`` and for what is not valid."""
    match = _ORIGIN.fullmatch(text)
    host = parse_host(match[2]) if match is not None else None
    if match is None or host is None or not host.name:
        return None
    scheme = match[1].lower()
    return Origin(scheme, host.name, DEFAULT_PORTS.get(scheme) if host.port is None else host.port)
