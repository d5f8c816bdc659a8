"""A hub and a repeater with an access file, on real sockets: what gets in is what the file says."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from ces.cli.main import main
from tests.support.access import AccessFile
from tests.support.fleet import Role, event, free_port, until
from tests.support.flow import running


@pytest.fixture
def file(tmp_path: Path) -> AccessFile:
    access = AccessFile(tmp_path / "access.toml")
    access.add("panel", ["messenger"], ["ITB-*"], ["ITB-*"])
    access.add("reader", ["messenger"], [], ["*"])
    access.add("watcher", ["status", "metrics"])
    return access.add("service", ["outside"], ["ITB-*"], networks=["127.0.0.0/8"])


@pytest.fixture
def hub(tmp_path: Path, file: AccessFile) -> Iterator[Role]:
    with running(Role(tmp_path, "ces-hub", free_port(), f"--access={file.path}")) as role:
        yield role


def dial(role: Role, path: str, token: str | None = None) -> ClientConnection:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    socket = connect(
        f"ws://127.0.0.1:{role.port}{path}",
        subprotocols=["ces.2"],  # type: ignore[list-item]
        additional_headers=headers,
        compression=None,
        legacy=True,
    )
    socket.send('{"hello": {"node": "n", "session": null, "received": 0}}')
    assert "hello" in json.loads(socket.recv(10))
    return socket


def refused(role: Role, path: str, token: str | None = None) -> int:
    with pytest.raises(InvalidStatus) as caught:
        dial(role, path, token)
    return caught.value.response.status_code


def test_what_gets_in_is_what_the_file_says(hub: Role, file: AccessFile) -> None:
    tokens = file.tokens
    assert refused(hub, "/connect/messenger") == 403  # the service is found by its network
    assert refused(hub, "/connect/messenger", tokens["panel"][:-1] + "x") == 401
    assert refused(hub, "/connect/messenger", tokens["watcher"]) == 403
    assert refused(hub, "/connect/hub", tokens["panel"]) == 403
    panel = dial(hub, "/connect/messenger", tokens["panel"])
    reader = dial(hub, "/connect/messenger", tokens["reader"])
    reader.send('{"rooms": ["*"], "create": true}')
    panel.send('{"rooms": ["ITB-1", "BNSN-1"], "create": true}')
    assert json.loads(panel.recv(10))["error"]["code"] == 4403
    panel.send(b"".join(b"%b\n%b\n" % (room.encode(), event(1, room)) for room in ("BNSN-1", "ITB-1")))
    assert json.loads(panel.recv(10))["error"]["code"] == 4403
    got = reader.recv(10)
    assert isinstance(got, bytes) and got.split(b"\n")[::2] == [b"ITB-1", b""]
    for token in tokens.values():
        assert token[20:] not in hub.logged()
    panel.close()
    reader.close()


def test_the_status_is_for_who_may_see_it_and_shows_whose_a_link_is(hub: Role, file: AccessFile) -> None:
    panel = dial(hub, "/connect/messenger", file.tokens["panel"])
    assert hub.get("/status")[0] == 403
    ask = urllib.request.Request(
        f"http://127.0.0.1:{hub.port}/status", headers={"Authorization": f"Bearer {file.tokens['watcher']}"}
    )
    with urllib.request.urlopen(ask, timeout=10) as answer:
        text = answer.read().decode()
    nexus = json.loads(text)["info"]["nexus"]
    assert [link["principal"] for link in nexus["messengers"]] == ["panel"]
    assert nexus["refused"]["rights"] == 1
    for token in file.tokens.values():
        assert token[4:] not in text
    panel.close()


def test_a_token_that_comes_as_a_subprotocol_is_never_sent_back(hub: Role, file: AccessFile) -> None:
    shown = f"ces.token.{file.tokens['panel']}"
    for offered in (["ces.2", shown], [shown, "ces.2"]):
        with connect(
            f"ws://127.0.0.1:{hub.port}/connect/messenger",
            subprotocols=offered,  # type: ignore[arg-type]
            compression=None,
            legacy=True,
        ) as socket:
            assert socket.subprotocol == "ces.2"
            assert socket.response is not None
            assert file.tokens["panel"] not in str(socket.response.headers)


def test_services_that_dial_show_the_token_of_a_file(tmp_path: Path, file: AccessFile) -> None:
    file.add("itb", ["repeater"], ["ITB-*"], ["ITB-*"]).add("other", ["hub"], ["*"], ["*"])
    token = tmp_path / "token"
    with running(Role(tmp_path, "ces-hub", free_port(), f"--access={file.path}")) as known:
        token.write_text(file.tokens["itb"])
        address = f"ws://127.0.0.1:{known.port}"
        options = (f"--hub={address}", f"--token-file={token}")
        with running(Role(tmp_path, "ces-repeater", free_port(), *options)) as repeater:
            until(lambda: '"up"' in repeater.get("/status")[1], "the repeater is linked")
            assert file.tokens["itb"][20:] not in repeater.logged() + repeater.get("/status")[1]
        token.write_text(file.tokens["other"])
        options = (f"--interconnect={address}", f"--token-file={token}")
        with running(Role(tmp_path, "ces-hub", free_port(), *options)) as other:
            until(lambda: '"up"' in other.get("/interconnect")[1], "the hub is linked")
            assert file.tokens["other"][20:] not in other.logged() + other.get("/interconnect")[1]
        with running(Role(tmp_path, "ces-hub", free_port(), f"--token-file={token}")) as third:
            answer = third.request("POST", f"/interconnect/127.0.0.1:{known.port}")
            assert answer[0] == 502 and "403" in answer[1], "only hubs of the configuration see the token"


def test_an_outside_service_inserts_within_its_rights(tmp_path: Path, file: AccessFile) -> None:
    with running(Role(tmp_path, "ces-repeater", free_port(), f"--access={file.path}")) as repeater:
        assert refused(repeater, "/connect/ITB-1/x", file.tokens["panel"]) == 403
        dial(repeater, "/connect/ITB-1/x").close()
        assert repeater.request("POST", "/send", event(1, "ITB-1"))[0] == 200
        assert repeater.request("POST", "/send", event(1, "BNSN-1"))[0] == 403
        assert repeater.request("DELETE", "/undelivered")[0] == 403


@pytest.mark.parametrize("role", ["ces-hub", "ces-repeater"])
def test_a_bad_access_file_ends_the_start_with_a_sentence(tmp_path: Path, role: str) -> None:
    """CVE-2018-12550, CVE-2018-12551, CVE-2017-7652: without rights that can be read, nobody gets in."""
    bad = tmp_path / "bad.toml"
    for text, sentence in (("", "nobody could get in"), ("[principals.a]\nkind = []", "bad.toml, line 2:")):
        bad.write_text(text)
        done = Role(tmp_path, role, free_port(), f"--access={bad}").run("-n")
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
    assert "No such file" in Role(tmp_path, role, free_port(), "--access=none.toml").run("-n").stderr


def test_a_port_for_other_machines_is_refused_until_somebody_says_who_gets_in(tmp_path: Path) -> None:
    """CWE-1188, CWE-306: an operator who forgets everything is safe."""
    wide = Role(tmp_path, "ces-hub", free_port(), "--listen=tcp:0")
    done = wide.run("-n")
    assert done.returncode == 1
    assert "say who gets in with --access FILE, let in anyone with --allow-anonymous" in done.stderr
    with running(Role(tmp_path, "ces-hub", free_port(), "--listen=tcp:0", "--allow-anonymous")) as hub:
        assert "--allow-anonymous: anyone who reaches this process" in hub.logged()


def test_what_is_revoked_ends_within_a_second_and_everybody_else_keeps_the_link(
    tmp_path: Path, hub: Role, file: AccessFile
) -> None:
    """CVE-2018-12546, CVE-2021-34434: what a right had opened ends with the right."""
    assert hub.process is not None
    pidfile = tmp_path / "hub.pid"
    pidfile.write_text(str(hub.process.pid))
    panels = [dial(hub, "/connect/messenger", file.tokens["panel"]) for _ in range(20)]
    readers = [dial(hub, "/connect/messenger", file.tokens["reader"]) for _ in range(20)]
    for socket in panels + readers:
        socket.send('{"rooms": ["ITB-1"], "create": true}')
    good, tokens = file.path.read_text(), file.tokens
    file.path.write_text("[principals.panel]\nkinds = 3\n")
    assert main(["reload", str(pidfile)]) == 0
    until(lambda: "the rights stay as they were: " in hub.logged(), "the log says that the file is bad")
    assert "access.toml, line 2: principals.panel.kinds: " in hub.logged()
    panel = "[principals.panel]\nkinds = "
    file.path.write_text(good.replace(f"{panel}['messenger']", f"{panel}['status']"))
    began = time.monotonic()
    assert main(["reload", str(pidfile)]) == 0
    for socket in panels:
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                socket.recv(5)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 4403
    assert time.monotonic() - began < 1
    assert refused(hub, "/connect/messenger", tokens["panel"]) == 403
    assert hub.request("POST", "/event", event(1, "ITB-1"))[0] == 403
    for socket in readers:
        pong = socket.ping()
        assert pong.wait(5)
    until(lambda: hub.logged().count("the access file was read again") == 1, "the log says so")
    for socket in readers:
        socket.close()
