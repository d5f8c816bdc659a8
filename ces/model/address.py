"""Addresses of hubs, repeaters and targets, as people write them.

Grammar::

    address = [scheme "://"] host [":" port] [path]
    scheme  = "ws" | "wss" | "http" | "https"
    host    = name | IPv4 | "[" IPv6 "]"
    name    = label *("." label) ["."]          a label is 1 to 63 of A-Z a-z 0-9 "-" "_"

Without a scheme an address means ``ws``; without a port the caller's default (7100 for hubs, 7101 for
repeaters) for ``ws`` and ``wss``, and the scheme's own port for ``http`` and ``https``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import idna

import ces

WEBSOCKET_SCHEMES = ("ws", "wss")
HTTP_SCHEMES = ("http", "https")

_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# Exact, because resolvers raise what Twisted does not expect for an empty or an overlong label.
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


class AddressError(ces.Error, ValueError):
    """An address that cannot be dialled; the text is one sentence that names it and says why."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial. `host` bears no brackets; `path` is empty or begins with ``/``, and ends without one."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def secure(self) -> bool:
        """Whether the link runs over TLS."""
        return self.scheme in ("wss", "https")

    @property
    def netloc(self) -> str:
        """``host:port``, an IPv6 host in brackets: the address's name in logs and in ``/interconnect``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str = "") -> str:
        """The whole URL, with `path` (which begins with ``/``) appended to the address's own."""
        return f"{self.scheme}://{self.netloc}{self.path}{path}"

    def __str__(self) -> str:
        return self.url()


def parse_address(
    text: str, default_port: int, schemes: tuple[str, ...] = WEBSOCKET_SCHEMES, strip: str = ""
) -> Address:
    """Read an address.

    :param text: what a person or a configuration file wrote; may be percent-encoded as a whole.
    :param default_port: the port of a ``ws``/``wss`` address that names none.
    :param schemes: the schemes that are allowed here.
    :param strip: a path that may be written but is implied, for example ``/connect/hub``.
    :raises AddressError: when no address can be read from it.
    """
    written = text.strip()
    if re.match(r"(?i)(wss?|https?)%3a", written) or re.fullmatch(r"[^/%]+%3[aA]\d+.*", written):
        written = unquote(written)
    if not written:
        raise AddressError("an address is empty; expected host, host:port or a URL such as ws://host:port")
    # One slash is what proxies and routers leave of two in the middle of a path.
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
            idna.encode(host)  # as TLS does, to compare the name with those in the certificate
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
