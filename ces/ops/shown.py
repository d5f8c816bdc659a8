"""What a request shows of who makes it.

A token comes as ``Authorization: Bearer TOKEN``. A web page can send no such header with a WebSocket: it
offers the subprotocol ``ces.token.TOKEN`` beside ``ces.2``. It is never chosen: that would send it back.
"""

from __future__ import annotations

import re

from twisted.web.iweb import IRequest

from ces.access.bearer import BEARER
from ces.access.table import Shown

_PROTOCOL, _AUTHORIZATION = "sec-websocket-protocol", "authorization"
_TOKEN = "ces.token."
_BEARER = re.compile(rf"bearer +({BEARER.pattern})", re.IGNORECASE | re.ASCII)
_PASSED_ON = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers of proxies. They only take rights away: anybody can send them."""


def shown_by(request: IRequest) -> Shown:
    """What a request shows."""
    host = getattr(request.getClientAddress(), "host", "")
    passed_on = any(map(request.requestHeaders.hasHeader, _PASSED_ON))
    return Shown(_bearer(request), host=host, passed_on=passed_on)


def hide_token(request: IRequest) -> None:
    """Take the token out of a request, once it was looked at."""
    headers = request.requestHeaders
    headers.removeHeader(_AUTHORIZATION)
    offered = _subprotocols(request)
    others = [name for name in offered if not name.startswith(_TOKEN)]
    if len(others) < len(offered):
        headers.removeHeader(_PROTOCOL)
        if others:
            headers.setRawHeaders(_PROTOCOL, [", ".join(others)])


def _bearer(request: IRequest) -> str | None:
    """The token of a request; None when it shows none. What cannot be read is a token that nobody has, and so
    are two of them.
    """
    shown = [*request.requestHeaders.getRawHeaders(_AUTHORIZATION, [])]
    for name in _subprotocols(request):
        if name.startswith(_TOKEN):
            shown.append(f"bearer {name.removeprefix(_TOKEN)}")
    if not shown:
        return None
    match = _BEARER.fullmatch(shown[0].strip()) if len(shown) == 1 else None
    return match[1] if match else ""


def _subprotocols(request: IRequest) -> list[str]:
    offered = ",".join(request.requestHeaders.getRawHeaders(_PROTOCOL, []))
    return [name.strip() for name in offered.split(",") if name.strip()]
