"""Parses the addresses of hubs, repeaters and targets that people write.

Grammar::

    address = [scheme "://"] host [":" port] [path]
    scheme  = "ws" | "wss" | "http" | "https"
    host    = name | IPv4 | "[" IPv6 "]"
    name    = label *("." label) ["."]          a label is 1 to 63 of A-Z a-z 0-9 "-" "_"

The default scheme is ``ws``. The default port of ``ws`` and ``wss`` is the caller's (`HUB_PORT` for hubs,
`REPEATER_PORT` for repeaters); that of ``http`` and ``https`` is 80 and 443.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import idna

import ces

HUB_PORT = 7100
REPEATER_PORT = 7101

WEBSOCKET_SCHEMES = ("ws", "wss")
HTTP_SCHEMES = ("http", "https")

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# Strict, because resolvers raise exceptions that Twisted does not expect for an empty or overlong label.
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


class AddressError(ces.Error, ValueError):
    """The address cannot be dialled. The text is one sentence that names it and says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial. `host` has no brackets. `path` is empty, or begins with ``/`` and ends without one."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.scheme in ("wss", "https")

    @property
    def netloc(self) -> str:
        """``host:port``, with an IPv6 host in brackets. Logs and ``/interconnect`` show this form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str = "") -> str:
        """The full URL: the address, its own path, then `path`, which begins with ``/``."""
        return f"{self.scheme}://{self.netloc}{self.path}{path}"

    def __str__(self) -> str:
        return self.url()


def parse_address(
    text: str, default_port: int, schemes: tuple[str, ...] = WEBSOCKET_SCHEMES, strip: str = ""
) -> Address:
    """Parse an address.

    :param text: the address as a person or a configuration file wrote it. The whole text may be
        percent-encoded.
    :param default_port: the port of a ``ws`` or ``wss`` address without one.
    :param schemes: the schemes that are allowed here.
    :param strip: a path that is implied and therefore removed, for example ``/connect/hub``.
    :raises AddressError: when `text` is not a valid address.
    """
    written = text.strip()
    if re.match(r"(?i)(wss?|https?)%3a", written) or re.fullmatch(r"[^/%]+%3[aA]\d+.*", written):
        written = unquote(written)
    if not written:
        raise AddressError("an address is empty; expected host, host:port or a URL such as ws://host:port")
    # Proxies and routers reduce two slashes in the middle of a path to one.
    written = re.sub(r"(?i)^(wss?|https?):/(?=[^/])", r"\1://", written)
    if "://" not in written:
        written = f"ws://{written}"
    try:
        parts = urlsplit(written)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise AddressError(f"address {text!r} cannot be read: {error}") from None
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        raise AddressError(f"address {text!r} has the scheme {scheme!r}; expected {' or '.join(schemes)}")
    if not host or not _HOST.fullmatch(host):
        expected = f"host, host:port or {schemes[0]}://host:port"
        raise AddressError(f"address {text!r} names no host; expected {expected}")
    if scheme in ("wss", "https") and ":" not in host:
        try:
            idna.encode(host)  # TLS does this too, before it compares the name with the certificate
        except idna.IDNAError as error:
            raise AddressError(f"address {text!r} names a host that no certificate can: {error}") from None
    if parts.fragment or parts.username is not None or (parts.query and scheme not in HTTP_SCHEMES):
        raise AddressError(f"address {text!r} may hold a scheme, a host, a port and a path, nothing else")
    if port == 0:
        raise AddressError(f"address {text!r} has the port 0; expected 1 to 65535")
    path = parts.path.rstrip("/") if scheme in WEBSOCKET_SCHEMES else parts.path
    if strip and path.endswith(strip):
        path = path[: -len(strip)]
    if parts.query:
        path = f"{path}?{parts.query}"
    if port is None:
        port = {"http": 80, "https": 443}.get(scheme, default_port)
    if any(c <= " " or c == "\x7f" for c in path):
        raise AddressError(f"address {text!r} holds a control character or a space")
    return Address(scheme, host, port, path)
