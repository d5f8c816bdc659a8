"""Asks who makes a request, and whether that principal may.

Each route names the kind that it needs (`ces.access.principal.KINDS`), and is registered through `Guarded`,
so that none is forgotten. An answer to those who may not says nothing about what is there::

    401   it is not known who asks; the log says why
    403   it is known, and may not
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from klein import Klein
from twisted.web.iweb import IRequest

from ces.access.principal import GUEST, Login, Unknown
from ces.access.table import Access
from ces.model.wire import Run
from ces.ops.answers import text
from ces.ops.shown import shown_by

OF_ANYONE = ""
"""The kind of a route that needs none."""

FROM_HERE = (
    "Without an access file, this may be done from the machine itself alone: do it there, or start the"
    " process with --access FILE, which says who may."
)

Handler = Callable[..., Any]


class Gate:
    """Judges requests.

    :param access: who may do what; may be replaced at any time.
    :param refused: called with ``login`` or ``rights``, and the reason.
    :param now: the time in seconds since the epoch.
    """

    def __init__(
        self,
        access: Access,
        refused: Callable[[str, str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.access = access
        self._refused = refused
        self._now = now

    def fault(self, request: IRequest, kind: str) -> tuple[int, str] | None:
        """Why `request` is refused, as a status and a sentence; None when it is not.

        From then on `login_of` says who makes it.

        :param kind: which the principal must have; `OF_ANYONE` for none.
        """
        if not kind:
            return None
        host = getattr(request.getClientAddress(), "host", "")
        try:
            login = self.access.login(shown_by(request), self._now())
        except Unknown as unknown:
            self._refused("login", f"{host or 'somebody'} is not known: {unknown}")
            request.setHeader("WWW-Authenticate", "Bearer")
            return 401, "It is not known who you are: send Authorization: Bearer and a token that is known."
        principal = login.principal
        if kind not in principal.kinds:
            self._refused("rights", f"{principal.name or 'anyone'} at {host} may not be of kind {kind}")
            if login is GUEST:
                return 403, FROM_HERE
            return 403, f"You may not do this: it is for principals of kind {kind}."
        cast(Any, request).login = login
        return None

    def publish_fault(self, request: IRequest, runs: Iterable[Run]) -> tuple[int, str] | None:
        """Why these records may not be sent by who makes `request`; None when they may.

        One that may not be sent is enough: nothing must be taken of the request then.
        """
        principal = login_of(request).principal
        if all(run.room in principal.publish for run in runs):
            return None
        self._refused("rights", f"{principal.name} may not send events for all of the rooms that it did")
        return 403, "You may not send events for all of these rooms: none was taken."

    def lasts(self, login: Login) -> float | None:
        """For how many more seconds a login is good; None for ever."""
        return None if login.until is None else max(0.0, login.until - self._now())


class Guarded:
    """Registers routes of `app`, each with the kind that it needs."""

    def __init__(self, app: Klein, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    def route(self, path: str, method: str, kind: str, handler: Handler) -> None:
        """Let `handler` answer, when the request is made by a principal of `kind`."""
        gate = self._gate

        @functools.wraps(handler)
        def answer(request: IRequest, *args: Any, **named: Any) -> Any:
            fault = gate.fault(request, kind)
            return handler(request, *args, **named) if fault is None else text(request, *fault)

        # Klein tells handlers apart by name alone: of two with one name, the later would answer for both.
        self._app.route(path, methods=[method], endpoint=f"{method} {path}")(answer)


def login_of(request: IRequest) -> Login:
    """Who makes a request that a `Gate` has let in."""
    return cast(Login, cast(Any, request).login)
