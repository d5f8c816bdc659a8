r"""Records and runs of them: what binary messages hold (docs/protocol.md sections 2 and 3).

Grammar, strictly as written by us::

    record = room LF event LF          room\n{"key":"power",...}\n
    room   = 0*255 bytes of UTF-8 without control characters, not beginning with "{", not "*"
    event  = one JSON object on one line

Owns the grammar and the two dialects' way of holding records; does not know links, rooms' subscribers or
JSON: an event is carried as the bytes that it came as, once its first byte has been seen to be ``{``.

A *run* is what routing handles: consecutive records of one message stream that are for one room. It is routed
once and its encoded forms are made at most once, however many records it has and however many links it goes
to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from operator import itemgetter

import ces
from ces.model import frames

BATCH_BYTES = 64 * 1024
"""A ces.2 message grows no larger than this, unless one record alone does (docs/protocol.md section 3)."""

ROOM_BYTES = 255
EVERY_ROOM = b"*"

CES1 = "ces.1"
CES2 = "ces.2"


class MalformedRecord(ces.Error, ValueError):
    """A record that breaks the grammar; the text is a sentence that says how."""


RECORD_BYTES = 128
"""A record weighs at least so much where memory is bounded: about what Python needs for the smallest."""


class Run:
    """One or more records for one room, in order. Made once, shared by every link that it goes to; never
    changed.

    :param room: the room's id.
    :param parts: the records, strictly written: each part one or more of them back to back, and no longer
        than `BATCH_BYTES` unless it is one record alone.
    :param count: how many records that is, where it is not the number of parts.

    size: bytes of the records. weight: bytes that they count for in what is bounded.
    """

    __slots__ = ("_frames", "count", "parts", "room", "size", "weight")

    def __init__(self, room: bytes, parts: list[bytes], count: int = 0) -> None:
        self.room = room
        self.parts = parts
        self.count = count or len(parts)
        self.size = size = sum(map(len, parts))
        least = RECORD_BYTES * self.count
        self.weight = size if size > least else least
        self._frames: list[bytes] | None = None

    @property
    def records(self) -> list[bytes]:
        """Each record by itself."""
        if len(self.parts) == self.count:
            return self.parts
        head = self.room + b"\n"
        return [head + event + b"\n" for event in self.events]

    @property
    def events(self) -> list[bytes]:
        """The JSON of each record."""
        return b"".join(self.parts).split(b"\n")[1::2]

    @property
    def ces1_frames(self) -> list[bytes]:
        """Unmasked frames of ces.1, one per record, as buffers to be sent one after the other."""
        if self._frames is None:
            if self.size >= frames.LARGE * self.count:
                self._frames = frames.gathered([record] for record in self.records)
            else:
                self._frames = [frames.frames(self.records)]
        return self._frames

    def without_first(self, records: int) -> Run:
        """What remains when the other side has the first `records` of them."""
        return Run(self.room, self.records[records:])

    def __repr__(self) -> str:
        return f"<Run {self.room!r} {self.count} records, {self.size} bytes>"


def room_fault(room: bytes) -> str | None:
    """What keeps `room` from being a room, as a sentence; None when nothing does."""
    if len(room) > ROOM_BYTES:
        return f"the room is {len(room)} bytes long; {ROOM_BYTES} are allowed"
    if room[:1] == b"{":
        return "the room begins with '{': the line with the room is missing"
    if room.isascii():
        # isprintable() is False for exactly the control characters of ASCII.
        return None if room.decode("ascii").isprintable() else "the room holds a control character"
    try:
        text = room.decode("utf-8")
    except UnicodeDecodeError:
        return "the room is not UTF-8"
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in text):
        return "the room holds a control character"
    return None


def event_room_fault(room: bytes) -> str | None:
    """As `room_fault`, for an event: ``*`` is for subscriptions only."""
    return "the room is '*', which is for subscriptions only" if room == EVERY_ROOM else room_fault(room)


def make_record(room: bytes, event: bytes) -> bytes:
    """One strictly written record.

    :param event: one JSON object; white space around it is dropped and an LF inside becomes a space (a JSON
        string cannot hold a raw LF, so nothing is lost).
    :raises MalformedRecord: when the room breaks the rules or the event does not begin with ``{``.
    """
    fault = event_room_fault(room)
    if fault is not None:
        raise MalformedRecord(fault)
    event = event.strip()
    if event[:1] != b"{":
        raise MalformedRecord("the event does not begin with '{'")
    return b"%b\n%b\n" % (room, event.replace(b"\n", b" "))


def within(limit: int, runs: Iterable[Run], faults: list[str]) -> list[Run]:
    """The runs without those records that are larger than `limit` bytes.

    A message within a link's limit may hold one: written strictly, or with its room, a record has more bytes
    than what came. Passed on it would close the link of everyone who gets it (docs/protocol.md section 2).

    :param faults: takes one sentence per record that is too large.
    """
    kept: list[Run] = []
    for run in runs:
        if run.size <= limit:
            kept.append(run)
            continue
        records = [record for record in run.records if len(record) <= limit]
        faults += [f"the record is too large: written strictly it has more than {limit} bytes"] * (
            run.count - len(records)
        )
        if records:
            kept.append(run if len(records) == run.count else Run(run.room, records))
    return kept


class KnownRooms(dict[bytes, None]):
    """Rooms of events that have been found good, so that each is checked once: ``known[room]`` is a dict
    look-up.

    :param bound: how many rooms it holds; when full it starts anew.
    :raises MalformedRecord: on looking up a room that an event cannot have.
    """

    def __init__(self, bound: int = 65536) -> None:
        super().__init__()
        self._bound = bound

    def __missing__(self, room: bytes) -> None:
        fault = event_room_fault(room)
        if fault is not None:
            raise MalformedRecord(fault)
        if len(self) >= self._bound:
            self.clear()
        self[room] = None


def read_record(message: bytes, known: KnownRooms) -> tuple[bytes, bytes]:
    """Read one ces.1 message liberally: (room, strictly written record).

    :raises MalformedRecord: with a sentence.
    """
    gap = message.find(b"\n")
    if gap < 0:
        raise MalformedRecord("no line feed between room and event")
    room = message[:gap]
    known[room]
    event = message[gap + 1 :]
    if event[:1] == b"{" and event.endswith(b"}\n") and event.find(b"\n") == len(event) - 1:
        return room, message
    event = event.strip()
    if event[:1] != b"{":
        raise MalformedRecord("the event does not begin with '{'")
    return room, b"%b\n%b\n" % (room, event.replace(b"\n", b" "))


def read_ces1(messages: Iterable[bytes], known: KnownRooms, faults: list[str]) -> list[Run]:
    """The runs in ces.1 messages that arrived one after the other.

    :param faults: takes one sentence per malformed message, which is in no run.

    Cost: a strictly written record for the room of the one before it is recognised by a comparison and a
    search, and not copied.
    """
    grouped: list[tuple[bytes, list[bytes]]] = []
    head = b""  # the room, LF and "{" of the record before
    records: list[bytes] = []
    for message in messages:
        if (
            records
            and message.startswith(head)
            and message.endswith(b"}\n")
            and message.find(b"\n", len(head)) == len(message) - 1
        ):
            records.append(message)
            continue
        try:
            room, record = read_record(message, known)
        except MalformedRecord as fault:
            faults.append(str(fault))
            continue
        if grouped and grouped[-1][0] == room:
            records.append(record)
        else:
            records = [record]
            grouped.append((room, records))
            head = room + b"\n{"
    return [Run(room, records) for room, records in grouped]


def read_ces2(messages: list[bytes], known: KnownRooms, faults: list[str]) -> list[Run]:
    """The runs in ces.2 messages, each of which holds one or more strictly written records.

    :param faults: takes one sentence per malformed record, which is in no run.

    Cost: messages that are all for one room become one run, small ones joined; otherwise each message is
    taken by itself. Records of ordinary size cost no step of Python's each: a `BytesIO` splits into lines
    with ``memchr``, which no method of `bytes` does, and lists of lines are compared as a whole.
    """
    first = messages[0] if messages else b""
    room = first[: first.find(b"\n")]
    parts, count = _alike(messages, room)
    if count:
        try:
            known[room]
        except MalformedRecord as fault:
            faults += [str(fault)] * count
            return []
        return [Run(room, parts, count)]
    runs: list[Run] = []
    for message in messages:
        _read_batch(message, known, faults, runs)
    return runs


_first_byte = itemgetter(0)


def _alike(messages: list[bytes], room: bytes) -> tuple[list[bytes], int]:
    """The parts of a run and how many records it has, if each of `messages` is one or more whole records for
    `room` and within its limit; else no record.
    """
    head = room + b"\n{"
    for message in messages:
        if not message.startswith(head) or message[-1:] != b"\n":
            return [], 0
        if len(message) > BATCH_BYTES and message.count(b"\n") > 2:
            return [], 0
    if not messages:
        return [], 0
    first_record = messages[0].find(b"\n", len(head)) + 1
    if len(messages) == 1 and first_record == len(messages[0]):
        return messages, 1
    if first_record > frames.LARGE:
        counts = [_walk(message, head) for message in messages]
        return messages, sum(counts) if all(counts) else 0
    batches = messages
    if len(messages) > 1:
        # What is kept until it is acknowledged, and written to many links, is better few pieces than many.
        batches = [b"".join(parts) for parts in pack([Run(room, messages)])]
    records = 0
    for batch in batches:
        # No record is spread over two messages: each begins with a line for a room and ends with a line.
        lines = BytesIO(batch).readlines()
        count = len(lines) // 2
        if lines[::2] != [head[:-1]] * count or bytes(map(_first_byte, lines[1::2])) != b"{" * count:
            return [], 0
        records += count
    return batches, records


def _walk(message: bytes, head: bytes) -> int:
    """How many records `message` holds, each of which begins with `head`; 0 when that is not all it holds. As
    `_count_records`, without a copy of any.
    """
    begins_with, index = message.startswith, message.index
    at, size, count = 0, len(head), 0
    try:
        while begins_with(head, at):
            at = index(b"\n", at + size) + 1
            count += 1
    except ValueError:
        return 0
    return count if at == len(message) else 0


def _read_batch(message: bytes, known: KnownRooms, faults: list[str], runs: list[Run]) -> None:
    """One message with records for several rooms, or with faults: each stretch for one room is one slice."""
    lines = BytesIO(message).readlines()
    rooms, events = lines[::2], lines[1::2]
    try:
        for line in set(rooms):
            known[line[:-1]]
        good = len(lines) % 2 == 0 and message[-1:] == b"\n"
    except MalformedRecord:
        good = False
    if not good or bytes(map(_first_byte, events)) != b"{" * len(events):
        _read_ces2_record_by_record(message.split(b"\n"), known, faults, runs)
        return
    room, start, end, first = rooms[0], 0, 0, 0
    for index, (name, event) in enumerate(zip(rooms, events, strict=True)):
        if name != room:
            runs.append(_sliced(room[:-1], message[start:end], index - first))
            room, start, first = name, end, index
        end += len(name) + len(event)
    runs.append(_sliced(room[:-1], message[start:end], len(rooms) - first))


def _sliced(room: bytes, batch: bytes, count: int) -> Run:
    run = Run(room, [batch], count)
    return run if len(batch) <= BATCH_BYTES or count == 1 else Run(room, run.records)


def _read_ces2_record_by_record(
    lines: list[bytes], known: KnownRooms, faults: list[str], runs: list[Run]
) -> None:
    """A batch in which something is wrong: what is good is routed, each record that is not is named."""
    # What follows the last LF is no line: an event there lacks its own.
    for room, event in zip(lines[:-1:2], lines[1:-1:2], strict=False):
        try:
            known[room]
        except MalformedRecord as fault:
            faults.append(str(fault))
            continue
        if event[:1] != b"{":
            faults.append("the event does not begin with '{'")
        else:
            runs.append(Run(room, [b"%b\n%b\n" % (room, event)]))
    if lines[-1] or len(lines) % 2 == 0 or len(lines) == 1:
        faults.append("the message ends in the middle of a record")


def pack(runs: Sequence[Run]) -> list[list[bytes]]:
    """The ces.2 messages that hold `runs` in order, each as the parts of its payload, which is within
    `BATCH_BYTES` if records allow.
    """
    messages: list[list[bytes]] = []
    parts: list[bytes] = []
    size = 0
    for run in runs:
        if size + run.size <= BATCH_BYTES:
            parts += run.parts
            size += run.size
            continue
        for part in run.parts:
            if size + len(part) > BATCH_BYTES and parts:
                messages.append(parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part)
    if parts:
        messages.append(parts)
    return messages
