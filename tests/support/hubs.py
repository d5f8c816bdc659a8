"""A hub without sockets: real links that come when they are named, and a clock that only the test moves."""

from __future__ import annotations

from itertools import count
from typing import Any

from msgspec import UNSET
from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.access.principal import ANYONE, Login
from ces.hub.hub import Hub
from ces.hub.settings import HubSettings
from ces.link.link import Link, read_by_dialect
from ces.link.side import Judge
from ces.model.control import Hello, Message, SubscriptionChange
from ces.model.wire import CES1, CES2
from ces.session.life import NORMAL, REPLACED
from ces.session.session import Session
from tests.support.links import Lines, read_frames, run

_numbers = count(1)


class Plug:
    """Stands where a connection would (`ces.link.link.Carrier`), and writes down what it is given.

    written: the bytes of the frames. told: the text messages. closed: the code that it was closed with.
    """

    def __init__(self, dialect: str, serving: bool = True, host: str = "127.0.0.1") -> None:
        self.host = host
        self.dialect = dialect
        self.serving = serving
        self.peer = f"tcp4:127.0.0.1:{next(_numbers)}"
        self.instance = ""
        self.login: Login = ANYONE
        self.changes: int | None = 0 if dialect == CES2 else None
        self.blocked = False
        self.paused = False
        self.session = Session()
        self.due_bucket: int | None = None
        self.probed = False
        self.written = b""
        self.told: list[Message] = []
        self.closed: int | None = None
        self.link: Link | None = None
        self.agent = ""
        self.heard = 0.0
        self.round_trip: float | None = None

    def write(self, buffers: list[bytes], size: int) -> None:
        self.written += b"".join(buffers)

    def records(self) -> list[bytes]:
        """The records that were written."""
        payloads = [payload for opcode, payload in read_frames(self.written) if opcode == 2]
        lines = b"".join(payloads).split(b"\n")
        return [b"%b\n%b\n" % pair for pair in zip(lines[:-1:2], lines[1::2], strict=True)]

    def tell(self, message: Message) -> None:
        self.told.append(message)

    def acknowledge(self) -> None:
        self.session.report()

    def end(self, code: int, reason: str) -> None:
        """Close in good order, as if the other side answered at once."""
        if self.closed is None:
            self.closed = code
            assert self.link is not None
            self.link.closing(self, code, reason)
            self.link.lost(self, code, True)

    def replaced(self) -> None:
        self.end(REPLACED, "a newer connection takes its place")

    def abort(self) -> None:
        assert self.link is not None
        self.link.closing(self, None, "it was aborted")
        self.link.lost(self, None, False)

    def watch(self) -> None: ...

    def probe(self) -> None:
        self.probed = True

    def broke(self) -> None:
        self.abort()

    def due(self, now: float) -> float | None:
        return None

    def unsent(self) -> int:
        return 0

    def review(self, judge: Judge) -> None: ...

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    @property
    def unfinished(self) -> bool:
        return self.link is not None and self.link.unfinished


class Floor:
    """A hub, a clock, and links that come when they are named.

    :param settings: of the hub.
    """

    def __init__(self, clock: Clock | None = None, **settings: Any) -> None:
        self.clock = clock or Clock()
        self.lines = Lines()
        log = Logger(namespace="ces.test", observer=self.lines)
        self.hub = Hub("mm", HubSettings(**settings), self.clock, log)
        self.login: Login | None = None
        """Of whom the connections are that come; None for anyone."""
        self.plugs: dict[Link, Plug] = {}
        """The connection of each link, or its last one."""

    def link(
        self,
        kind: str,
        *rooms: str,
        dialect: str = CES1,
        node: str = "",
        serving: bool = True,
        host: str = "127.0.0.1",
    ) -> Link:
        """A connection that comes, and the link that it gets; it wants these rooms."""
        link = self.hub.admit(kind, node, "", serving)
        if link is None:
            window = self.hub.settings.session_window
            link = Link(self.hub, self.hub.side, kind, read_by_dialect(), window=window)
        plug = self._plug(link, dialect, serving, host)
        plug.session = Session(f"session-{next(_numbers)}" if dialect == CES2 else "")
        link.attach(plug, node, plug.session, resumed=False)
        if rooms:
            self.hub.told(link, SubscriptionChange(list(rooms), True))
        return link

    def cut(self, link: Link) -> None:
        """The connection is gone without a closing handshake."""
        plug = self.plugs[link]
        link.closing(plug, None, "the connection was cut")
        link.lost(plug, None, False)

    def close(self, link: Link, code: int = NORMAL) -> None:
        """The other side closes in good order."""
        plug = self.plugs[link]
        plug.closed = code
        link.closing(plug, code, f"closed by the other side with {code}")
        link.lost(plug, code, True)

    def resume(self, link: Link, received: int | None = None, changes: int | None = None) -> None:
        """The link is back, with its session.

        :param received: records that the other side has received; by default all that were sent.
        :param changes: changes of rooms that it has taken; by default all that were sent.
        """
        if changes is None and link.interest is not None:
            changes = link.interest.sent
        received = link.queue.sent if received is None else received
        link.prepare(
            Hello(link.node, link.session.id, received, changes=UNSET if changes is None else changes)
        )
        plug = self._plug(link, CES2, link.serving)
        plug.changes = changes
        plug.session = link.session
        link.attach(plug, link.node, link.session, resumed=True)
        self.clock.advance(0)

    def _plug(self, link: Link, dialect: str, serving: bool, host: str = "127.0.0.1") -> Plug:
        plug = self.plugs[link] = Plug(dialect, serving, host)
        plug.link = link
        plug.login = self.login or ANYONE
        return plug

    def send(self, link: Link, room: str, *texts: str) -> None:
        """Records come on a link, and the turn ends."""
        self.hub.received(link, [run(room, *texts)])
        self.clock.advance(0)

    def sent(self, link: Link) -> list[bytes]:
        """The records that were written to the present connection of a link."""
        return self.plugs[link].records()

    def told(self, link: Link) -> list[Message]:
        """The text messages that were written to it."""
        return self.plugs[link].told
