"""twistd's way in: the options of both roles, what they say of mistakes, and the plugins."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

import ces
from ces.tap import hub, repeater
from ces.tap.options import RoleOptions, check_endpoint

ROOT = Path(__file__).parents[2]
ROLES = [hub.Options, repeater.Options]


def parsed(options: RoleOptions, *args: str) -> RoleOptions:
    options.parseOptions(args)
    return options


def fault(options: RoleOptions, *args: str) -> str:
    """The sentence that refuses a command line; a text in SystemExit goes to stderr, with status 1."""
    with pytest.raises(SystemExit) as caught:
        options.parseOptions(args)
    sentence = caught.value.code
    assert isinstance(sentence, str)
    assert "\n" not in sentence
    assert sentence.startswith(f"{options.program}: ")
    return sentence.removeprefix(f"{options.program}: ")


@pytest.mark.parametrize("role", ROLES)
def test_no_options_at_all_are_valid(role):
    options = parsed(role({}))
    assert isinstance(options.settings, role.settings_class)


def test_options_of_many_values_accumulate_and_flags_switch_both_ways():
    options = parsed(hub.Options({}), "--listen", "unix:a", "--listen=unix:b", "--in-room", "--node-id", "n")
    assert options.settings.listen == ("unix:a", "unix:b")
    assert options.settings.in_room is True
    assert options.settings.node_id == "n"
    assert parsed(hub.Options({"ROOM_SYSTEM": "x"}), "--no-in-room").settings.in_room is False


def test_two_options_objects_share_nothing():
    parsed(hub.Options({}), "--listen", "unix:a")
    assert parsed(hub.Options({}), "--listen", "unix:b").settings.listen == ("unix:b",)


def test_the_process_environment_is_read_when_no_other_is_given(monkeypatch):
    monkeypatch.setenv("CES_HUB_PING_INTERVAL", "5")
    assert parsed(hub.Options()).settings.ping_interval == 5


def test_a_config_file_is_named_by_option_or_environment(tmp_path):
    file = tmp_path / "hub.toml"
    file.write_text("ping-interval = 7\n")
    assert parsed(hub.Options({}), "--config", str(file)).settings.ping_interval == 7
    assert parsed(hub.Options({"CES_HUB_CONFIG": str(file)})).settings.ping_interval == 7
    assert (
        parsed(hub.Options({"CES_HUB_CONFIG": "/nowhere"}), "--config", str(file)).settings.ping_interval == 7
    )


def test_a_config_file_that_cannot_be_used_is_named(tmp_path):
    assert (
        fault(hub.Options({}), "--config", "/nowhere")
        == "configuration file /nowhere: No such file or directory"
    )
    file = tmp_path / "hub.toml"
    file.write_bytes(b'node-id = "\xff"\n')
    assert (
        fault(hub.Options({}), "--config", str(file)) == f"{file}: not UTF-8 at byte 11; TOML must be UTF-8"
    )
    file.write_text("\nping-intervl = 7\n")
    assert fault(hub.Options({}), "--config", str(file)) == (
        f"{file}, line 2: ping-intervl: no such setting; did you mean ping-interval?"
    )


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--lisen", "tcp:1"], "option --lisen: no such option; did you mean --listen?"),
        (["--colour"], "option --colour: no such option; see --help"),
        (["-z"], "option -z: no such option; see --help"),
        (["--listen"], "option --listen: a value is missing"),
        (["--in-room=yes"], "option --in-room: takes no value"),
        (["--hold", "3"], "option --hold: several options begin like this; write the name in full"),
        (["start"], "unexpected argument 'start'; every setting is an option: see --help"),
        (
            ["--ping-interval", "soon"],
            "option --ping-interval: expected a time of 0.1s to 86400s such as 30, 30s or 2m, got 'soon'",
        ),
        (
            ["--message-limit", "9MiB"],
            "message-limit (9MiB) must not be above link-buffer (8MiB), "
            "or the largest messages could never be passed on",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(args, sentence):
    assert fault(hub.Options({}), *args) == sentence


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("tcp:99999", "a port is at most 65535"),
        ("tcp:port=70000", "a port is at most 65535"),
        ("tcp:http", "a part that must be a number is not one"),
        ("tcp", "a part is missing, or there is one too many"),
        ("tcp:1:colour=red", "a part is missing, or there is one too many"),
        ("7100", "Unknown endpoint type: '7100'"),
        ("ssl:7100:privateKey=/nowhere", "/nowhere: No such file or directory"),
    ],
)
def test_an_endpoint_that_cannot_be_listened_on_is_refused_with_the_reason(endpoint, reason):
    assert fault(hub.Options({}), "--listen", endpoint) == (
        "option --listen: expected a Twisted endpoint such as tcp:7100:interface=127.0.0.1, "
        f"got {endpoint!r} ({reason})"
    )


@pytest.mark.parametrize(
    "endpoint", ["tcp:0", "tcp:7100:interface=127.0.0.1", r"tcp6:7100:interface=\:\:1", "unix:/run/ces/hub"]
)
def test_what_twisted_can_listen_on_is_an_endpoint(endpoint):
    check_endpoint(endpoint)


@pytest.mark.parametrize("role", ROLES)
def test_check_says_that_all_is_valid_and_exits_with_0(role, capsys):
    with pytest.raises(SystemExit) as caught:
        role({}).parseOptions(["--check"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{role.program}: the configuration is valid\n"


@pytest.mark.parametrize("role", ROLES)
def test_check_says_when_there_may_be_too_few_descriptors(role, capsys):
    with pytest.raises(SystemExit) as caught:
        role({}).parseOptions(["--check", "--link-limit=1000000", "--http-connections=1000000"])
    assert caught.value.code == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{role.program}: the process may have ") and "LimitNOFILE" in line


@pytest.mark.parametrize("role", ROLES)
def test_a_port_for_other_machines_needs_a_word_on_who_gets_in(role, tmp_path):
    file = tmp_path / "access.toml"
    file.write_text("[principals.fleet]\nkinds = ['messenger']\nnetworks = ['10.0.0.0/8']\n")
    for check in ([], ["--check"]):
        assert fault(role({}), "--listen", "tcp:7100", *check) == (
            "listen: tcp:7100 can be reached from other machines: say who gets in with --access FILE, let in"
            " anyone with --allow-anonymous, or add :interface=127.0.0.1"
        )
    assert parsed(role({}), "--listen", "tcp:7100", "--allow-anonymous").settings.allow_anonymous
    assert parsed(role({}), "--listen", "tcp:7100", "--access", str(file)).settings.access == str(file)
    both = fault(role({}), "--allow-anonymous", "--access", str(file))
    assert both.startswith("--allow-anonymous contradicts --access FILE")


def test_check_says_what_is_wrong():
    assert fault(hub.Options({}), "--check", "--log-level", "loud").startswith(
        "option --log-level: expected one of"
    )


@pytest.mark.parametrize("role", ROLES)
def test_help_shows_every_option_with_its_environment_names_and_default(role, capsys):
    with pytest.raises(SystemExit) as caught:
        role({}).parseOptions(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for declared in role.settings_class.options():
        assert f"--{declared.name}" in shown
        assert f"[{', '.join(role.settings_class.environment_names(declared))}]" in shown
        assert declared.help in shown
        assert f"default {declared.shown_default}" in shown or not declared.shown_default
    assert "--config FILE" in shown
    assert "--check" in shown


def test_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit):
        hub.Options({}).parseOptions(["--version"])
    assert capsys.readouterr().out == f"ces-hub {ces.__version__}\n"


def test_the_directory_of_the_spool_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parsed(repeater.Options({}), "--spool", "here").settings.spool == str(tmp_path / "here")
    assert parsed(repeater.Options({})).settings.spool == ""
    assert list(tmp_path.iterdir()) == [], "nothing is made before the service starts"


def test_the_routes_file_is_checked_and_its_path_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "routes.toml").write_text('[routes]\n"ITB-*" = ["ws://gateway"]\n')
    assert parsed(repeater.Options({}), "--routes", "routes.toml").settings.routes == str(
        tmp_path / "routes.toml"
    )
    assert parsed(repeater.Options({})).settings.routes == ""
    (tmp_path / "routes.toml").write_text('[routes]\n"ITB-*" = ["gopher://gateway"]\n')
    assert fault(repeater.Options({}), "--routes", "routes.toml", "--check").startswith(
        "routes.toml, line 2: "
    )


@pytest.mark.parametrize(("role", "module"), [("ces-hub", hub), ("ces-repeater", repeater)])
def test_the_plugin_names_a_module_with_options_and_a_service(role, module):
    plugins = importlib.import_module("twisted.plugins.ces_plugins")
    [maker] = [m for m in vars(plugins).values() if IServiceMaker.providedBy(m) and m.tapname == role]
    assert verifyObject(IServiceMaker, maker)
    assert IPlugin.providedBy(maker)
    assert maker.module == module.__name__
    assert maker.options is module.Options
    assert maker.makeService is module.makeService


def test_the_plugin_file_imports_nothing_of_ours_and_has_no_package_beside_it():
    code = "import sys, twisted.plugins.ces_plugins; sys.exit('ces' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()


def test_reading_options_installs_no_reactor():
    code = (
        "import sys; from ces.tap import hub, repeater; hub.Options({}).parseOptions([]);"
        "repeater.Options({}).parseOptions([]); sys.exit('twisted.internet.reactor' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
