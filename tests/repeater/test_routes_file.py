"""The routes file: what it may hold, and the one sentence that a bad one gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.model.routing import RepeaterRoutes
from ces.repeater.routes_file import RoutesError, load, parse


def fault(text: str) -> str:
    with pytest.raises(RoutesError) as caught:
        parse(text, "routes.toml")
    return str(caught.value)


def test_rooms_prefixes_and_every_room_become_full_addresses(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(
        '[routes]\n"ITB-1108" = ["itb-1108-cp1", "https://collector/event?x=1"]\n'
        '"ITB-*" = ["wss://gateway:9000"]\n"*" = ["central:7101"]\n'
    )
    assert load(str(file)) == {
        "ITB-1108": ("ws://itb-1108-cp1:7101", "https://collector:443/event?x=1"),
        "ITB-*": ("wss://gateway:9000",),
        "*": ("ws://central:7101",),
    }


def test_one_target_written_in_two_ways_is_one_target() -> None:
    assert parse('[routes]\nA = ["cp1", "ws://cp1:7101", "WS://cp1/"]', "f") == {"A": ("ws://cp1:7101",)}


def test_the_routes_are_what_routing_takes() -> None:
    routes = RepeaterRoutes(
        parse('[routes]\n"A-1" = ["x"]\n"A-*" = ["x", "y"]\n"*" = ["z"]\n"" = ["b"]', "f")
    )
    assert routes.targets(b"A-1") == ("ws://x:7101", "ws://y:7101", "ws://z:7101")
    assert routes.targets(b"") == ("ws://b:7101", "ws://z:7101")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[routes]\nA = ["x"\nB', "routes.toml, line 3: "),
        ("[routes]\nA = " + "9" * 5000, "routes.toml: a number has too many digits"),
        ('[routes]\nA = ["x', "routes.toml, line 2: "),
        ('[routes]\nA = ["x"]\nA = ["y"]', "routes.toml, line 3: "),
        ("", "routes.toml: expected a table [routes]"),
        ("routes = 3", "routes.toml: expected a table [routes]"),
        ("[route]\n", "routes.toml, line 1: 'route': there is no such table; did you mean routes?"),
        (
            "[routes]\n[other]\n",
            "routes.toml, line 2: 'other': there is no such table; expected [routes] alone",
        ),
        (
            '[routes]\nA = "x"',
            "routes.toml, line 2: 'A': expected a list of targets such as [\"ws://host:7101\"]",
        ),
        ("[routes]\nA = [1]", "routes.toml, line 2: 'A': expected a list of targets"),
        (
            '[routes]\n"A*B" = []',
            "routes.toml, line 2: 'A*B': this is neither a room nor a prefix of rooms: ",
        ),
        ('[routes]\n"{" = []', "routes.toml, line 2: '{': this is neither a room"),
        (f'[routes]\n"{"A" * 256}" = []', "the room is 256 bytes long; 255 are allowed"),
        (
            '[routes]\nA = ["ok"]\n"B-1" = [\n  "ok",\n  "ftp://x",\n]',
            "routes.toml, line 5: 'B-1': address 'ftp://x' has the scheme 'ftp'; expected ws or wss or http",
        ),
        ('[routes]\nA = ["ws://"]', "routes.toml, line 2: 'A': address 'ws://' names no host"),
        ('[routes]\nA = [""]', "routes.toml, line 2: 'A': an address is empty"),
        ('[routes]\nA = ["h:99999"]', "routes.toml, line 2: 'A': "),
    ],
)
def test_a_bad_file_gets_one_sentence_with_file_line_and_key(text: str, sentence: str) -> None:
    said = fault(text)
    assert sentence in said
    assert "\n" not in said


def test_a_file_that_is_not_there_or_not_text_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match=r"none\.toml: cannot be read: No such file or directory"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RoutesError, match=r"bad\.toml: cannot be read: it is not UTF-8"):
        load(str(tmp_path / "bad.toml"))


@given(st.text() | st.text(alphabet='[]routes"=*,\n x:/.').map(lambda text: "[routes]\n" + text))
def test_no_text_gives_anything_but_routes_or_a_sentence(text: str) -> None:
    try:
        routes = parse(text, "f")
    except RoutesError as error:
        assert str(error).startswith("f")
    else:
        assert all("://" in url for urls in routes.values() for url in urls)
