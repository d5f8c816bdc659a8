"""Addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.address import HTTP_SCHEMES, WEBSOCKET_SCHEMES, Address, AddressError, parse_address

ANY = WEBSOCKET_SCHEMES + HTTP_SCHEMES


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("event-hub", "ws://event-hub:7100"),
        ("event_hub.example", "ws://event_hub.example:7100"),
        (" localhost:7100 ", "ws://localhost:7100"),
        ("localhost:80", "ws://localhost:80"),
        ("10.0.0.1", "ws://10.0.0.1:7100"),
        ("10.0.0.1:99", "ws://10.0.0.1:99"),
        ("[::1]", "ws://[::1]:7100"),
        ("[fe80::1]:7200", "ws://[fe80::1]:7200"),
        ("event-hub.example.", "ws://event-hub.example.:7100"),
        ("x" * 63, f"ws://{'x' * 63}:7100"),
        ("ws://hub", "ws://hub:7100"),
        ("WS://HUB", "ws://hub:7100"),
        ("wss://hub", "wss://hub:7100"),
        ("wss://hub:443", "wss://hub:443"),
        ("ws://hub:7100/", "ws://hub:7100"),
        ("ws://hub/base/", "ws://hub:7100/base"),
        ("hub/base", "ws://hub:7100/base"),
        ("http://collector", "http://collector:80"),
        ("https://collector/event", "https://collector:443/event"),
        ("https://collector/event/", "https://collector:443/event/"),
        ("https://collector:8443/event?key=1", "https://collector:8443/event?key=1"),
        ("ws%3A%2F%2Fhub%3A7200", "ws://hub:7200"),
        ("hub%3A7200", "ws://hub:7200"),
        ("ws:/hub:7200", "ws://hub:7200"),
    ],
)
def test_an_address_is_read(text: str, url: str) -> None:
    address = parse_address(text, 7100, ANY)
    assert str(address) == url
    assert parse_address(str(address), 1, ANY) == address


def test_an_implied_path_may_be_written() -> None:
    assert parse_address("ws://hub/base/connect/hub", 7100, strip="/connect/hub").path == "/base"
    assert parse_address("ws://hub/connect/hub/", 7100, strip="/connect/hub").path == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("ftp://hub", "has the scheme 'ftp'; expected ws or wss"),
        ("http://hub", "has the scheme 'http'; expected ws or wss"),
        ("ws://", "names no host"),
        (":7100", "names no host"),
        ("a b", "names no host"),
        ("-hub", "names no host"),
        ("hub..example", "names no host"),
        ("x" * 64, "names no host"),
        (".".join(["x" * 63] * 4), "names no host"),
        ("[fe80::1%eth0]", "names no host"),
        ("wss://event_hub", "no certificate can"),
        ("wss://ab--c", "no certificate can"),
        ("hub:port", "cannot be read"),
        ("hub:70000", "cannot be read"),
        ("hub:0", "has the port 0"),
        ("[::1", "cannot be read"),
        ("::1", "cannot be read|names no host"),
        ("hub?x=1", "nothing else"),
        ("hub#x", "nothing else"),
        ("user@hub", "nothing else"),
        ("user:secret@hub", "nothing else"),
        ("ws://hub/a b", "control character or a space"),
        ("ws://hub/a\x7f", "control character or a space"),
    ],
)
def test_what_is_no_address_is_named_in_a_sentence(text: str, why: str) -> None:
    with pytest.raises(AddressError, match=why) as caught:
        parse_address(text, 7100)
    assert "\n" not in str(caught.value)


def test_credentials_of_an_http_target_are_refused() -> None:
    with pytest.raises(AddressError, match="nothing else"):
        parse_address("https://user:secret@collector/event", 7101, ANY)


def test_an_address_knows_its_parts() -> None:
    address = Address("wss", "::1", 7100, "/base")
    assert (address.secure, address.netloc) == (True, "[::1]:7100")
    assert address.url("/connect/hub") == "wss://[::1]:7100/base/connect/hub"
    assert not Address("http", "hub", 80).secure


pieces = st.sampled_from(
    ["ws", "://", "http", "hub", ":", "71", "/", "[", "]", "::1", "%", "3A", "@", "?", "#", "\n"]
)


@given(st.text(max_size=20) | st.lists(pieces, max_size=8).map("".join))
def test_any_text_is_an_address_or_not(text: str) -> None:
    try:
        address = parse_address(text, 7100, ANY)
    except AddressError as error:
        assert str(error)
    else:
        assert address.scheme in ANY
        assert address.host
        assert 0 < address.port < 65536
        assert address.path[:1] in ("", "/", "?")
        assert address.url().isprintable() or not address.url().isascii()
