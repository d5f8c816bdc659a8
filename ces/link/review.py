"""Looks again at what everybody may do, when the access file has changed.

Who is not known any more, or may not be what it is, is closed (4401, 4403), and its session ends. Who may
have fewer rooms loses its subscriptions to the others, and what waits for them. Everybody else notices
nothing. Ten thousand links are looked at in slices, a few turns long.
"""

from __future__ import annotations

from twisted.logger import Logger

from ces.access.file import AccessError, access_of
from ces.access.principal import Login, Unknown
from ces.access.table import Access
from ces.link.link import Link
from ces.link.side import Revoked, Side, Socket
from ces.ops.gate import Gate
from ces.session.life import NOT_ALLOWED, NOT_AUTHENTICATED

SLICE = 500
"""Links that are looked at in one turn."""


class Rights:
    """The access file, which may be read again while the process runs.

    :param path: of the file; "" for none.
    :param gate: has what the file says.
    :param side: has the links.
    """

    def __init__(self, path: str, gate: Gate, side: Side[Link], log: Logger) -> None:
        self._path = path
        self._gate = gate
        self._side = side
        self._log = log
        self._review: Review | None = None

    def reload(self) -> None:
        """Read the file again. One that is bad leaves the rights as they were."""
        if not self._path:
            self._log.info("there is no access file to read again")
            return
        try:
            access = access_of(self._path)
        except AccessError as error:
            self._log.error("the rights stay as they were: {error}", error=error)
            return
        self._gate.access = access
        self._log.info("the access file was read again: {count} principals", count=len(access))
        if self._review is not None:
            self._side.slices.remove(self._review)
        self._review = Review(access, self._side)
        self._side.slices.add(self._review)


class Review:
    """One look at all links (`ces.link.slices.Sliced`). Those that come meanwhile have been looked at."""

    def __init__(self, access: Access, side: Side[Link]) -> None:
        self._access = access
        self._side = side
        self._left: list[Socket | Link] = [*side.detached, *side.served()]
        self._answers: dict[tuple[object, ...], Login | Revoked] = {}
        """Of the logins so far: a thousand panels may share one."""

    def slice(self) -> bool:
        """Look at some."""
        for _ in range(min(SLICE, len(self._left))):
            one = self._left.pop()
            try:
                one.review(self._judge)
            except Exception:
                one.broke()
        return bool(self._left)

    def broke(self) -> None:
        """Those that are left are not looked at: better to close them."""
        for one in self._left:
            one.broke()

    def _judge(self, login: Login, kind: str) -> Login:
        if login.proof is None:
            return login  # of nobody whom the file could name: this side has dialled
        asked = (login.proof, login.until, login.principal, kind)
        answer = self._answers.get(asked)
        if answer is None:
            answer = self._answers[asked] = self._look(login, kind)
        if isinstance(answer, Revoked):
            what = "rights" if answer.code == NOT_ALLOWED else "login"
            self._side.refuse(what, f"{login.principal.name}: {answer}")
            raise answer
        return answer

    def _look(self, login: Login, kind: str) -> Login | Revoked:
        try:
            renewed = self._access.renew(login)
        except Unknown:
            return Revoked(NOT_AUTHENTICATED, "what it showed is not known any more")
        if kind not in renewed.principal.kinds:
            return Revoked(NOT_ALLOWED, f"it may not be of kind {kind} any more")
        return login if renewed.principal == login.principal else renewed
