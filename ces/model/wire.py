r"""Parses and builds binary messages: records and runs of records (docs/protocol.md sections 2 and 3).

Grammar of a strictly written record, as we send it::

    record = room LF event LF          room\n{"key":"power",...}\n
    room   = 0*255 bytes of UTF-8 without control characters, not beginning with "{", not "*"
    event  = one JSON object on one line

Owns the grammar and how the two dialects pack records into messages. Knows nothing of links or subscribers.
Does not parse JSON: an event is carried unchanged once its first byte is known to be ``{``.

A *run* is the unit of routing: consecutive records for one room that arrived together. A run is routed once,
and each of its encoded forms is built at most once, whatever the number of its records and links.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from operator import itemgetter

import ces
from ces.model import frames

BATCH_BYTES = 64 * 1024
"""Size limit of a ces.2 message, unless a single record is larger (docs/protocol.md section 3)."""

PIECE_BYTES = 16 * 1024
"""Size limit of the pieces of a larger message that are parsed at a time: a few ms, even for tiny records."""

ROOM_BYTES = 255
EVERY_ROOM = b"*"

CES1 = "ces.1"
CES2 = "ces.2"


class MalformedRecord(ces.Error, ValueError):
    """A record breaks the grammar. The text is a sentence that says how."""


RECORD_BYTES = 128
"""Least weight of a record in bytes, for memory limits: about what Python needs for the smallest record."""


class Run:
    """One or more records for one room, in order. Immutable, and shared by every link that it goes to.

    :param room: the room's id.
    :param parts: the strictly written records. Each part is one or more records back to back, and no longer
        than `BATCH_BYTES` unless it is a single record.
    :param count: the number of records; 0 when each part is one record.

    size: bytes of the records.
    weight: bytes that the run counts for in memory limits.
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
        """The records, one by one."""
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
        """Unmasked ces.1 frames, one per record, as buffers to send in order. Built once."""
        if self._frames is None:
            if self.size >= frames.LARGE * self.count:
                self._frames = frames.gathered([record] for record in self.records)
            else:
                self._frames = [frames.frames(self.records)]
        return self._frames

    def without_first(self, records: int) -> Run:
        """A run without the first `records` records, which the other side already has."""
        return self.with_only(self.records[records:])

    def with_only(self, records: list[bytes]) -> Run:
        """A run of some of its records."""
        return Run(self.room, records)

    def by_room(self) -> dict[bytes, int]:
        """How many of its records are for which room."""
        return {self.room: self.count}

    def apart(self) -> list[Run]:
        """The run as runs for one room each, in order."""
        return [self]

    def __repr__(self) -> str:
        return f"<Run {self.room!r} {self.count} records, {self.size} bytes>"


class Mixed(Run):
    """Consecutive records for several rooms that go to the same links: one run for the price of one.

    :param room: the room of the first record.
    """

    __slots__ = ()

    @property
    def records(self) -> list[bytes]:
        """The records, one by one."""
        if len(self.parts) == self.count:
            return self.parts
        lines = BytesIO(b"".join(self.parts)).readlines()
        return [room + event for room, event in zip(lines[::2], lines[1::2], strict=True)]

    def with_only(self, records: list[bytes]) -> Run:
        """A run of some of its records."""
        return Mixed(_room_of(records[0]), records)

    def by_room(self) -> dict[bytes, int]:
        """How many of its records are for which room."""
        return Counter(map(_room_of, self.records))

    def apart(self) -> list[Run]:
        """The run as runs for one room each, in order."""
        return [Run(room, list(records)) for room, records in groupby(self.records, _room_of)]


def mixed(runs: list[Run]) -> Run:
    """One run of several, in order. Its parts are joined to parts of up to `BATCH_BYTES`."""
    if len(runs) == 1:
        return runs[0]
    parts = [b"".join(message) for message in pack(runs)]
    return Mixed(runs[0].room, parts, sum([run.count for run in runs]))


def _room_of(record: bytes) -> bytes:
    return record[: record.index(b"\n")]


