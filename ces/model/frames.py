"""Parses and builds whole WebSocket data frames (RFC 6455 section 5.2).

This is the fast path for ordinary frames: binary, final, not fragmented, no reserved bit, masked as the
direction requires, minimal length encoding, within the size limit. `scan` stops in front of any other frame
(control, text, continuation, violation) and leaves it to Autobahn, which knows every rule. The scanner
therefore has no error path.

Cost of a 400-byte frame (docs/performance.md): about 0.6 us to scan a masked one, of which 0.1 us is
unmasking in C (`apply_mask` of websockets); about 0.2 us to build an unmasked one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # in C where that is available

TEXT_FIN = 0x81
BINARY_FIN = 0x82
MASKED = 0x80

SHORT_PLAIN, SHORT_MASKED = 2, 6
"""Header length in bytes, for a payload of up to 125 bytes."""

LARGE = 4096
"""Size in bytes from which avoiding the copy of a payload pays. Smaller payloads are cheaper to copy."""

SHARE = 64 * 1024
"""Size in bytes above which `scan` stops behind a payload: the caller may not want to handle it at once."""

GATHERED = 32
"""Largest number of message parts that are passed to the kernel unjoined. Joining more parts is cheaper."""


class Scan(NamedTuple):
    """The result of `scan`.

    payloads: the unmasked payloads of whole binary messages, in order.
    end: index of the first byte that was not consumed.
    missing: number of bytes still needed for the frame that begins at `end`; 0 when this module does not
        handle that frame or its header is incomplete, and behind a payload of more than `SHARE` bytes, which
        is the last one.
    """

    payloads: list[bytes]
    end: int
    missing: int


def scan(data: bytes, masked: bool, limit: int) -> Scan:
    """Parse whole binary messages from the beginning of `data`.

    :param data: received bytes. They must begin at a frame boundary, and not inside a fragmented message.
    :param masked: True on the serving side, where frames must be masked; False on the dialling side, where
        they must not be.
    :param limit: the largest payload in bytes. `scan` stops in front of a larger frame.
    """
    payloads: list[bytes] = []
    take = payloads.append
    at = 0
    size = len(data)
    bit = MASKED if masked else 0
    key = 4 if masked else 0
    while at + 2 <= size:
        length = data[at + 1] ^ bit
        if data[at] != BINARY_FIN or length > 127:
            break
        start = at + 2 + key
        if length == 126:
            start += 2
            if start > size:
                break
            length = data[at + 2] << 8 | data[at + 3]
            if length < 126:
                break
        elif length == 127:
            start += 8
            if start > size:
                break
            length = int.from_bytes(data[at + 2 : at + 10], "big")
            if length < 65536:
                break
        elif start > size:
            break
        if length > limit:
            break
        end = start + length
        if end > size:
            return Scan(payloads, at, end - size)
        if not masked:
            take(data[start:end])
        elif length < LARGE:
            take(apply_mask(data[start:end], data[start - 4 : start]))
        else:
            take(apply_mask(memoryview(data)[start:end], data[start - 4 : start]))
        at = end
        if length > SHARE:
            break
    return Scan(payloads, at, 0)


def short_text(data: bytes, masked: bool) -> bytes | None:
    """The payload of the text frame at the beginning of `data`.

    The payload is not checked to be UTF-8. Callers must compare it with texts that they expect, or check it.

    :return: None unless `data` begins with a whole, final text frame with a payload of up to 125 bytes.
    """
    if len(data) < 2 or data[0] != TEXT_FIN:
        return None
    length = data[1] ^ (MASKED if masked else 0)
    start = SHORT_MASKED if masked else SHORT_PLAIN
    end = start + length
    if length > 125 or end > len(data):
        return None
    return apply_mask(data[start:end], data[2:SHORT_MASKED]) if masked else data[start:end]


def text(payload: bytes, masked: bool) -> bytes:
    """Build a text frame. The payload must be at most 125 bytes long."""
    if not masked:
        return bytes((TEXT_FIN, len(payload))) + payload
    mask = os.urandom(4)
    return bytes((TEXT_FIN, MASKED | len(payload))) + mask + apply_mask(payload, mask)


def header(length: int, bit: int = 0) -> bytes:
    """The header of a final binary frame with a payload of `length` bytes.

    :param bit: `MASKED` when a masking key follows, otherwise 0.
    """
    if length < 126:
        return bytes((BINARY_FIN, bit | length))
    if length < 65536:
        return bytes((BINARY_FIN, bit | 126, length >> 8, length & 255))
    return bytes((BINARY_FIN, bit | 127)) + length.to_bytes(8, "big")


_SHORT = tuple(header(length) for length in range(2048))
"""Ready-made headers for the lengths that most events have."""


def frames(payloads: Iterable[bytes]) -> bytes:
    """Unmasked binary frames, one per payload, as a serving side sends them. Links may share the result."""
    parts: list[bytes] = []
    for payload in payloads:
        length = len(payload)
        parts += (_SHORT[length] if length < 2048 else header(length), payload)
    return b"".join(parts)


def gathered(messages: Iterable[list[bytes]]) -> list[bytes]:
    """Unmasked binary frames, one per message, as buffers to send in order. Links may share the result.

    :param messages: each message is a list of the parts of its payload. Up to `GATHERED` parts stay separate,
        because the kernel gathers them.
    """
    buffers: list[bytes] = []
    for parts in messages:
        buffers.append(header(sum(map(len, parts))))
        if len(parts) <= GATHERED:
            buffers += parts
        else:
            buffers.append(b"".join(parts))
    return buffers


def masked_frames(payloads: Iterable[bytes]) -> bytes:
    """Masked binary frames, one per payload, as a dialling side sends them.

    Each frame has a new key (RFC 6455 section 5.3), so links cannot share the result.
    """
    parts: list[bytes] = []
    for payload in payloads:
        mask = os.urandom(4)
        parts += (header(len(payload), MASKED), mask, apply_mask(payload, mask))
    return b"".join(parts)
