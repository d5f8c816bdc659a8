"""A connection: one WebSocket, a thin adapter over Autobahn. Its two ends are in `ces.link.serving` and
`ces.link.dialling`; no other modules subclass Autobahn's protocols.

The way in: bytes -> whole binary frames by `ces.model.frames`, everything else by Autobahn -> the link. The
way out: the link writes ready-made frames; texts, pings and closes go the same way and so in order.

Owns its socket, its place in life (`ces.session.life`), its deadlines and its close. Who decides which link
it gets is its `Opener`.

Autobahn's behaviour is changed in these places, each for the reason beside it: `log` (its texts hold what an
attacker sent, at any rate), `tcpNoDelay` (it means to set it, and does not), `consumeData` (the fast way),
`sendData` (one way out for its bytes and ours), `_closeConnection` (it resets connections that closed in good
order), the close and handshake timers (they sit on the global reactor: the sweep of `ces.link.keepalive` has
the deadlines).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ces.access.principal import ANYONE
from ces.link.direct import end_stream, unsent
from ces.link.link import Link, Owner
from ces.link.side import Judge, Revoked, Side
from ces.link.tls import why_lost
from ces.link.turn import Memo
from ces.model import frames, wire
from ces.model.control import (
    Ack,
    Gap,
    Hello,
    MalformedControl,
    Message,
    SubscriptionChange,
    ack_number,
    ack_text,
    read_control,
    write_control,
)
from ces.model.routing import MESSENGER
from ces.model.wire import CES1, CES2
from ces.session.life import (
    HEARD,
    NORMAL,
    NOT_AUTHENTICATED,
    PROTOCOL_ERROR,
    REPLACED,
    TRANSITIONS,
    State,
    Step,
)
from ces.session.queue import OutOfStep
from ces.session.session import Session

ACK_FRAME = 40
"""An acknowledgement is no longer than this, in bytes, its frame included."""

FRAMES = 1000
"""A message may come in at most this many frames: Autobahn keeps a list of them, the empty ones included."""

SMALL_FRAMES = 100
"""Limit of the frames that are taken in one turn and are not whole binary messages: pings, parts of messages,
acknowledgements. The rest waits for the next turn. A read of 256 KiB may bring 30,000; 100 take up to 5 ms.
"""

MESSAGES = 4000
"""Limit of the messages with records that are taken in one turn. The rest waits for the next turns."""

BAD_GATEWAY = 1014
"""Registered with IANA (RFC 6455 section 7.4), and sent by proxies. Autobahn does not know it, and would take
the close for a violation. It looks codes up in its own class, so this one is added there."""

if BAD_GATEWAY not in WebSocketProtocol.CLOSE_STATUS_CODES_ALLOWED:
    WebSocketProtocol.CLOSE_STATUS_CODES_ALLOWED.append(BAD_GATEWAY)

PROBE = 5.0
"""The other side must answer a probe within this time, in seconds."""

HELLOS = 4
"""So many hellos come on one connection at most: the serving side may offer sessions before it answers."""

PIECES = 1000
"""The pieces of a message are joined in groups of this size: each takes up 40 bytes beside its own."""


class Opener(Protocol):
    """Who decides what becomes of a connection that opens, and is told when it is gone."""

    kind: str
    owner: Owner

    @property
    def side(self) -> Side[Link]: ...

    def hello(self, connection: Connection) -> Hello:
        """What a dialling side says first in ces.2."""

    def opened(self, connection: Connection, hello: Hello | None) -> None:
        """The connection speaks ces.1 (no hello), or the other side has said hello: give it a link, with
        `Connection.begin`, or end it.
        """

    def carried(self, connection: Connection) -> None:
        """The connection has carried a record for the first time."""

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""


class _Mute:
    """Takes Autobahn's log calls and writes nothing: the owner logs what matters, at a limited rate."""

    def __getattr__(self, name: str) -> Any:
        return self._say

    @staticmethod
    def _say(*args: object, **fields: object) -> None:
        pass


def _gather(pieces: list[bytes]) -> None:
    """Join the last `PIECES` when the first of them is small: no byte is copied twice for it."""
    if len(pieces) >= PIECES and len(pieces[-PIECES]) < PIECES:
        pieces[-PIECES:] = [b"".join(pieces[-PIECES:])]


