"""Settings: what each source may say, which one wins, and the sentence for each thing that is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ces.config.link import LinkSettings
from ces.config.settings import SettingError, resolve
from ces.config.values import LOG_LEVELS, choice, flag, integer, plain, seconds, show_size, size, word
from ces.hub.settings import HubSettings
from ces.ops.logging import LEVELS
from ces.repeater.settings import RepeaterSettings

ROLES = [HubSettings, RepeaterSettings]


def hub(
    environ: dict[str, str] | None = None, toml: str | None = None, **given: str | list[str]
) -> HubSettings:
    texts = {
        name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in given.items()
    }
    return resolve(HubSettings, texts, environ or {}, toml, "hub.toml")


def fault(environ: dict[str, str] | None = None, toml: str | None = None, **given: str | list[str]) -> str:
    with pytest.raises(SettingError) as caught:
        hub(environ, toml, **given)
    return str(caught.value)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_given_is_the_defaults_and_the_defaults_agree_with_each_other(role):
    assert resolve(role, {}, {}) == role()
    assert role().conflict() is None


@pytest.mark.parametrize("role", ROLES)
def test_every_default_can_be_written_as_help_shows_it(role):
    for declared in role.options():
        if declared.default_text is None and declared.shown_default:
            texts = declared.shown_default.split() if declared.many else [declared.shown_default]
            values = [declared.kind.parse(text) for text in texts]
            assert (tuple(values) if declared.many else values[0]) == declared.default


@pytest.mark.parametrize("role", ROLES)
def test_a_role_adds_to_the_settings_of_links_and_declares_none_of_them_again(role):
    names = [declared.name for declared in role.options()]
    assert len(names) == len(set(names))
    of_links = [
        declared for declared in role.options() if declared.field not in vars(role)["__annotations__"]
    ]
    assert of_links == list(LinkSettings.options())


@pytest.mark.parametrize("role", ROLES)
def test_every_number_has_bounds_and_a_default_within_them(role):
    for declared in role.options():
        kind = declared.kind
        if isinstance(declared.default, int | float) and not declared.is_flag:
            assert kind.least <= declared.default <= kind.most, declared.name


def test_a_kind_says_which_values_it_allows():
    assert seconds(0.1).values == "0.1s to 86400s"
    assert size(2**16).values == "64KiB to 1024GiB"
    assert integer(1, 5).values == "1 to 5"
    assert word("X", 3).values == "1 to 3 printable ASCII characters without spaces"
    assert choice("X", ["a", "b"]).values == "one of a, b"
    assert flag.values == "true or false"


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_the_bounds_that_a_kind_shows_are_those_that_it_keeps(least, width, value):
    for kind in (integer(least, least + width), size(least, least + width), seconds(least, least + width)):
        if kind.least <= value <= kind.most:
            assert kind.parse(str(value)) == value
        else:
            with pytest.raises(ValueError, match="expected "):
                kind.parse(str(value))


@pytest.mark.parametrize(
    ("settings", "grain"), [({}, 1), ({"ping_interval": 5}, 0.5), ({"handshake_timeout": 0.1}, 0.01)]
)
def test_link_timers_are_as_precise_as_a_tenth_of_the_shortest_timeout(settings, grain):
    assert LinkSettings(**settings).grain == pytest.approx(grain)


@pytest.mark.parametrize("role", ROLES)
def test_settings_are_frozen(role):
    with pytest.raises(dataclasses.FrozenInstanceError):
        role().log_level = "debug"


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default():
    environ, toml = {"CES_HUB_PING_INTERVAL": "5"}, "ping-interval = 7"
    assert hub().ping_interval == 30
    assert hub(toml=toml).ping_interval == 7
    assert hub(environ, toml).ping_interval == 5
    assert hub(environ, toml, ping_interval="3").ping_interval == 3


def test_the_last_of_several_values_counts_where_there_is_one():
    assert hub(ping_interval=["3", "4"]).ping_interval == 4


def test_an_option_of_many_is_repeated_listed_or_separated_and_holds_each_value_once():
    assert hub(listen=["unix:1", "unix:2", "unix:1"]).listen == ("unix:1", "unix:2")
    assert hub({"CES_HUB_INTERCONNECT": "a, b:7200  ws://c,a"}).interconnect == ("a", "b:7200", "ws://c")
    assert hub(toml='interconnect = ["a", "b"]').interconnect == ("a", "b")
    assert hub(toml='interconnect = "a"').interconnect == ("a",)
    assert hub(toml="interconnect = []").interconnect == ()


def test_the_sources_of_an_option_of_many_replace_each_other():
    assert hub({"CES_HUB_LISTEN": "unix:1"}, 'listen = ["unix:2"]', listen=["unix:3"]).listen == ("unix:3",)


def test_an_empty_environment_variable_counts_as_not_set():
    assert (
        hub({"CES_HUB_LISTEN": "", "CES_HUB_NODE_ID": "  ", "CES_HUB_INTERCONNECT": " , "}) == HubSettings()
    )


def test_environment_names_that_are_no_options_are_left_alone():
    assert hub({"CES_HUB_PORT": "tcp://10.0.0.1:7100", "CES_HUB_SERVICE_HOST": "10.0.0.1"}) == HubSettings()


def test_the_names_that_the_fleet_uses_work_and_yield_to_our_own():
    assert hub({"SYSTEM_ID": "ITB-1108-CP1"}).node_id == "ITB-1108-CP1"
    assert hub({"SYSTEM_ID": "ITB-1108-CP1", "CES_HUB_NODE_ID": "mine"}).node_id == "mine"
    environ = {
        "HUB_ADDRESS": "hub:7100",
        "SYSTEM_ID": "r",
        "CENTRAL_REPEATER_ADDRESSES": "a:7101,https://b/event",
    }
    repeater = resolve(RepeaterSettings, {}, environ)
    assert (repeater.hub, repeater.id) == ("hub:7100", "r")
    assert repeater.central_repeater_addresses == ("a:7101", "https://b/event")


@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "ITB-1108", "off", "any"])
def test_any_value_of_room_system_makes_the_hub_an_in_room_one(value):
    assert hub({"ROOM_SYSTEM": value}).in_room is True


@pytest.mark.parametrize("value", ["false", "FALSE", "0", "no", "", " "])
def test_room_system_false_0_no_or_empty_does_not(value):
    assert hub({"ROOM_SYSTEM": value}).in_room is False


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("Yes", True), ("1", True), ("on", True), ("false", False), ("no", False), ("0", False)],
)
def test_a_flag_is_written_in_any_of_the_usual_words(text, value):
    assert hub({"CES_HUB_IN_ROOM": text}).in_room is value


def test_a_flag_of_the_environment_can_be_switched_off_on_the_command_line():
    assert hub({"ROOM_SYSTEM": "yes"}, in_room="false").in_room is False


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("30s", 30), ("2m", 120), ("1.5", 1.5), ("500ms", 0.5), ("1h", 3600), ("1 d", 86400)],
)
def test_times_have_units(text, value):
    assert seconds(0).parse(text) == value


@pytest.mark.parametrize("text", ["", "-1", "3x", "inf", "nan", "1e3", "2m30s", "86401", "0x10", "٣"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="expected a time of 0s to 86400s such as 30, 30s or 2m, got "):
        seconds(0).parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("65536", 65536), ("512k", 524288), ("1MiB", 2**20), ("1.5K", 1536), ("2 g", 2**31), ("7B", 7)],
)
def test_sizes_have_units_of_1024(text, value):
    assert size(0).parse(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1kB", "1MB", "0.3", "1.0001k", "1T", "lots", "9" * 5000])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(
        ValueError, match="expected a size of 0B to 1024GiB such as 65536, 512k or 1MiB, got "
    ):
        size(0).parse(text)


@given(st.integers(0, 2**40))
def test_a_size_is_read_back_as_it_is_shown(value):
    assert size(0).parse(show_size(value)) == value


@given(st.text())
def test_no_text_makes_a_parser_raise_anything_but_valueerror(text):
    kinds = [declared.kind for role in ROLES for declared in role.options()]
    for kind in [*kinds, integer(1, 5), word("X"), plain("X")]:
        try:
            kind.parse(text)
        except ValueError as error:
            assert str(error)


def test_bounds_are_part_of_what_is_expected():
    assert fault(ping_interval="0") == (
        "option --ping-interval: expected a time of 0.1s to 86400s such as 30, 30s or 2m, got '0'"
    )
    with pytest.raises(
        SettingError, match=r"^option --http-parallel: expected a whole number from 1 to 1000, got '0'$"
    ):
        resolve(RepeaterSettings, {"http-parallel": ["0"]}, {})


def test_each_source_is_named_as_the_place_of_what_is_wrong():
    rest = "expected true or false, got 'perhaps'"
    assert fault(in_room="perhaps") == f"option --in-room: {rest}"
    assert fault({"CES_HUB_IN_ROOM": "perhaps"}) == f"environment variable CES_HUB_IN_ROOM: {rest}"
    assert fault(toml='\nin-room = "perhaps"') == f"hub.toml, line 2: in-room: {rest}"


def test_a_wrong_value_is_an_error_even_where_another_source_wins():
    assert fault({"CES_HUB_IN_ROOM": "perhaps"}, in_room="true").startswith(
        "environment variable CES_HUB_IN_ROOM"
    )


def test_an_address_that_cannot_be_dialled_is_refused_with_its_place():
    assert fault(interconnect="ftp://x") == (
        "option --interconnect: address 'ftp://x' has the scheme 'ftp'; expected ws or wss"
    )


def test_a_node_id_is_printable_ascii_of_at_most_128_characters():
    assert hub(node_id="x" * 128).node_id == "x" * 128
    for text in ("x" * 129, "a b", "é", "a\tb"):
        assert "expected 1 to 128 printable ASCII characters without spaces" in fault(node_id=text)


def test_a_log_level_is_one_of_those_that_can_be_logged():
    assert LOG_LEVELS == LEVELS
    assert hub(log_level="WARN").log_level == "warn"
    assert fault(log_level="loud") == (
        "option --log-level: expected one of debug, info, warn, error, critical, got 'loud'"
    )


TIME = "expected a time of 0.1s to 86400s such as 30, 30s or 2m"
SIZE = "expected a size of 1KiB to 1GiB such as 65536, 512k or 1MiB"
WORD = "expected 1 to 128 printable ASCII characters without spaces"
TEXT = "expected a text that is not blank"


@pytest.mark.parametrize(
    ("toml", "fault_in_line"),
    [
        ("ping-intervall = 3", "1: ping-intervall: no such setting; did you mean ping-interval?"),
        ("\nping_interval = 3", "2: ping_interval: no such setting; did you mean ping-interval?"),
        ("# in-room\n'in-room' = 3", "2: in-room: expected true or false, got 3"),
        ("[listen]\nx = 1", f"1: listen: {TEXT}, got a table"),
        ("node-id = [1]", f"1: node-id: {WORD}, got a list"),
        ("listen = ['tcp:1', 3.5]", f"1: listen: {TEXT}, got 3.5"),
        ("node-id = 2026-11-23", f"1: node-id: {WORD}, got the date or time 2026-11-23"),
        ("message-limit = 1.5", f"1: message-limit: {SIZE}, got 1.5"),
        ("ping-interval = true", f"1: ping-interval: {TIME}, got true"),
        ("ping-interval = inf", f"1: ping-interval: {TIME}, got 'inf'"),
        ("in-room = maybe", "1: invalid value at column 11"),
        ("in-room = true\nlisten = [", "2: invalid value at the end of the file"),
        ("a = 1\na = 2\n", "2: cannot overwrite a value at column 6"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(toml, fault_in_line):
    assert fault(toml=toml) == f"hub.toml, line {fault_in_line}"


def test_a_key_far_from_every_setting_is_told_what_there_is():
    assert fault(toml="colour = 1").startswith("hub.toml, line 1: colour: no such setting; expected listen, ")


def test_deeply_nested_values_are_refused():
    assert fault(toml="listen = " + "[" * 100_000).startswith("hub.toml")


@given(st.text())
def test_no_file_raises_anything_but_a_setting_error(toml):
    try:
        hub(toml=toml)
    except SettingError as error:
        assert str(error).startswith("hub.toml") or "listen" in str(error)


def test_settings_that_contradict_each_other_are_refused():
    assert fault(silence_timeout="30").startswith(
        "silence-timeout (30s) must be longer than ping-interval (30s), or"
    )
    assert fault(message_limit="9MiB").startswith(
        "message-limit (9MiB) must not be above link-buffer (8MiB), or"
    )
    assert fault(toml="listen = []") == "listen is empty; expected at least one endpoint such as tcp:7100"
    for option in ("target-buffer", "spool-bytes", "link-buffer"):
        with pytest.raises(
            SettingError, match=rf"^message-limit \(1MiB\) must not be above {option} \(64KiB\), or "
        ):
            resolve(RepeaterSettings, {option: ["64k"]}, {})


def test_a_further_check_is_told_with_the_place_of_the_value():
    def refuse(value: str) -> None:
        if value == "unix:bad":
            raise ValueError("expected better")

    checks = {"listen": refuse}
    assert resolve(HubSettings, {"listen": ["unix:1"]}, {}, checks=checks).listen == ("unix:1",)
    with pytest.raises(SettingError, match=r"^option --listen: expected better$"):
        resolve(HubSettings, {"listen": ["unix:1", "unix:bad"]}, {}, checks=checks)


@pytest.mark.parametrize(("role", "name"), [(HubSettings, "hub.toml"), (RepeaterSettings, "repeater.toml")])
def test_the_example_files_hold_valid_settings(role, name):
    text = (Path(__file__).parents[2] / "etc" / name).read_text(encoding="utf-8")
    assert isinstance(resolve(role, {}, {}, text, name), role)
