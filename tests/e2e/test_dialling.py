r"""A name is dialled at all its addresses, whatever their kind: the first that answers is taken.

In the processes that dial, a `sitecustomize` module resolves the names: so no file of the machine is touched.
All else is real. The hub that is dialled listens at ``::1`` and ``127.0.0.3``, and at no other address (an
endpoint string escapes colons: ``tcp6:PORT:interface=\:\:1``).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import PATIENCE, Role, free_port, until
from tests.support.raw import RawLink

ROOM = "ITB-1108"

NAMES = {
    "only-ipv6.test": ["::1"],
    "ipv4-refuses.test": ["127.0.0.1", "::1"],
    "first-refuses.test": ["127.0.0.2", "127.0.0.3"],
}

EVERY_NAME = pytest.mark.parametrize("name", NAMES)

RESOLVER = """
import socket

NAMES = {names}
system = socket.getaddrinfo


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    name = host.decode() if isinstance(host, bytes) else host
    found = []
    for address in NAMES.get(name, [host]):
        try:
            found += system(address, port, family, type, proto, flags)
        except socket.gaierror:  # an address of another family
            if name not in NAMES:
                raise
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return found


def gethostbyname(host):
    return getaddrinfo(host, None, socket.AF_INET)[0][4][0]


socket.getaddrinfo, socket.gethostbyname = getaddrinfo, gethostbyname
"""


def has_ipv6() -> bool:
    """Whether the machine has ``::1``."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 on this machine")


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that knows `NAMES`."""
    folder = tmp_path_factory.mktemp("resolver")
    (folder / "sitecustomize.py").write_text(RESOLVER.format(names=NAMES))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.fixture(scope="module")
def dialled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Role, int]]:
    """The hub that is dialled, and the port at which it is."""
    port = free_port()
    listens = (f"--listen=tcp6:{port}:interface=\\:\\:1", f"--listen=tcp:{port}:interface=127.0.0.3")
    hub = Role(tmp_path_factory.mktemp("dialled"), "ces-hub", free_port(), *listens, "--hold-time=0").start()
    yield hub, port
    hub.stop()


@pytest.fixture(scope="module")
def dialling(tmp_path_factory: pytest.TempPathFactory, resolver: dict[str, str]) -> Iterator[Role]:
    """A hub that is told what to dial."""
    folder = tmp_path_factory.mktemp("dialling")
    hub = Role(folder, "ces-hub", free_port(), "--hold-time=0", env=resolver).start()
    yield hub
    hub.stop()


@EVERY_NAME
def test_a_hub_dials_every_address_of_a_name(dialled: tuple[Role, int], dialling: Role, name: str) -> None:
    _, port = dialled
    assert dialling.request("POST", f"/interconnect/{name}:{port}") == (200, "ok")
    dialling.request("DELETE", f"/interconnect/{name}:{port}")


@EVERY_NAME
def test_a_repeater_dials_every_address_of_a_name(
    dialled: tuple[Role, int], resolver: dict[str, str], name: str, tmp_path: Path
) -> None:
    _, port = dialled
    options = ("--hub", f"ws://{name}:{port}")
    repeater = Role(tmp_path, "ces-repeater", free_port(), *options, env=resolver).start()
    state = lambda: repeater.info()["repeater"]["hub"]  # noqa: E731
    try:
        until(lambda: state()["state"] == "up", "it is linked", 5)
    except AssertionError:
        pytest.fail(str(state()))
    finally:
        repeater.stop()


@EVERY_NAME
def test_a_messenger_dials_every_address_of_a_name(
    dialled: tuple[Role, int], resolver: dict[str, str], name: str
) -> None:
    hub, port = dialled
    subscriber = RawLink.dial(hub.port, "/connect/messenger", "subscriber")
    subscriber.tell({"rooms": [ROOM], "create": True})
    until(lambda: ROOM in hub.info()["nexus"]["messenger-mapping"], "the subscription has arrived")
    ces = str(Path(sys.executable).with_name("ces"))
    told = subprocess.run(
        [ces, "send", "--hub", f"{name}:{port}", "--timeout", "3", ROOM, "volume", "7"],
        env=os.environ | resolver,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert told.returncode == 0, told.stderr
    subscriber.read(lambda: subscriber.numbers)
    assert subscriber.numbers == [7]
    subscriber.end_in_good_order()
