"""Which endpoints and addresses are reached from this machine alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.config.endpoint import is_loopback, stays_here


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp:7100:interface=127.0.0.1",
        "tcp:interface=127.9.9.9:port=7100",
        r"tcp6:7100:interface=\:\:1",
        "ssl:7100:privateKey=a:certKey=b:interface=localhost",
        "unix:/run/ces-hub/hub.sock",
        r"unix:a\:b:mode=660",
    ],
)
def test_loopback_and_the_file_system_stay_here(endpoint: str) -> None:
    assert stays_here(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "tcp:7100",
        "tcp:7100:interface=",
        "tcp:7100:interface=0.0.0.0",
        "tcp:7100:interface=10.0.0.1",
        "tcp:7100:interface=127.0.0.1.example.edu",
        "tcp:7100:interface=127.0.0.1:interface=0.0.0.0",
        "tcp6:7100",
        r"tcp6:7100:interface=\:\:",
        r"tcp:7100\:interface=127.0.0.1",
        "systemd:domain=INET:index=0",
        "haproxy:tcp:7100:interface=127.0.0.1",
    ],
)
def test_everything_else_may_be_reached_from_elsewhere(endpoint: str) -> None:
    assert not stays_here(endpoint)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
        ("hub.example.edu", False),
        ("", False),
    ],
)
def test_an_address_is_a_loopback_address_or_not(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    assert stays_here(text) in (True, False)
    assert is_loopback(text) in (True, False)
