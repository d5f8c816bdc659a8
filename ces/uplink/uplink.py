"""An uplink: one dialled link, with its dialler. Messenger, repeater and hub-to-hub links share it.

Two ways to own the link::

    Uplink(..., queue=q)      the link is this uplink's for good: what waits for a hub goes to whichever
                              process answers there, however long it was away (messenger, repeater)
    Uplink(..., window=120)   the link belongs to the peer: the owner's `admit` may give the connection the
                              link of a peer that is known already (hubs), and a peer that stays away has left
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import UNSET

from ces.access.bearer import NO_BEARER, Bearer
from ces.link.connection import Connection
from ces.link.link import Link, Owner, Read, Refused, read_by_dialect
from ces.link.side import Side
from ces.model.address import Address
from ces.model.control import Hello
from ces.session.life import NORMAL, PROTOCOL_ERROR, REPLACED
from ces.session.queue import OutOfStep, SendQueue
from ces.session.session import Session
from ces.uplink.dialler import Dialler


def _nothing(*_: object) -> None:
    pass


class Uplink:
    """Dials `address` and carries one link (`ces.uplink.dialler.Dials`).

    :param path: the path of the endpoint, for example ``/connect/hub``.
    :param kind: of the link.
    :param queue: what is to be sent; the link is this uplink's for good.
    :param window: without a queue: seconds for which a link that was cut is kept.
    :param up: called when the connection has its link.
    :param failed: called with the reason, when a dial has failed or a connection has ended otherwise than by
        `stop`.
    :param may_dial: asked before dialling again; where it says no, call `dial` when the time has come.
    :param changed: called with the dialler's state whenever it has changed.
    :param in_vain: called with a link whose connection was ended for one that was to take its place, and
        that has ended before it did.
    :param bearer: the token that the other side is shown.

    link: the link; None before the first connection has got one.
    overtaken: whether another connection carried the session while the last one opened: to dial again helps.
    refusal: why the owner did not admit the last connection; None when it did.
    factory: the client factory, for Twisted applications that dial by themselves.
    """

    def __init__(
        self,
        owner: Owner,
        side: Side[Link],
        address: Address,
        path: str,
        kind: str,
        reactor: Any,
        *,
        queue: SendQueue | None = None,
        window: float | None = None,
        read: Read | None = None,
        up: Callable[[], None] = _nothing,
        failed: Callable[[str], None] = _nothing,
        may_dial: Callable[[], bool] = lambda: True,
        changed: Callable[[str], None] = _nothing,
        in_vain: Callable[[Link], None] = _nothing,
        bearer: Bearer = NO_BEARER,
    ) -> None:
        self.owner = owner
        self.side = side
        self.address = address
        self.kind = kind
        self.refusal: Refused | None = None
        self.overtaken = False
        self.may_dial = may_dial
        self.changed = changed
        self.failed = failed
        self._queue = queue
        self._window = window
        self._read = read or read_by_dialect()
        self._up = up
        self._in_vain = in_vain
        self._replaces: Link | None = None
        """The link whose living connection the one that opens has ended, to take its place."""
        self._said = Hello(owner.node)
        """The last hello: what the other side was told that this side has received."""
        self.link: Link | None = None if queue is None else self._new_link()
        self.factory = Dialler(self, address, path, reactor, bearer)

    @property
    def state(self) -> str:
        """``stopped``, ``dialling``, ``up`` or ``waiting``."""
        return self.factory.state

    @property
    def reason(self) -> str:
        """Why the last dial or connection ended."""
        return self.factory.reason

    @property
    def connected(self) -> bool:
        """Whether the link has a connection that this uplink has dialled."""
        link = self.link
        return link is not None and link.connected and link.connection is self.factory.last

    @property
    def covered(self) -> bool:
        """Whether the link has a connection that something else has made."""
        link = self.link
        return link is not None and link.connected and link.connection is not self.factory.last

    @property
    def hub(self) -> tuple[str, str]:
        """Node and dialect at the other end; blank without a connection."""
        link = self.link
        return (link.node, link.dialect) if link is not None and link.connected else ("", "")

    def dial(self) -> None:
        """Dial, now, and keep the link up from then on."""
        if self._queue is not None and (self.link is None or self.link.over):
            self.link = self._new_link()
        self.factory.dial()

    async def stop(self) -> None:
        """Dial no more, close the connection and end the link; returns when that is done."""
        await self.factory.stop()
        link = self.link
        if link is not None and link.connection is None:
            link.end(NORMAL, "closing")

    def flush(self) -> None:
        """Something was put into the link's queue: write it at the end of the turn."""
        if self.link is not None:
            self.side.turn.add(self.link)

    def _new_link(self) -> Link:
        link = Link(self.owner, self.side, self.kind, self._read, self._queue, self._window)
        link.peer = self.address.url()
        return link

    # -- what connections ask (`ces.link.connection.Opener`) -------------------------------------------------

    def hello(self, connection: Connection) -> Hello:
        """The first message: the session that is to go on, if there is one."""
        link = self.link
        return self._hello(None if link is None or link.over or link.connected else link)

    def _hello(self, link: Link | None) -> Hello:
        """Name the session of `link`, which goes on: what is said to be received must stay true."""
        if link is not None:
            if link.connected:
                self._replaces = link
            link.hush()
        session = Session() if link is None else link.session
        self._said = hello = Hello(
            self.owner.node,
            session.id or None,
            session.report(),
            changes=session.changes,
            gaps=session.gaps,
            instance=self.owner.instance or UNSET,
        )
        return hello

    def opened(self, connection: Connection, hello: Hello | None) -> None:
        """Give the connection its link, or end it."""
        try:
            placed = self.owner.admit(self.kind, connection.node, connection.instance, serving=False)
        except Refused as refused:
            self.refusal = refused
            if self._queue is None and refused.link is not None:
                self.link = refused.link
            connection.end(REPLACED, str(refused))
            return
        self.refusal = None
        self.overtaken = False
        mine = self.link if self.link is not None and not self.link.over else None
        if hello is not None and hello.offered is True:
            known = placed is not None and not placed.over and placed.session.id == hello.session
            if known:
                self.link = placed
            else:
                self.side.disown(hello.session or "")
            connection.tell(self._hello(placed if known else None))
            return
        if hello is not None and not hello.session and placed is not None:
            self.link = placed  # refused: the link that stays is with the same hub
            return
        link = placed or mine or self._new_link()
        session = Session("" if hello is None else hello.session or "")
        resumed = (
            hello is not None
            and hello.resumed is True
            and link is mine
            and self._said.session == hello.session == link.session.id
        )
        if resumed:
            assert hello is not None
            session = link.session
            said = self._said
            if (said.received, said.changes, said.gaps) != (session.received, session.changes, session.gaps):
                self.overtaken = True
                connection.end(REPLACED, "another connection has carried the session meanwhile")
                return
            try:
                link.prepare(hello)
            except OutOfStep as fault:
                link.break_session()
                connection.end(PROTOCOL_ERROR, f"the session is gone: {fault}")
                return
        elif hello is not None and hello.resumed:
            # It was given up while the hello was on its way. The other side counts on in it.
            connection.end(PROTOCOL_ERROR, "the session is gone")
            return
        elif session.id and self.side.has_disowned(session.id):
            # The other side begins another one, in which it retransmits what it has sent in this one.
            self.link = placed or mine
            self.overtaken = True
            connection.end(REPLACED, "another connection has said that this side does not have the session")
            return
        self.link = link
        self._replaces = None
        self.factory.joined(connection)
        if connection.ended:  # a callback has stopped it
            return
        connection.begin(link, session, resumed)
        self._up()

    def carried(self, connection: Connection) -> None:
        """The connection has carried a record."""
        self.factory.carried()

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""
        link, self._replaces = self._replaces, None
        if link is not None and link.replacing:
            link.not_replaced()
            self._in_vain(link)  # before this one dials again: it has a delay, and others may be better
        self.factory.lost(connection)
