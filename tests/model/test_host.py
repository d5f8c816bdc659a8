"""What a Host and an Origin header name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.host import Host, Origin, parse_host, parse_origin


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("hub", Host("hub", None)),
        ("Hub.Example.EDU.:7100", Host("hub.example.edu", 7100)),
        ("my_hub:", Host("my_hub", None)),
        ("10.0.0.5:7100", Host("10.0.0.5", 7100)),
        ("[::1]:7100", Host("::1", 7100)),
        ("[FE80:0:0:0:0:0:0:1]", Host("fe80::1", None)),
        ("", Host("", None)),
        ("a..b", Host("a..b", None)),
        ("caf%C3%A9", Host("caf%c3%a9", None)),
        *[
            (bad, None)
            for bad in ("a b", "[", "[::1", "::1", "[x]", "[:::]", "hub:x", "hub:70000", "hub:999999")
        ],
        *[(bad, None) for bad in ("user@hub", "http://hub", "hub/x", "h\xffb", "%zz", "a:1:2", " hub")],
    ],
)
def test_a_host_is_a_name_or_an_address_and_perhaps_a_port(text: str, host: Host | None) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "is_address"), [("10.0.0.5", True), ("[::1]", True), ("hub", False), ("", False)]
)
def test_a_host_knows_whether_it_is_an_address(text: str, is_address: bool) -> None:
    host = parse_host(text)
    assert host is not None and host.is_address == is_address


@pytest.mark.parametrize(
    ("text", "origin", "shown"),
    [
        ("https://Panel.example.edu", Origin("https", "panel.example.edu", 443), "https://panel.example.edu"),
        ("http://panel:80/", Origin("http", "panel", 80), "http://panel"),
        ("http://[::1]:8080", Origin("http", "::1", 8080), "http://[::1]:8080"),
        ("chrome-extension://abc", Origin("chrome-extension", "abc", None), "chrome-extension://abc"),
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(text: str, origin: Origin, shown: str) -> None:
    assert parse_origin(text) == origin
    assert str(origin) == shown


@pytest.mark.parametrize(
    "text",
    ["null", "", "file://", "hub", "http://", "http://[", "http://a b", "http://u@h", "http://h/path", "//h"],
)
def test_what_names_no_host_is_no_origin(text: str) -> None:
    assert parse_origin(text) is None


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://hub:7100", "hub:7100", True),
        ("https://hub.example.edu", "hub.example.edu", True),
        ("http://hub.example.edu", "hub.example.edu:80", True),
        ("http://hub:7101", "hub:7100", False),
        ("http://hub", "hub:7100", False),
        ("http://hub.evil:7100", "hub:7100", False),
        ("https://hub", "hub:80", False),
    ],
)
def test_an_origin_is_that_of_a_host_with_the_same_name_and_port(origin: str, host: str, same: bool) -> None:
    parsed, asked = parse_origin(origin), parse_host(host)
    assert parsed is not None and asked is not None
    assert parsed.is_of(asked) == same


@given(st.text())
def test_whatever_is_read_is_read_again_from_what_is_shown(text: str) -> None:
    for parse in (parse_host, parse_origin):
        parsed = parse(text)
        assert parsed is None or parse(str(parsed)) == parsed
