"""A hub without connections: links that come when they are named, and a clock that only the test moves."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger

from ces.hub.hub import Hub
from ces.link.turn import Memo
from ces.model.control import SubscriptionChange
from ces.model.wire import CES1, Run
from ces.session.outbox import Outbox
from ces.session.session import Session
from tests.support.links import Lines, run


class FakeLink:
    """A link as far as a hub knows it; `sent` is what was flushed, `told` the text messages."""

    def __init__(
        self, hub: Hub, kind: str, dialect: str = CES1, node: str = "", serving: bool = True
    ) -> None:
        self.hub, self.kind, self.dialect, self.node, self.serving = hub, kind, dialect, node, serving
        self.name = f"{kind} {node or id(self)}"
        self.outbox = Outbox(10_000)
        self.put = self.outbox.pending.append
        self.session = Session(self.outbox)
        self.links = (self,)
        self.backlogged = self.blocked = self.detached = False
        self.records_in = self.malformed = self.dropped = 0
        self.ended = "cut"
        self.sent: list[bytes] = []
        self.told: list[object] = []
        self.closed: int | None = None

    def flush(self, memo: object) -> None:
        if not self.blocked:
            self.sent += [record for run in self.outbox.take(10**6)[0] for record in run.records]

    def leftover(self) -> list[Run]:
        return self.session.take_all()

    def tell(self, message: object) -> None:
        self.told.append(message)

    def end(self, code: int, reason: str) -> None:
        self.closed = code
        self.flush(Memo())
        self.hub.left(self, reason)


class Floor:
    """A hub, a clock, and links that come when they are named."""

    def __init__(self, clock: Clock | None = None, **options: object) -> None:
        self.clock = clock or Clock()
        self.lines = Lines()
        self.hub = Hub("mm", self.clock, log=Logger(namespace="ces.test", observer=self.lines), **options)

    def link(self, kind: str, *rooms: str, **how: object) -> FakeLink:
        link = FakeLink(self.hub, kind, **how)
        assert self.hub.admit(link) is None
        self.hub.joined(link)
        if rooms:
            self.hub.subscribed(link, SubscriptionChange(list(rooms), True))
        return link

    def cut(self, link: FakeLink) -> None:
        assert self.hub.keeps(link)
        link.detached = link.blocked = link.backlogged = True
        self.hub.side.detached[link] = None

    def resume(self, old: FakeLink, fresh: bool = False) -> FakeLink:
        new = FakeLink(self.hub, old.kind, old.dialect, old.node, old.serving)
        if not fresh:
            new.session, new.outbox, new.put = old.session, old.outbox, old.put
        old.session = Session(Outbox(1000))
        old.detached = False
        del self.hub.side.detached[old]
        self.hub.resumed(old, new, fresh)
        self.hub.side.turn.add(new)
        self.clock.advance(0)
        return new

    def send(self, link: FakeLink, room: str, *texts: str) -> None:
        self.hub.received(link, [run(room, *texts)])
        self.clock.advance(0)