def pieces(message: bytes) -> Iterator[bytes]:
    """Cut a large ces.2 message between records: pieces of up to `PIECE_BYTES`, unless one record is larger.

    What is malformed in the message is so in its pieces.
    """
    start, size = 0, len(message)
    while size - start > PIECE_BYTES:
        end = message.rfind(b"\n", start, start + PIECE_BYTES) + 1
        if end and message.count(b"\n", start, end) % 2:
            end = message.rfind(b"\n", start, end - 1) + 1
        if end <= start:
            end = message.find(b"\n", message.find(b"\n", start) + 1) + 1
            if end <= start:
                break
        yield message[start:end]
        start = end
    if start < size:
        yield message[start:]


def room_fault(room: bytes) -> str | None:
    """Why `room` is not a valid room, as a sentence; None when it is valid."""
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
    """As `room_fault`, for the room of an event, which must not be ``*``."""
    return "the room is '*', which is for subscriptions only" if room == EVERY_ROOM else room_fault(room)


def make_record(room: bytes, event: bytes) -> bytes:
    """Build a strictly written record.

    :param event: one JSON object. White space around it is dropped. An LF inside becomes a space, which loses
        nothing: a JSON string cannot contain a raw LF.
    :raises MalformedRecord: when the room breaks the rules, or the event does not begin with ``{``.
    """
    fault = event_room_fault(room)
    if fault is not None:
        raise MalformedRecord(fault)
    event = event.strip()
    if event[:1] != b"{":
        raise MalformedRecord("the event does not begin with '{'")
    return b"%b\n%b\n" % (room, event.replace(b"\n", b" "))


def within(limit: int, runs: Iterable[Run], faults: list[str]) -> list[Run]:
    """The runs without the records that are larger than `limit` bytes.

    A record can be too large although its message was not: it grows when it is rewritten strictly, or when
    its room is added. It would close every link that it is passed on to (docs/protocol.md section 2).

    :param faults: one sentence is appended for each record that is too large.
    """
    kept: list[Run] = []
    for run in runs:
        if run.size <= limit:
            kept.append(run)
            continue
        records = [record for record in run.records if len(record) <= limit]
        faults += [f"the record is too large: rewritten strictly, it has more than {limit} bytes"] * (
            run.count - len(records)
        )
        if records:
            kept.append(run if len(records) == run.count else Run(run.room, records))
    return kept


class KnownRooms(dict[bytes, None]):
    """A cache of valid rooms: ``known[room]`` checks a new room, and costs one dict lookup for a known one.

    :param bound: limit of rooms. A full cache is cleared.
    :raises MalformedRecord: from ``known[room]``, when an event cannot have that room.
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
    """Parse one ces.1 message, liberally (docs/protocol.md section 2).

    :return: the room and the strictly written record.
    :raises MalformedRecord: when the message is not a record.
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
    """Parse consecutive ces.1 messages into runs.

    :param faults: one sentence is appended for each malformed message. That message is in no run.

    Cost: a strictly written record for the same room as the record before it takes a comparison and a search,
    and no copy.
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
    """Parse ces.2 messages into runs. Each message holds one or more strictly written records.

    :param faults: one sentence is appended for each malformed record. That record is in no run.

    Cost: messages that are all for one room become one run, and small messages are joined. Otherwise each
    message is parsed by itself. Records of ordinary size need no Python step each: `BytesIO` splits lines
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
    """The parts of one run and the number of its records, when all `messages` are for `room`.

    :return: ``([], 0)`` unless each message is one or more whole records for `room`, within its size limit.
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
        # Records in flight stay in memory and are written to many links: few large parts cost less.
        batches = [b"".join(parts) for parts in pack([Run(room, messages)])]
    records = 0
    for batch in batches:
        # A record never spans two messages, so lines alternate: room, event.
        lines = BytesIO(batch).readlines()
        count = len(lines) // 2
        if lines[::2] != [head[:-1]] * count or bytes(map(_first_byte, lines[1::2])) != b"{" * count:
            return [], 0
        records += count
    return batches, records


def _walk(message: bytes, head: bytes) -> int:
    """Count the records of `message` without copying them.

    :return: 0 unless every record begins with `head` and the message ends with a whole record.
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
    """Parse one message with records for several rooms, or with faults. Each run is one slice of it."""
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
    """Parse a batch with a fault in it. Good records become runs; each malformed one adds a fault."""
    # The text after the last LF is not a line: an event there has no LF of its own.
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
    """Pack `runs` into ces.2 messages, in order. Each message is a list of the parts of its payload.

    A message is at most `BATCH_BYTES` long, unless it is one record that alone is larger.
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
