"""A link: one WebSocket connection. What its two ends do differently is in `ces.link.ends`; no other modules
subclass Autobahn's protocols.

The way in: bytes -> whole binary frames by `ces.model.frames`, all else by Autobahn -> `ces.model.wire` ->
the owner. The way out: `put(run)` (a list append) -> `flush`, once per reactor turn -> one `transport.write`.

A link owns its outbox, its deadlines and its close; it does not know rooms, routes or other links. It opens::

    ces.1   open -> joined
    ces.2   dialling: open -> hello sent -> hello received -> admitted -> joined
            serving:  open -> hello received -> admitted -> hello sent -> joined

What Autobahn does is bent in these places, each for the reason beside it: `log` (its texts hold what an
attacker sent, at any rate), `tcpNoDelay` (it means to set it, and does not), `consumeData` (the fast way),
`sendData` (one way out for its bytes and ours), the close and handshake timers (they sit on the global
reactor: the sweep of `ces.link.keepalive` has the deadlines).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ces.link.direct import output
from ces.link.tls import why_lost
from ces.link.turn import Encoded, Memo
from ces.model import frames, wire
from ces.model.bucket import Bucket
from ces.model.control import (
    Error,
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
from ces.model.wire import CES1, CES2, Run
from ces.session.outbox import Outbox
from ces.session.session import OutOfStep, Session

if TYPE_CHECKING:
    from ces.link.side import Side

WRITE_BYTES = 256 * 1024
"""At most so much is handed to the transport at a time; what it cannot pass on stays in the outbox."""

ACK_FRAME = 40
"""An acknowledgement is no longer than so many bytes, its frame included."""

FRAMES = 1000
"""A message may come in so many frames: Autobahn keeps a list of them, the empty ones included."""

PIECES = 1000
"""What comes of a message in pieces is joined so many at a time: each takes up 40 bytes beside its own."""

RATE_SECONDS = 10
"""So many seconds' worth of what a link may send a second may come at once."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, TOO_SLOW, REPLACED, TOO_FAST = 1000, 4001, 4400, 4408, 4409, 4429

RATED = (MESSENGER, "outside")
"""Kinds of links whose rate may be limited: links to hubs and from repeaters carry what others say."""

_STILL_HEARD = (NORMAL, GOING_AWAY, REPLACED)
"""After closing with one of these, what the other side had sent before it knew is still taken."""


def _gather(pieces: list[bytes]) -> None:
    """Join the last `PIECES` when the first of them is small: no byte is copied twice for it."""
    if len(pieces) >= PIECES and len(pieces[-PIECES]) < PIECES:
        pieces[-PIECES:] = [b"".join(pieces[-PIECES:])]


class _Mute:
    """Takes Autobahn's log calls and keeps silent: the owner says what is worth saying, at a limited rate."""

    def __getattr__(self, name: str) -> Any:
        return self._say

    @staticmethod
    def _say(*args: object, **fields: object) -> None:
        pass