@implementer(IPushProducer)
class Connection(WebSocketAdapterProtocol, WebSocketProtocol):
    """What both ends have in common; stands before Autobahn's own protocol of the end.

    dialect: ``ces.1`` or ``ces.2``, once the opening handshake is done.
    link: the link that it carries records for, once it has one.
    session: the receiving half of the session that it carries.
    life: where it is in its life.
    node: who the other side says it is; "" before that, and on ces.1.
    instance: tells the other side's process from another one with the same node; "" when it does not say.
    changes: subscription changes that the other side had taken when it said hello; None when it does not
        acknowledge them.
    agent: the User-Agent that the dialling side named, the beginning of it.
    round_trip: seconds from the last ping that was answered to its pong; None before that.
    login: who the other side is, as far as this side has asked.
    lasts: for how many seconds from its beginning the login is good; None for ever.
    code: what it was closed with, by whichever side; None when it was cut.
    ended: why it ended.
    refused: the HTTP status with which a server refused the opening handshake, or None.
    finished: both close frames were exchanged and the other side's stream was read to its end.
    """

    # What each record or acknowledgement needs, side by side: a connection's other attributes are spread over
    # so large a dict that each costs a trip to memory when thousands of connections are busy.
    __slots__ = (
        "_at_rest",
        "_carried",
        "_message_limit",
        "_missing",
        "_seconds",
        "blocked",
        "dialect",
        "heard",
        "life",
        "link",
        "masked",
        "session",
        "write",
    )

    serving: bool
    log: Any = _Mute()
    CONFIG_ATTRS: Any = ()
    """Autobahn would copy these from its factory, and format all of them for a debug line that nobody sees: a
    third of what opening a connection costs.
    """
    tcpNoDelay = True
    """Autobahn asks for it before it has it from the factory, and hides that this fails: small events would
    wait up to 40 ms for the kernel's acknowledgement of what went before."""

    # Autobahn's, whose own declarations do not agree with each other or say too little.
    factory: Any
    transport: Any
    peer: Any
    _transport_details: Any

    write: Callable[[list[bytes], int], None]
    opener: Opener
    login = ANYONE
    lasts: float | None = None
    node = ""
    instance = ""
    changes: int | None = None
    path = ""
    agent = ""
    round_trip: float | None = None
    refused: int | None = None
    code: int | None = None
    ended = ""
    finished = False
    due_bucket: int | None = None

    _deaf = False
    """Records that come are not taken: this side has closed, or dropped the connection."""
    _parts: list[bytes]
    _frames = 0
    _since = 0.0
    _next_ping = 0.0
    _ping_sent: float | None = None
    """When the ping that is not answered was sent."""
    _paused = False
    """Nothing is to be read: somebody else has to take what came before."""
    _steps: Iterator[None] | None = None
    """What is left of a message that is taken in steps; what came behind it waits. None without one."""
    _unread = 0
    """Bytes of text messages that were sent while the transport was full."""
    _hellos = 0
    """More than one comes where the serving side offers a session (docs/protocol.md section 5)."""
    _pinged: bytes | None = None
    _login_ends: float | None = None
    _probed: float | None = None
    """When the other side was asked for a sign of life."""

    def __init__(self) -> None:
        super().__init__()
        self.dialect = CES1
        self.masked = self.serving
        """Whether what comes is masked (RFC 6455 section 5.3): as `serving`, and in a slot."""
        self.link: Link | None = None
        self.session = Session()
        self.life = State.HANDSHAKE
        self.blocked = False
        """The transport has more than it can pass on."""
        self.heard = 0.0
        self._carried = False
        self._missing = 0
        """Bytes that complete the frame in `_parts`."""
        self._at_rest = False
        """The connection carries a session, and a message begins with what comes next."""

    # -- opening ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.opener = self.factory.opener
        side = self.opener.side
        self._parts = []
        self._seconds = side.keepalive.seconds
        self._message_limit = side.settings.message_limit
        self.heard = self._since = self._seconds()
        if self.lasts is not None:
            self._login_ends = self.heard + self.lasts
        self.host: str = getattr(self.transport.getPeer(), "host", "")
        self.write = side.sockets.output(self.transport).write
        autobahn: Any = super()
        for name in autobahn.CONFIG_ATTRS:
            setattr(self, name, getattr(self.factory, name))
        super().connectionMade()
        self.transport.registerProducer(self, True)
        side.sockets.adopt(self.transport, self)
        side.came(self)

    @property
    def name(self) -> str:
        """What the connection is called in logs."""
        return f"{self.opener.kind} {self.node or self.peer}"

    def advance(self, step: Step) -> None:
        """Go on in life.

        :raises KeyError: when the step may not happen now, which is a mistake of ours.
        """
        self.life = TRANSITIONS[self.life, step]

    def onOpen(self) -> None:
        self._since = self._seconds()
        try:
            if self.dialect == CES1:
                self.advance(Step.CES1)
                self.opener.opened(self, None)
            else:
                self.advance(Step.CES2)
                if not self.serving:
                    self.tell(self.opener.hello(self))
        except Exception:
            self.broke()

    def _greeted(self, hello: Hello) -> None:
        """The other side has said who it is."""
        self._hellos += 1
        if self.life is not State.HELLO or self._hellos > HELLOS or (self.node and self.node != hello.node):
            self.end(PROTOCOL_ERROR, "a second hello")
            return
        self.node = hello.node
        self.instance = hello.instance if isinstance(hello.instance, str) else ""
        self.changes = hello.changes if isinstance(hello.changes, int) else None
        self.opener.opened(self, hello)

    def begin(self, link: Link, session: Session, resumed: bool) -> None:
        """Carry the records of a link from now on; the opener's answer.

        :param session: the receiving half; of the session that goes on when `resumed`, else a new one.
        """
        self.link = link
        self.session = session
        self.advance(Step.ADMITTED)
        side = self.opener.side
        side.seat(self)
        self._next_ping = self._seconds() + side.settings.ping_interval
        side.keepalive.watch(self)
        link.attach(self, self.node, session, resumed, self.path)

    # -- in --------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        self.heard = self._seconds()
        if self._at_rest and len(data) <= ACK_FRAME:
            end = _take_ack(self, data)
            if end == len(data):
                return
            data = data[end:]
        if self._gone or self.life is State.FINISHING:
            return  # the other side may send nothing after its close frame (RFC 6455 section 5.5.1)
        if not self._missing:
            self.data += data
        else:
            self._missing -= len(data)
            self._parts.append(data)
            if self._missing > 0:
                _gather(self._parts)
                return
            self._missing = 0
            self.data = b"".join(self._parts)
            self._parts = []
        self.consumeData()
        header_limit = self.opener.side.settings.header_limit
        if self.state == self.STATE_CONNECTING and len(self.data) > header_limit:
            self.drop(f"an opening handshake of more than {header_limit} bytes")

    def consumeData(self) -> None:
        """Consume what has been received. Autobahn calls it too, where an exception would be lost."""
        self._at_rest = False
        try:
            self._consume()
        except Exception:
            self.broke()

    def _consume(self) -> None:
        """Take whole binary frames the fast way and leave the rest to Autobahn, frame by frame, in order."""
        if self._steps is not None:
            return
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            super().consumeData()
            return
        limit = self._message_limit
        small = 0
        while True:
            if small == SMALL_FRAMES and self.data:
                self._begin(iter((None,)))
                return
            if self.state == self.STATE_OPEN and self.current_frame is None and not self.inside_message:
                payloads, end, missing = frames.scan(self.data, self.masked, limit)
                if end:
                    self.data = self.data[end:]
                if payloads:
                    self._records(payloads)
                    if self._steps is not None:
                        return
                if missing and self.state == self.STATE_OPEN:
                    self._parts, self.data, self._missing = [self.data], b"", missing
                    return
                if not self.data:
                    self._at_rest = self.state == self.STATE_OPEN and bool(self.session.id)
                    return
                if self.data[0] == frames.TEXT_FIN and self.session.id and self.state == self.STATE_OPEN:
                    end = _take_ack(self, self.data)
                    if end:
                        self.data = self.data[end:]
                        small += 1
                        continue
                elif payloads and self.data[0] == frames.BINARY_FIN:
                    continue  # behind a large message; nothing is scanned twice without a step forward
            if not self.processData() or self._gone or self._steps is not None:
                return
            small += 1

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        served_messenger = self.serving and self.opener.kind == MESSENGER
        if isBinary or (self.dialect == CES1 and not served_messenger):
            self._records([payload])
            return
        try:
            message = read_control(payload)
        except MalformedControl as fault:
            if self._deaf:
                return
            if self.link is None:
                self.end(PROTOCOL_ERROR, f"the first message was not a hello: {fault}")
            else:
                self.link.fault(self, [str(fault)])
        else:
            self._told(message)

    def _records(self, payloads: list[bytes]) -> None:
        link = self.link
        if self._deaf:
            return
        if link is None:
            self.end(PROTOCOL_ERROR, "a record came before the hello")
            return
        large = len(payloads[-1]) > frames.SHARE and self.dialect == CES2
        if large or len(payloads) > MESSAGES:
            self._begin(self._take_portions(link, payloads, large))
        elif link.take(self, payloads, sum(map(len, payloads))) and not self._carried:
            self._carry()

    def _take_portions(self, link: Link, payloads: list[bytes], large: bool) -> Iterator[None]:
        """Take messages `MESSAGES` at a time, and the last one in pieces when it is `large`."""
        pieces: Iterator[bytes] = iter(())
        if large:
            pieces = wire.pieces(payloads.pop())
            payloads.append(next(pieces))
        whole = (payloads[start : start + MESSAGES] for start in range(0, len(payloads), MESSAGES))
        for number, portion in enumerate(chain(whole, ([piece] for piece in pieces))):
            if number:
                yield
            if link.take(self, portion, sum(map(len, portion))) and not self._carried:
                self._carry()

    def _begin(self, steps: Iterator[None]) -> None:
        """Take a message in steps, the first one now. Until the last of several is done, read nothing."""
        if next(steps, self) is self:
            return
        self._steps = steps
        if not self._paused and not self._gone:
            self.transport.pauseProducing()
            self.opener.side.slices.add(self)

    def slice(self) -> bool:
        """The next step of a large message, or what came behind it (`ces.link.slices.Sliced`)."""
        if self._paused or self._gone or self._steps is None:
            return False
        if not self._deaf and next(self._steps, self) is not self:
            return True
        self._steps = None
        self.transport.resumeProducing()
        self.consumeData()
        return False

    def _told(self, message: Message | Ack | int) -> None:
        """A text message came."""
        link = self.link
        if isinstance(message, int):
            message = Ack(message, None)
        if isinstance(message, Ack) and link is not None and self.session.id:
            self._acknowledged(link, message)  # also while this side closes
        elif self._deaf:
            return
        elif self.dialect == CES1 and not isinstance(message, SubscriptionChange):
            if link is not None:
                link.fault(self, ["a control message of ces.2 came on a link that speaks ces.1"])
        elif isinstance(message, Hello):
            self._greeted(message)
        elif link is None:
            self.end(PROTOCOL_ERROR, "the first message was not a hello")
        elif isinstance(message, Ack):
            link.fault(self, ["an acknowledgement came on a link without a session"])
        elif isinstance(message, SubscriptionChange):
            if self.life is State.OPEN:
                self._begin(link.take_change(self, message))
        elif self.life is State.OPEN or isinstance(message, Gap):  # what it takes as it closes has gaps, too
            link.take_message(self, message)

    def _acknowledged(self, link: Link, ack: Ack) -> None:
        """The other side has taken responsibility for records, and has taken subscription changes."""
        try:
            if link.acknowledged(self, ack.records) and not self._carried:
                self._carry()
            if ack.changes is not None:
                link.acknowledged_changes(self, ack.changes)
        except OutOfStep as fault:
            self.end(PROTOCOL_ERROR, f"an acknowledgement is out of step: {fault}")

    def onPing(self, payload: bytes) -> None:
        if self.blocked:
            # The latest one is answered when there is room again (RFC 6455 section 5.5.3): none pile up.
            self._pinged = payload
        elif self.state == self.STATE_OPEN:
            self.sendPong(payload)

    def onPong(self, payload: bytes) -> None:
        # Whatever its payload: Go peers answer with an empty one.
        if self._ping_sent is not None:
            self.round_trip = self._seconds() - self._ping_sent
            self._ping_sent = None

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        self._frames = 0

    def onMessageFrameBegin(self, length: int) -> None:
        self._frames += 1
        super().onMessageFrameBegin(length)
        if self._frames > FRAMES and not self.failedByMe:
            self._max_message_size_exceeded(self._frames, FRAMES, f"a message of more than {FRAMES} frames")

    def onMessageFrameData(self, payload: bytes) -> None:
        super().onMessageFrameData(payload)
        _gather(self.frame_data)

    def onMessageFrame(self, payload: Any) -> None:  # a list of pieces, whatever Autobahn declares
        payload[:] = [b"".join(payload)]
        super().onMessageFrame(payload)

    def _carry(self) -> None:
        self._carried = True
        self.opener.carried(self)

    # -- out -------------------------------------------------------------------------------------------------

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """What Autobahn writes goes the same way as what the link writes, and so in order."""
        self.write([data], len(data))

    def tell(self, message: Message) -> None:
        """Send a text message, if the connection is open. None is dropped: a peer that reads none is cut."""
        if self.state != self.STATE_OPEN:
            return
        text = write_control(message)
        if self.blocked:
            side = self.opener.side
            self._unread += len(text)
            side.tally.bytes += len(text)
            if side.tally.bytes > side.settings.buffer_limit:
                side.relieve()
            if self._unread > side.settings.link_buffer or side.tally.bytes > side.settings.buffer_limit:
                if self.link is not None:
                    self.link.break_session()
                self.drop("it reads too slowly: its control messages fill its buffer")
                return
        self.sendMessage(text, False)

    def acknowledge(self, last: bool = False) -> None:
        """Tell the other side what has been taken, now or as soon as there is room.

        :param last: before a close: send it whether there is room or not.
        """
        if not self.session.unreported or self.state != self.STATE_OPEN or self._deaf:
            return
        if last or not self.blocked:
            session = self.session
            changes = session.changes if session.changes != session.changes_reported else None
            told = frames.text(ack_text(session.report(), changes), not self.serving)
            self.write([told], len(told))

    def pauseProducing(self) -> None:
        self.blocked = True
        if self.link is not None:
            self.link.blocked(self)

    def resumeProducing(self) -> None:
        self.blocked = False
        self._read()
        if self._pinged is not None and self.state == self.STATE_OPEN:
            pinged, self._pinged = self._pinged, None
            self.sendPong(pinged)
        self.acknowledge()
        if self.link is not None:
            self.link.writable(self)

    def stopProducing(self) -> None:
        self.pauseProducing()

    def _read(self) -> None:
        """What was sent while the transport was full waits no more."""
        self.opener.side.tally.bytes -= self._unread
        self._unread = 0

    def unsent(self) -> int:
        """Bytes that were written and wait for the kernel."""
        return unsent(self.transport)

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._paused = True
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read again."""
        self.heard = self._seconds()
        self._paused = False
        if self._steps is not None:
            self.opener.side.slices.add(self)
        else:
            self.transport.resumeProducing()

    def probe(self) -> None:
        """Ping the other side; end the connection if nothing comes within `PROBE` seconds."""
        if self.state == self.STATE_OPEN and self._probed is None:
            self._probed = self._seconds()
            self.sendPing()
            self.watch()

    # -- deadlines -------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Something is due earlier than before."""
        self.opener.side.keepalive.watch(self)

    def due(self, now: float) -> float | None:
        """Do what is due: the sweep's question (`ces.link.keepalive.Watched`)."""
        settings = self.opener.side.settings
        if self.life is not State.OPEN:
            deadline = self._since + settings.handshake_timeout
            if now < deadline:
                return deadline
            return self._late(now)
        silence = settings.silence_timeout if self.serving else settings.dial_silence_timeout
        if now >= self.heard + silence:
            self.drop(f"nothing heard for {silence:g} s")
            return None
        next_due = self.heard + silence
        if self._probed is not None:
            if self.heard > self._probed:
                self._probed = None
            elif now >= self._probed + PROBE:
                self.drop(f"another process came with its node, and it did not answer within {PROBE:g} s")
                return None
            else:
                next_due = min(next_due, self._probed + PROBE)
        if self.link is not None:
            stalled = self.link.check_stalled(now)
            if self.life is not State.OPEN:
                return now + settings.handshake_timeout
            if stalled is not None:
                next_due = min(next_due, stalled)
        if self._login_ends is not None:
            if now >= self._login_ends:
                self.end(NOT_AUTHENTICATED, "the login has expired")
                return now + settings.handshake_timeout
            next_due = min(next_due, self._login_ends)
        if self.serving:
            if now >= self._next_ping:
                self._next_ping = now + settings.ping_interval
                self._ping_sent = self._seconds()
                self.sendPing()
            next_due = min(next_due, self._next_ping)
        return next_due

    def _late(self, now: float) -> float | None:
        """The other side took too long to open or to close."""
        timeout = self.opener.side.settings.handshake_timeout
        if self.life is State.HELLO and self.serving:
            self._since = now
            self.end(PROTOCOL_ERROR, f"no hello within {timeout:g} s")
            return now + timeout
        # A dialling side does not close: what the other side has made of a hello is not known.
        awaited = {
            State.HANDSHAKE: "answer to the handshake",
            State.HELLO: "hello",
            State.CLOSING: "answer to the close",
            State.FINISHING: "end of the stream",
        }.get(self.life, "end")
        self.drop(f"no {awaited} within {timeout:g} s")
        return None

    # -- the end ---------------------------------------------------------------------------------------------

    @property
    def unfinished(self) -> bool:
        """Whether the link has anything to send on it, or to be acknowledged."""
        return self.link is not None and self.link.connection is self and self.link.unfinished

    @property
    def _gone(self) -> bool:
        """Whether the connection is over, or was dropped and waits for its transport to say so."""
        return self.state == self.STATE_CLOSED or self.life is State.CLOSED

    def end(self, code: int, reason: str) -> None:
        """Close, once what the transport takes of the queue has been written. To end twice is to end once."""
        if self._gone:
            return
        if self.state == self.STATE_OPEN:
            if self.link is not None and self.link.connection is self:
                self.link.flush(Memo())
            self.ended = self.ended or f"closed with {code}: {reason}"
            self.code = code
            self.acknowledge(last=True)
            self._deaf = code not in HEARD or self.link is None
            self.sendClose(code, reason)
        elif self.state == self.STATE_CONNECTING:
            self.drop(reason)

    def replaced(self) -> None:
        """A newer connection takes its place: take nothing more, and close."""
        if self.state == self.STATE_OPEN:
            self.end(REPLACED, "a newer connection to the same peer takes its place")
        elif not self._deaf:
            self.abort()  # it closes with a code after which it would take what is under way

    def review(self, judge: Judge) -> None:
        """The rights of all have changed: ask for those of the other side, and close when it has none."""
        link = self.link if self.link is not None and self.link.connection is self else None
        try:
            login = judge(self.login, self.opener.kind)
        except Revoked as revoked:
            if link is not None:
                link.shut()
            self.end(revoked.code, str(revoked))
            return
        if login is not self.login:
            self.login = login
            if link is not None:
                link.authorize(login)

    def abort(self) -> None:
        """End without a closing handshake."""
        self.drop("it was aborted")

    def drop(self, reason: str) -> None:
        """End without a closing handshake."""
        self._at_rest = False
        self.ended = self.ended or reason
        self._deaf = True
        self.life = State.CLOSED
        self._tell_closing()
        self.transport.abortConnection()

    def broke(self) -> None:
        """An error in this program while it served this connection: it costs this one and no other."""
        self.opener.side.log.failure("unexpected error on connection {name}", name=self.name)
        self.drop("an internal error, see the log")

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        self._at_rest = False
        if self._gone:
            return
        was_open = self.state == self.STATE_OPEN
        if was_open:
            self.acknowledge(last=True)
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if not was_open:
            return
        if isReply:
            # A close frame need not have a code, and is no cut all the same.
            self.code = self.remoteCloseCode or NORMAL
            said = ": ".join(str(part) for part in (self.remoteCloseCode, self.remoteCloseReason) if part)
            self.ended = self.ended or f"closed by the other side with {said or 'no code'}"
        else:
            self.advance(Step.CLOSE_SENT)
            if not self.ended:
                # Autobahn closes for a violation of RFC 6455.
                self.code = code
                self.ended = f"closed with {code}: {(reasonUtf8 or b'').decode('utf-8', 'replace')}"
                self._deaf = True
        self._since = self._seconds()
        self._tell_closing()
        if not isReply:
            self.opener.side.keepalive.watch(self)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> Any:
        closing = self.life
        stop = super().onCloseFrame(code, reasonRaw)
        if self.life is closing and self.wasClean and closing is not State.CLOSED:
            self._finish()
        return stop

    def _finish(self) -> None:
        """Both close frames are out. What follows in the same read, and in later ones, is not looked at."""
        self.data = b""
        self.advance(Step.CLOSE_RECEIVED)
        self._since = self._seconds()
        self._deaf = True
        self.opener.side.keepalive.watch(self)

    def _closeConnection(self, abort: bool = False) -> None:
        """Autobahn ends the connection.

        After both close frames it would reset it when both sides closed at once: what the kernel still held
        would be lost. End our half of the stream instead, and read the other half to its end.
        """
        if self.wasClean:
            end_stream(self.transport)
        else:
            super()._closeConnection(abort)

    def _tell_closing(self) -> None:
        if self.link is not None:
            self.link.closing(self, self.code, self.ended)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            self._lost(reason)
        finally:  # and not before: who waits until all are gone expects every link to have left
            self.opener.side.went(self)

    def _lost(self, reason: Failure) -> None:
        self._read()
        self._missing, self._parts = 0, []
        self._steps = None
        self.opener.side.slices.remove(self)
        opening = self.state == self.STATE_CONNECTING
        self.finished = self.life is State.FINISHING and reason.check(ConnectionDone) is not None
        super().connectionLost(reason)
        if not self.ended:
            how = "ended during the opening handshake" if opening else "was cut"
            self.ended = f"the connection {how}: {why_lost(self.transport, reason)}"
        self._tell_closing()
        self.advance(Step.LOST)
        if self.link is not None:
            # A side that closes with another code takes nothing more, and has acknowledged what it took.
            taken = self.finished and (self.remoteCloseCode or NORMAL) in HEARD
            # What was not answered may not have arrived: that is a cut.
            unanswered = self.code == NORMAL and not self.wasClean
            self.link.lost(self, None if unanswered else self.code, taken)
        self.opener.lost(self)
        # Autobahn's future, which is not used, has the connection as its result. With that the connection
        # would wait for the collector, which comes to what is old very rarely (`ces.ops.collector`).
        self.is_closed = None

    def handshake_failed(self, reason: str) -> None:
        """The opening handshake was answered, but not with an upgrade that holds."""
        self.ended = self.ended or reason
        self.opener.side.limited.info(
            "handshake", "handshake with {peer} failed: {reason}", peer=self.peer, reason=reason[:200]
        )


# Acknowledgements are as many as all else together. To find a method in a connection takes a look into its
# large dict, which is far from the processor: so this is a function, and touches nothing but slots.


def _take_ack(connection: Connection, data: bytes) -> int:
    """Take an acknowledgement the fast way, if `data` begins with one.

    :return: how many bytes it was.
    """
    masked = connection.masked
    text = frames.short_text(data, masked)
    if text is None:
        return 0
    number = ack_number(text)
    if number is None:
        return 0
    link = connection.link
    assert link is not None
    try:
        if link.acknowledged(connection, number) and not connection._carried:
            connection._carry()
    except OutOfStep as fault:
        connection.end(PROTOCOL_ERROR, f"an acknowledgement is out of step: {fault}")
    return len(text) + (frames.SHORT_MASKED if masked else frames.SHORT_PLAIN)
