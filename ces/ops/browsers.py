"""Which web pages may use a listener.

A browser lets any page send requests and open WebSockets to any host that it can reach, also to hosts behind
a firewall. It says where the page comes from: in ``Origin`` for each WebSocket and for each method but GET
and HEAD, and in ``Sec-Fetch-Site``. Services, curl and health checks send neither, and are not judged here.
From a browser, a WebSocket and a request that may change something pass only if ::

    the Origin is one of --allow-origin, or else
        the Origin is that of the Host that was asked,
        Sec-Fetch-Site does not say that the page is from another site, and
        the Host is an IP address, localhost, the name of this machine, or one of --allow-host

The last rule is against DNS rebinding: a page whose own name is made to lead here has the same origin, but
its name is not known here. Requests that only read are not judged. A page of another origin cannot see the
answers, because they carry no CORS headers.
"""

from __future__ import annotations

from twisted.web.iweb import IRequest

from ces.config.link import LinkSettings
from ces.model.host import Host, parse_host, parse_origin

SAFE = (b"GET", b"HEAD", b"OPTIONS")
"""Methods that change nothing here. A browser sends them without an Origin."""

MARKS = ("origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user")
"""Headers that only browsers send. A page can neither set nor omit them."""


class Guard:
    """Judges requests from browsers.

    :param settings: `allow_origin` and `allow_host` name what is allowed besides; ``*`` allows all.
    :param machine: the name of this machine.
    """

    def __init__(self, settings: LinkSettings, machine: str) -> None:
        self._origins = frozenset(settings.allow_origin)
        self._hosts = frozenset(("localhost", machine.lower(), *settings.allow_host))

    def fault(self, request: IRequest) -> str | None:
        """Why `request` is refused, as a sentence; None when it is not."""
        headers = request.requestHeaders
        if request.method in SAFE and not headers.hasHeader("upgrade"):
            return None
        if not any(headers.hasHeader(mark) for mark in MARKS):
            return None
        origins = headers.getRawHeaders("origin", [])
        if self._allows(origins):
            return None
        host = parse_host(headers.getRawHeaders("host", [""])[-1])
        if not all(self._is_of(origin, host) for origin in origins):
            return f"Web pages from {origins[-1][:100]!r} may not use this: --allow-origin allows them."
        if any(
            site.lower() not in ("same-origin", "none")
            for site in headers.getRawHeaders("sec-fetch-site", [])
        ):
            return "Web pages of other sites may not use this: --allow-origin allows them."
        if not self._knows(host):
            name = str(host or "")[:100]
            return f"Web pages may not use this under the name {name!r}: --allow-host allows it."
        return None

    def _allows(self, origins: list[str]) -> bool:
        if "*" in self._origins:
            return True
        return bool(origins) and all(str(parse_origin(one) or one) in self._origins for one in origins)

    def _is_of(self, text: str, host: Host | None) -> bool:
        origin = parse_origin(text)
        return origin is not None and host is not None and origin.is_of(host)

    def _knows(self, host: Host | None) -> bool:
        if host is None or "*" in self._hosts:
            return host is not None
        return host.is_address or host.name in self._hosts