@implementer(IPushProducer)
class Link(WebSocketAdapterProtocol, WebSocketProtocol):
    """What both ends have in common; stands before Autobahn's own protocol of the end.

    kind: what the dialling side is (docs/protocol.md, "Words"), or "outside" on a repeater.
    dialect: ``ces.1`` or ``ces.2``, once open.
    node: the other process's identity, "" on a ces.1 link.
    """

    # What each record or acknowledgement needs, side by side: a link's other attributes are spread over so
    # large a dict that each costs a trip to memory when thousands of links are busy.
    __slots__ = (
        "_at_rest",
        "_carried",
        "_missing",
        "_seconds",
        "_stuck",
        "_write",
        "blocked",
        "dialect",
        "heard",
        "joined",
        "masked",
        "outbox",
        "put",
        "session",
    )

    serving: ClassVar[bool]
    log: Any = _Mute()
    tcpNoDelay = True
    """Autobahn asks for it before it has it from the factory, and hides that this fails: small events would
    wait up to 40 ms for the kernel's acknowledgement of what went before."""

    # Autobahn's, whose own declarations do not agree with each other or say too little.
    factory: Any
    transport: Any
    peer: Any
    _transport_details: Any

    node = ""
    path = ""
    refusal: str | None = None
    """Why the owner did not admit the link."""
    refused = False
    """The opening handshake was answered, but not with an upgrade that holds."""
    resumed = False
    """Whether the link goes on with a session of an earlier one."""
    detached = False
    """The link was cut and its owner keeps it; it may be resumed."""
    due_bucket: int | None = None
    records_in = 0
    malformed = 0
    dropped = 0
    close_code: int | None = None
    """The code that the link was closed with, from whichever side; None when it was cut."""
    ended = ""
    """Why the link ended, once it has."""

    _deaf = False
    _owned = False
    _void = False
    """The session ends with this link, however it ends."""
    _until = 0.0
    taken_over = False
    """Another link goes on with the session."""
    _robbed = False
    """The session was taken over by a link that its owner does not know: a hello that it had given up came
    late. It takes the session back."""
    _parts: list[bytes]
    _frames = 0
    _rates: Sequence[tuple[Bucket, str, str]] = ()
    _since = 0.0
    _next_ping = 0.0
    _unread = 0
    """Bytes of text messages that were sent while the transport was full."""
    _pinged: bytes | None = None

    def __init__(self) -> None:
        super().__init__()
        self.dialect = CES1
        self.masked = self.serving
        """Whether what comes is masked (RFC 6455 section 5.3): as `serving`, and in a slot."""
        self.joined = False
        self.blocked = False
        """The transport has more than it can pass on; the outbox fills."""
        self.heard = 0.0
        self._carried = False
        self._stuck: float | None = None
        """Since when the link has taken nothing of what waits for it."""
        self._missing = 0
        """So many bytes complete the frame that is in `_parts`."""
        self._at_rest = False
        """The link is open, has a session, and a message begins with what comes next."""

    # -- opening ---------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        side: Side = self.factory.side
        self.kind: str = self.factory.kind
        self.limits = side.limits
        kept: Session | None = self.factory.session
        self._use(side.new_session() if kept is None else kept)
        self._parts = []
        self._seconds = side.keepalive.seconds
        self.heard = self._since = self._seconds()
        self.host: str = getattr(self.transport.getPeer(), "host", "")
        if self.serving and self.kind in RATED:
            self._rates = [
                (Bucket(rate, rate * RATE_SECONDS, self.heard), unit, f"{rate} {unit} a second")
                for rate, unit in ((self.limits.record_rate, "records"), (self.limits.byte_rate, "bytes"))
                if rate
            ]
        self._write = output(self.transport).write
        super().connectionMade()
        self.transport.registerProducer(self, True)
        side.sockets.adopt(self.transport)
        side.came(self)

    def _use(self, session: Session) -> None:
        self.session = session
        self.outbox: Outbox = session.outbox
        self.put = session.outbox.pending.append

    @property
    def links(self) -> tuple[Link]:
        """A link is a group of one (`ces.link.turn.Group`)."""
        return (self,)

    @property
    def name(self) -> str:
        """What the link is called in logs and in ``/status``."""
        return f"{self.kind} {self.node or self.peer}"

    def onOpen(self) -> None:
        self._since = self._seconds()
        if self.dialect == CES2:
            if not self.serving:
                session = self.session
                self.tell(Hello(self.factory.side.owner.node, session.id or None, session.received))
            return
        try:
            self.session.restart("")
            self._join(self.factory.predecessor())
        except Exception:
            self._broke()

    def _greeted(self, hello: Hello) -> None:
        """The other side has said who it is."""
        if self.node:
            self.end(PROTOCOL_ERROR, "a second hello")
            return
        self.node = hello.node
        if self.serving:
            self._answer(hello)
        else:
            self._answered(hello)

    def _answer(self, hello: Hello) -> None:
        """A hello on the serving side: resume its session, or begin one."""
        side: Side = self.factory.side
        old = side.sessions.get(hello.session or "")
        if old is not None and (old.node, old.kind) == (self.node, self.kind):
            try:
                old.session.resume(hello.received)
            except OutOfStep as fault:
                if old.detached:
                    self.end(PROTOCOL_ERROR, f"the session is gone: {fault}")
                    old.end(PROTOCOL_ERROR, f"it was resumed out of step: {fault}")
                else:  # as a hello that was so long on its way that a later one has overtaken it
                    self.end(PROTOCOL_ERROR, f"the session goes on without it: {fault}")
                return
            self._use(old.surrender())
            side.sessions[self.session.id] = self
            self.resumed = True
            self._say_hello()
            self._join(old)
            return
        self.refusal = side.owner.admit(self)
        if self.refusal is None:
            self.session.restart(side.new_session_id(self))
        # Also to one that is refused: who dialled learns from it which hub it has a link to already.
        self._say_hello()
        if self.refusal is not None:
            self.end(REPLACED, self.refusal)
        else:
            self._join()

    def _say_hello(self) -> None:
        session = self.session
        window = self.limits.window if session.id else 0
        self.tell(
            Hello(self.factory.side.owner.node, session.id or None, session.received, self.resumed, window)
        )

    def _answered(self, hello: Hello) -> None:
        """The answer to our hello: go on with our session, or with the new one."""
        session = self.session
        self.resumed = hello.resumed is True and bool(session.id) and hello.session == session.id
        try:
            if self.resumed:
                session.resume(hello.received)
        except OutOfStep as fault:
            self._void = True
            session.restart("")
            self.end(PROTOCOL_ERROR, f"the session is gone: {fault}")
            return
        if not self.resumed:
            session.restart(hello.session or "")
        self.refusal = self.factory.side.owner.admit(self)
        if self.refusal is not None:
            session.restart("")
            self.end(REPLACED, self.refusal)
        else:
            self._join(self.factory.predecessor())

    def _join(self, old: Link | None = None) -> None:
        """Carry records from now on, in the place of `old`."""
        self.joined = True
        self._next_ping = self._seconds() + self.limits.ping_interval
        self.factory.side.keepalive.watch(self)
        self.factory.link_joined(self)
        if self.joined:  # and not ended at once by whom the factory told
            self._owned = True
            owner = self.factory.side.owner
            if old is None:
                owner.joined(self)
            else:
                old.surrender()
                self.records_in += old.records_in
                self.dropped += old.dropped
                owner.resumed(old, self, fresh=not self.resumed)
        if self.session.waits:  # what has waited in one that outlives its links
            self.factory.side.turn.add(self)

    # -- in --------------------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        seconds = self._seconds
        self.heard = seconds()
        if self._at_rest and len(data) <= ACK_FRAME:
            end = _take_ack(self, data)
            if end == len(data):
                return
            data = data[end:]
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
        if self.state == self.STATE_CONNECTING and len(self.data) > self.limits.header:
            self._drop(f"an opening handshake of more than {self.limits.header} bytes")

    def consumeData(self) -> None:
        """Consume what has been received. Autobahn calls it too, where an exception would be lost."""
        self._at_rest = False
        try:
            self._consume()
        except Exception:
            self._broke()

    def _consume(self) -> None:
        """Take whole binary frames the fast way and leave the rest to Autobahn, frame by frame, in order."""
        if self.state not in (self.STATE_OPEN, self.STATE_CLOSING):
            super().consumeData()
            return
        while True:
            if self.state == self.STATE_OPEN and self.current_frame is None and not self.inside_message:
                payloads, end, missing = frames.scan(self.data, self.masked, self.limits.message)
                if end:
                    self.data = self.data[end:]
                if payloads:
                    self._records(payloads)
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
                        continue
            if not self.processData() or self.state == self.STATE_CLOSED:
                return

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if isBinary or (self.dialect == CES1 and not (self.serving and self.kind == MESSENGER)):
            self._records([payload])
        elif not self._deaf:
            try:
                message = read_control(payload)
            except MalformedControl as fault:
                if self.dialect == CES2 and not self.node:
                    self.end(PROTOCOL_ERROR, f"the first message was not a hello: {fault}")
                else:
                    self._fault([str(fault)])
            else:
                self._told(message)

    def onPing(self, payload: bytes) -> None:
        if self.blocked:
            # The latest one is answered when there is room again (RFC 6455 section 5.5.3): none pile up.
            self._pinged = payload
        elif self.state == self.STATE_OPEN:
            self.sendPong(payload)

    def _records(self, payloads: list[bytes]) -> None:
        if self._deaf:
            return
        if self.dialect == CES2 and not self.node:
            self.end(PROTOCOL_ERROR, "a record came before the hello")
            return
        faults: list[str] = []
        runs = self.factory.read(self, payloads, faults)
        if any([run.size > self.limits.message for run in runs]):
            runs = wire.within(self.limits.message, runs, faults)
        if runs and not self._carried:
            self._carry()
        for run in runs:
            self.records_in += run.count
        if faults:
            self._fault(faults)
        try:
            if runs:
                self.factory.side.owner.received(self, runs)
        finally:  # what the owner fails at would fail it again
            if self.session.id:
                self._took(sum([run.count for run in runs]) + len(faults), sum(map(len, payloads)))
        if self._rates:
            self._rate(sum([run.count for run in runs]) + len(faults), sum(map(len, payloads)))

    def _rate(self, records: int, size: int) -> None:
        """So much has come: is it within what the link may send?"""
        now = self._seconds()
        for bucket, unit, limit in self._rates:
            within = bucket.take(records if unit == "records" else size, now)
            if not within and self.state == self.STATE_OPEN:
                self.factory.side.refuse("rate", f"{self.name} sends more than {limit}")
                self.acknowledge()
                self.end(TOO_FAST, f"more than {limit}")

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
        """The link has carried a record for the first time, in or out."""
        self._carried = True
        self.factory.carried()

    def _took(self, records: int, size: int) -> None:
        """Responsibility was taken for so many records and bytes."""
        if self.session.took(records, size):
            self.acknowledge()
        else:
            self.factory.side.owe(self)

    def _told(self, message: Message | int) -> None:
        """A text message came."""
        if self.dialect == CES1 and not isinstance(message, SubscriptionChange):
            self._fault(["a control message of ces.2 came on a link that speaks ces.1"])
        elif isinstance(message, Hello):
            self._greeted(message)
        elif self.dialect == CES2 and not self.node:
            self.end(PROTOCOL_ERROR, "the first message was not a hello")
        elif isinstance(message, int):
            if self.session.id:
                _acknowledged(self, message)
            else:
                self._fault(["an acknowledgement came on a link without a session"])
        elif not self.joined:
            return  # the link is ending: nothing of this matters any more
        elif isinstance(message, SubscriptionChange):
            self.factory.side.owner.subscribed(self, message)
        elif isinstance(message, Error):
            self.factory.side.limited.warn(
                "error from peer",
                "{link} says: {code} {reason}",
                link=self.name,
                code=message.code,
                reason=message.reason[:200],
            )
        else:
            side: Side = self.factory.side
            side.missed += message.lost
            side.limited.warn(
                "gap", "{link} dropped {lost} records for us", link=self.name, lost=message.lost
            )
            side.owner.missed(self, message.lost)

    def _fault(self, faults: Sequence[str]) -> None:
        """Malformed records or text: count, log, tell, and end a link that sends nothing else."""
        self.malformed += len(faults)
        side: Side = self.factory.side
        side.malformed += len(faults)
        side.limited.warn(
            "malformed",
            "malformed from {link}: {fault} ({count} so far)",
            link=self.name,
            fault=faults[0],
            count=self.malformed,
        )
        if self.dialect == CES2 and self.joined and not self.blocked:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            self.tell(Error(code=PROTOCOL_ERROR, reason=faults[0] + more))
        if not self.records_in and self.malformed >= self.limits.malformed:
            self.end(PROTOCOL_ERROR, f"nothing but malformed records, {self.malformed} of them: {faults[-1]}")

    # -- out -------------------------------------------------------------------------------------------------

    def flush(self, memo: Memo) -> None:
        """Write what waits, as far as the transport takes it and what is unacknowledged allows it."""
        session = self.session
        outbox = session.outbox
        # Not `session.waits`: to ask is a tenth of what this costs for each link and turn.
        while self.joined and not self.blocked:
            if not (outbox.pending or outbox.bytes or session.again or outbox.gap):
                break
            gap, runs = session.take(WRITE_BYTES)
            if gap and self.dialect == CES2:
                self.tell(Gap(gap))
            if not runs:
                break
            encoded = self._encoded(runs, memo)
            self._write(*encoded)
            if self.serving and not gap:
                memo.batch, memo.encoded = session.latest, encoded
        if outbox.pending or outbox.bytes:
            self._settle()
        elif self._stuck is not None:
            self._stuck = None
            self.factory.side.slow.pop(self, None)

    def _settle(self) -> None:
        """Something has to wait."""
        side: Side = self.factory.side
        self._dropped(self.outbox.settle(), "too much waits for it")
        side.slow[self] = None
        if self.joined:
            if self._stuck is None:
                self._stuck = side.keepalive.seconds()
                side.keepalive.watch(self)
            side.pressure.grown(self, self._stuck)
        if side.tally.bytes > self.limits.total:
            side.relieve()

    def shed(self, excess: int) -> None:
        """Drop the oldest of what waits: so many bytes are too much for all links together."""
        self._dropped(self.outbox.shed(excess), "too much waits for all links together")

    def _dropped(self, lost: int, why: str) -> None:
        if lost:
            self.dropped += lost
            self.factory.side.drop(self, lost, why)

    def hold(self) -> None:
        """Read nothing for now."""
        self.transport.pauseProducing()

    def release(self) -> None:
        """Read again."""
        self.heard = self._seconds()
        self.transport.resumeProducing()

    def acknowledge(self) -> None:
        """Tell the other side what has been taken, now or as soon as there is room."""
        if self.session.unreported and self.state == self.STATE_OPEN and not self.blocked and not self._deaf:
            told = frames.text(ack_text(self.session.report()), not self.serving)
            self._write([told], len(told))

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """What Autobahn writes goes the same way as what we write, and so in order."""
        self._write([data], len(data))

    def _encoded(self, runs: list[Run], memo: Memo) -> Encoded:
        """The frames of these runs, which each end makes in its own way."""
        raise NotImplementedError

    @property
    def slow_for(self) -> float | None:
        """For how many seconds the link has taken nothing of what waits for it; None when nothing waits."""
        return None if self._stuck is None else self._seconds() - self._stuck

    @property
    def backlogged(self) -> bool:
        """Whether something waits that could not be written."""
        return self.detached or ((self.blocked or self.session.shut) and bool(self.outbox))

    @property
    def owed(self) -> bool:
        """Whether anything is still to be sent or to be acknowledged by the other side."""
        return self.joined and (self.session.waits or bool(self.session.unacknowledged))

    def tell(self, message: Message) -> None:
        """Send a text message, if the link is open. They cannot be dropped: a link that reads none is cut."""
        if self.state != self.STATE_OPEN:
            return
        text = write_control(message)
        if self.blocked:
            tally = self.factory.side.tally
            self._unread += len(text)
            tally.bytes += len(text)
            if tally.bytes > self.limits.total:
                self.factory.side.relieve()
            if self._unread > self.limits.outbox or tally.bytes > self.limits.total:
                self._void = True
                self._drop("it reads too slowly: its control messages fill its buffer")
                return
        self.sendMessage(text, False)

    def pauseProducing(self) -> None:
        self.blocked = True

    def resumeProducing(self) -> None:
        self.blocked = False
        if self._stuck is not None:
            self._stuck = self._seconds()
        self._read()
        if self._pinged is not None and self.state == self.STATE_OPEN:
            pinged, self._pinged = self._pinged, None
            self.sendPong(pinged)
        self.acknowledge()
        if self.joined and self.session.waits:
            self.flush(Memo())

    def stopProducing(self) -> None:
        self.blocked = True

    def _read(self) -> None:
        """What was sent while the transport was full waits no more."""
        self.factory.side.tally.bytes -= self._unread
        self._unread = 0

    # -- deadlines and the end -------------------------------------------------------------------------------

    def due(self, now: float) -> float | None:
        """Do what is due: the sweep's question (`ces.link.keepalive.Watched`)."""
        if self.detached and self.state == self.STATE_CLOSED:
            if now >= self._until:
                self._expire(f"it did not come back within {self.limits.window:g} s")
                return None
            return self._until
        if not self.joined or self.state != self.STATE_OPEN:
            deadline = self._since + self.limits.handshake
            if now < deadline:
                return deadline
            if self.state == self.STATE_OPEN and self.serving:
                self._since = now
                self.end(PROTOCOL_ERROR, f"no hello within {self.limits.handshake:g} s")
                return now + self.limits.handshake
            # Whoever dialled does not close: what the other side has made of a hello is not known.
            awaited = "hello" if self.state == self.STATE_OPEN else "answer to the handshake"
            self._drop(f"no {awaited} within {self.limits.handshake:g} s")
            return None
        silence = self.limits.silence if self.serving else self.limits.dial_silence
        if now >= self.heard + silence:
            self._drop(f"nothing heard for {silence:g} s")
            return None
        next_due = self.heard + silence
        if self._stuck is not None:
            if now >= self._stuck + self.limits.slow:
                self.end(TOO_SLOW, f"it has taken nothing for {self.limits.slow:g} s")
                return now + self.limits.handshake
            next_due = min(next_due, self._stuck + self.limits.slow)
        if self.serving:
            if now >= self._next_ping:
                self._next_ping = now + self.limits.ping_interval
                self.sendPing()
            next_due = min(next_due, self._next_ping)
        return next_due

    def end(self, code: int, reason: str) -> None:
        """Close the link once what the transport takes of the outbox has been written.

        To end twice is to end once. What the transport did not take stays in the outbox.
        """
        if self.state == self.STATE_OPEN:
            self.flush(Memo())
            self.ended = self.ended or f"closed with {code}: {reason}"
            self.close_code = code
            self._deaf = code not in _STILL_HEARD or not self.joined
            self.sendClose(code, reason)
        elif self.state == self.STATE_CONNECTING:
            self._drop(reason)
        elif self.detached:
            self._expire(reason)

    def surrender(self) -> Session:
        """Another link takes over the session: this one ends and does nothing more with it."""
        session = self.session
        if not self.taken_over:
            self.taken_over = self._deaf = True
            self.joined = self.detached = False
            self.factory.side.keepalive.unwatch(self)
            self.factory.side.detached.pop(self, None)
            self.factory.side.slow.pop(self, None)
            self.factory.side.pressure.forget(self)
            self.session = self.factory.side.new_session()
            self.ended = self.ended or "its session was taken over by a newer link"
            if self.state == self.STATE_OPEN:
                self.close_code = REPLACED
                self.sendClose(REPLACED, "a newer link has taken over the session")
        return session

    def leftover(self) -> list[Run]:
        """Remove what was not sent, and of a link that was cut also what was not acknowledged."""
        return self.session.take_all() if self._was_cut else self.session.take_waiting()

    @property
    def _was_cut(self) -> bool:
        return self.close_code in (None, GOING_AWAY) or self._robbed

    def _expire(self, reason: str) -> None:
        """The session of a link that was cut is kept no longer."""
        self.detached = False
        side: Side = self.factory.side
        side.keepalive.unwatch(self)
        side.detached.pop(self, None)
        self.ended = f"{self.ended}; {reason}"
        self._over()
        self.session.restart("")

    def _over(self) -> None:
        """Link and session have ended."""
        side: Side = self.factory.side
        side.slow.pop(self, None)
        side.pressure.forget(self)
        if self.session.id:
            side.sessions.pop(self.session.id, None)
        try:
            side.owner.left(self, self.ended)
        except Exception:
            side.log.failure("unexpected error when link {link} left", link=self.name)

    def _broke(self) -> None:
        """An error in this program while it served this link: it costs this link and no other."""
        self.factory.side.log.failure("unexpected error on link {link}", link=self.name)
        self._drop("an internal error, see the log")

    def _drop(self, reason: str) -> None:
        """End the link without a closing handshake."""
        self._at_rest = False
        self.ended = self.ended or reason
        self._deaf = True
        self._leave()
        self.transport.abortConnection()

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        was_open = self.state == self.STATE_OPEN
        self._at_rest = False
        if was_open:
            self.acknowledge()
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if not was_open:
            return
        if isReply:
            self.close_code = self.remoteCloseCode
            if self.close_code == REPLACED and not self.serving and self.joined:
                self._robbed = not self.factory.side.owner.superseded(self)
            said = ": ".join(str(part) for part in (self.close_code, self.remoteCloseReason) if part)
            self.ended = self.ended or f"closed by the other side with {said or 'no code'}"
        elif not self.ended:
            # Autobahn closes for a violation of RFC 6455.
            self.close_code = code
            self.ended = f"closed with {code}: {(reasonUtf8 or b'').decode('utf-8', 'replace')}"
            self._deaf = True
        self._since = self._seconds()
        self.factory.side.keepalive.watch(self)
        self._leave()

    def _leave(self) -> None:
        if not self.joined:
            return
        self.joined = False
        if not self._owned:
            return
        side: Side = self.factory.side
        resumable = bool(self.session.id) and self._was_cut and not self._void and not side.ending
        if resumable and side.owner.keeps(self):
            self.detached = True
            self._until = side.keepalive.seconds() + self.limits.window
            self.factory.link_kept(self)
            side.keep(self)
        else:
            self._over()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        side: Side = self.factory.side
        side.went(self)
        self._read()
        self._missing, self._parts = 0, []
        opening = self.state == self.STATE_CONNECTING
        super().connectionLost(reason)
        if not self.ended:
            how = "ended during the opening handshake" if opening else "was cut"
            self.ended = f"the connection {how}: {why_lost(self.transport, reason)}"
        self._leave()
        self._close_session()
        self.factory.link_lost(self)
        # Autobahn's future, which nobody asks for, has the link as its result. With that the link would wait
        # for the collector, which comes to what is old very rarely (`ces.ops.collector`).
        self.is_closed = None

    def _close_session(self) -> None:
        """The connection is gone: what becomes of what was sent and not acknowledged."""
        if self.detached:
            self.factory.side.keepalive.watch(self)
        elif self.session.id and self._owned and not self._was_cut:
            session = self.session
            if self.wasClean:
                session.delivered()
            runs = session.take_sent() if self.factory.session is None else []
            session.restart("")
            if runs:
                self.factory.side.owner.undelivered(self, runs)

    def _handshake_failed(self, reason: str) -> None:
        self.ended = self.ended or reason
        self.refused = True
        self.factory.side.limited.info(
            "handshake", "handshake with {peer} failed: {reason}", peer=self.peer, reason=reason[:200]
        )


# Acknowledgements are as many as all else together. To find a method in a link takes a look into its large
# dict, which is far from the processor: so these are functions, and touch nothing but slots.


def _take_ack(link: Link, data: bytes) -> int:
    """Take an acknowledgement the fast way, if `data` begins with one.

    :return: how many bytes it was.
    """
    masked = link.masked
    text = frames.short_text(data, masked)
    if text is None:
        return 0
    number = ack_number(text)
    if number is None:
        return 0
    _acknowledged(link, number)
    return len(text) + (frames.SHORT_MASKED if masked else frames.SHORT_PLAIN)


def _acknowledged(link: Link, number: int) -> None:
    """The other side has taken responsibility for the first `number` records."""
    session = link.session
    before = session.acknowledged
    try:
        session.acknowledge(number)
    except OutOfStep as fault:
        link.end(PROTOCOL_ERROR, f"an acknowledgement is out of step: {fault}")
        return
    if number != before:
        if not link._carried:
            link._carry()
        if link._stuck is not None:
            link._stuck = link._seconds()
            if link.joined:
                link.factory.side.turn.add(link)
