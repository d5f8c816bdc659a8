"""Whole frames cut from and made into bytes (RFC 6455 section 5.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.frames import SHARE, Scan, frames, masked_frames, scan
from tests.support.links import frame, read_frames

LIMIT = 70_000
payloads = st.lists(st.binary(max_size=300) | st.integers(0, 70_000).map(bytes), max_size=4)


@given(payloads)
def test_what_is_framed_is_scanned(payloads: list[bytes]) -> None:
    for masked, data in ((False, frames(payloads)), (True, masked_frames(payloads))):
        found: list[bytes] = []
        at = 0
        while at < len(data):
            one = scan(data[at:], masked, LIMIT)
            assert not one.missing
            assert all(len(payload) <= SHARE for payload in one.payloads[:-1])
            found += one.payloads
            at += one.end
        assert found == payloads
        assert read_frames(data) == [(2, payload) for payload in payloads]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_are_as_short_as_they_can_be(size: int) -> None:
    assert frames([b"x" * size]) == frame(2, b"x" * size, masked=False)


def test_every_frame_of_a_dialling_side_has_a_key_of_its_own() -> None:
    data = masked_frames([b"x" * 10] * 50)
    assert len({data[at + 2 : at + 6] for at in range(0, len(data), 16)}) > 1


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [0, 5, 125, 126, 300, 65_536])
def test_an_incomplete_frame_says_what_is_missing_once_its_header_is_there(masked: bool, size: int) -> None:
    whole, before = frame(2, b"x" * size, masked), frame(2, b"before", masked)
    header = len(whole) - size
    for cut in sorted({*range(min(len(whole), 20)), len(whole) - 1}):
        found = scan(before + whole[:cut], masked, LIMIT)
        missing = len(whole) - cut if cut >= header else 0
        assert found == Scan([b"before"], len(before), missing)


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_no_ordinary_frame_is_left_where_it_stands(masked: bool) -> None:
    before = frame(2, b"before", masked)
    others = {
        "text": frame(1, b"x", masked),
        "ping": frame(9, b"", masked),
        "close": frame(8, b"", masked),
        "continuation": frame(0, b"x", masked),
        "first fragment": frame(2, b"x", masked, fin=False),
        "reserved bit": frame(2, b"x", masked, rsv=4),
        "reserved opcode": frame(3, b"x", masked),
        "wrong masking": frame(2, b"x" * 130, not masked),
        "too large": frame(2, b"x" * (LIMIT + 1), masked),
        "endless": bytes([0x82, masked << 7 | 127]) + b"\xff" * 8,
        "two bytes for a short length": bytes([0x82, masked << 7 | 126, 0, 125]) + b"x" * 129,
        "eight bytes for a length of two": bytes([0x82, masked << 7 | 127])
        + (65_535).to_bytes(8, "big")
        + b"x" * 70_000,
    }
    for name, other in others.items():
        assert scan(before + other, masked, LIMIT) == Scan([b"before"], len(before), 0), name
