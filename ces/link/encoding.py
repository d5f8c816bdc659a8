"""How runs become frames, by end and dialect.

A serving end sends unmasked frames, so links share the encoded bytes; a dialling end masks each frame with a
key of its own (RFC 6455 section 5.3).
"""

from __future__ import annotations

from collections.abc import Callable

from ces.link.turn import Encoded, Memo
from ces.model import frames, wire
from ces.model.wire import CES1, CES2, Run

Encode = Callable[[list[Run], Memo], Encoded]
"""The frames of these runs; `memo` holds what others have encoded in this turn."""


def encoder(serving: bool, dialect: str) -> Encode:
    """How the end of a connection encodes what it sends."""
    return _ENCODERS[serving, dialect]


def _served_ces1(runs: list[Run], memo: Memo) -> Encoded:
    key = (CES1, *runs)
    made = memo.frames.get(key)
    if made is None:
        buffers = [buffer for run in runs for buffer in run.ces1_frames]
        made = memo.frames[key] = buffers, sum(map(len, buffers))
    return made


def _served_ces2(runs: list[Run], memo: Memo) -> Encoded:
    key = (CES2, *runs)
    made = memo.frames.get(key)
    if made is None:
        buffers = frames.gathered(wire.pack(runs))
        made = memo.frames[key] = buffers, sum(map(len, buffers))
    return made


def _dialled_ces1(runs: list[Run], memo: Memo) -> Encoded:
    data = frames.masked_frames([record for run in runs for record in run.records])
    return [data], len(data)


def _dialled_ces2(runs: list[Run], memo: Memo) -> Encoded:
    data = frames.masked_frames([b"".join(parts) for parts in wire.pack(runs)])
    return [data], len(data)


_ENCODERS: dict[tuple[bool, str], Encode] = {
    (True, CES1): _served_ces1,
    (True, CES2): _served_ces2,
    (False, CES1): _dialled_ces1,
    (False, CES2): _dialled_ces2,
}
