"""`ces demo`: runs the whole system on one machine.

Two interconnected hubs and a repeater run as child processes. This process simulates a building of 20 rooms,
half of them on each hub, and runs a messenger on hub 2 that watches every room. It counts which of the sent
events arrive.

Owns the order in which the parts start and end, and the texts that describe them.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.web.client import Agent, readBody

import ces
from ces.cli.building import Building
from ces.cli.ledger import Ledger
from ces.cli.process import Role, child_environment
from ces.cli.running import Reactor, Stopping
from ces.cli.screen import Screen
from ces.cli.simulation import Simulation
from ces.messenger import Messenger
from ces.model.event import Event, EventError

__all__ = ["Demo", "demo"]

_HUB_1, _HUB_2, _REPEATER = "hub 1", "hub 2", "repeater"
_PORTS: Final = {_HUB_1: 7100, _HUB_2: 7200, _REPEATER: 7101}
_ROOMS: Final = 20
_START: Final = 30.0  # timeout for the start of all parts, in seconds
_POLL: Final = 0.1
_SUMMARY: Final = 10.0  # seconds between two summary lines
_LAST: Final = 2.0  # grace period for the last events, in seconds
_PROBE: Final = Event(key="demo-probe", generating_system="ces-demo").to_json()


class DemoFailed(ces.Error):
    """The demonstration cannot continue. The text is a sentence for the user."""


async def demo(
    reactor: Reactor,
    stopping: Stopping,
    *,
    screen: Screen,
    seconds: float | None,
    command: str,
    environ: Mapping[str, str] = os.environ,
) -> int:
    """Run the demonstration.

    :param seconds: how long it runs; None means until asked to stop.
    :param command: how the user calls `ces`, for the examples that are shown.
    :return: the exit status: 1 when a part did not start, or ended by itself.
    """
    folder = Path(tempfile.mkdtemp(prefix="ces-demo-"))
    running = Demo(reactor, stopping, screen, folder, command)
    screen.reader_left = stopping.request
    failure = None
    try:
        await running.start(environ)
        await running.show(seconds)
    except DemoFailed as error:
        failure = str(error)
    finally:
        await running.end()
    failure = failure or running.failure
    if failure:
        screen.note(f"{failure} (the logs are in {folder})")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


class Demo:
    """One demonstration. Call `start` and `show`, and in any case `end`."""

    def __init__(
        self, reactor: Reactor, stopping: Stopping, screen: Screen, folder: Path, command: str
    ) -> None:
        self._reactor = reactor
        self._stopping = stopping
        self._screen = screen
        self._folder = folder
        self._command = command
        self._ledger = Ledger()
        self._entered: Counter[str] = Counter()
        self._ports: dict[str, int] = {}
        self._roles: list[Role] = []
        self._watcher: Messenger | None = None
        self._simulation: Simulation | None = None
        self._all_linked = False
        self.failure: str | None = None
        """Why the demonstration stopped by itself."""

    async def start(self, environ: Mapping[str, str]) -> None:
        """Start the processes and wait until an event gets from one hub to the other.

        :raises DemoFailed: when that takes longer than 30 s.
        """
        self._choose_ports()
        self._screen.line("Starting two hubs and a repeater...")
        environment = child_environment(environ)
        for name, arguments in self._arguments().items():
            role = Role(name, arguments, self._folder, self._died)
            self._roles.append(role)
            role.start(self._reactor, environment)
        deadline = self._reactor.seconds() + _START
        for role in self._roles:
            await self._healthy(role, deadline)
        await self._linked(deadline)

    async def show(self, seconds: float | None) -> None:
        """Start the building and show the events that arrive.

        :param seconds: how long; None means until asked to stop.
        """
        if self._stopping.requested:
            return
        self._describe()
        building = Building(rooms=_ROOMS, rng=random.Random())
        hubs = {room: (_HUB_1, _HUB_2)[number % 2] for number, room in enumerate(building.rooms)}
        messengers = {room: Messenger(self._url(hub), reactor=self._reactor) for room, hub in hubs.items()}

        def sent(event: bytes, room: str) -> None:
            self._entered[hubs[room]] += 1
            self._ledger.sent(event, self._reactor.seconds())

        self._simulation = Simulation(building, messengers, self._reactor, sent)
        self._simulation.start()
        end = None if seconds is None else self._reactor.callLater(seconds, self._stopping.request)
        while not await self._stopping.within(_SUMMARY):
            self._summarize()
        if end is not None and end.active():
            end.cancel()

    async def end(self) -> None:
        """Wait for the last events, show the result, and stop everything that was started."""
        if self._simulation is not None:
            await self._simulation.pause(_LAST)
            for _ in range(int(_LAST / _POLL)):
                if not self._ledger.outstanding or self.failure:
                    break
                await deferLater(self._reactor, _POLL)
            self._conclude()
            await self._simulation.close()
        if self._watcher is not None:
            await self._watcher.close()
        ends: list[Deferred[None]] = [role.stop() for role in self._roles]
        await DeferredList(ends)

    # Starting

    def _choose_ports(self) -> None:
        for name, port in _PORTS.items():
            self._ports[name] = chosen = free_port(port)
            if chosen != port:
                self._screen.line(f"Port {port} is taken: {name} listens on {chosen} instead.")

    def _arguments(self) -> dict[str, list[str]]:
        def listen(name: str) -> str:
            return f"--listen=tcp:{self._ports[name]}:interface=127.0.0.1"

        return {
            _HUB_1: ["ces-hub", listen(_HUB_1)],
            _HUB_2: ["ces-hub", listen(_HUB_2), f"--interconnect={self._url(_HUB_1)}"],
            _REPEATER: ["ces-repeater", listen(_REPEATER), f"--hub={self._url(_HUB_1)}"],
        }

    def _url(self, name: str) -> str:
        return f"ws://127.0.0.1:{self._ports[name]}"

    def _died(self, role: Role) -> None:
        if self._stopping.requested:
            return  # Ctrl-C also ends a child that has not left our process group yet
        words = role.last_words()
        said = f"; its log ends with: {words}" if words else ", and its log is empty"
        self.failure = f"{role.name} ended by itself ({role.status}){said}"
        self._stopping.request()

    async def _healthy(self, role: Role, deadline: float) -> None:
        agent = Agent(self._reactor, connectTimeout=1)
        url = f"http://127.0.0.1:{self._ports[role.name]}/health".encode()
        while not self._stopping.requested:
            try:
                response = await agent.request(b"GET", url).addTimeout(2, self._reactor)
                await readBody(response)
            except Exception:
                # Any error means that the role is not up yet. The deadline ends the attempts.
                healthy = False
            else:
                healthy = response.code == 200
            if healthy:
                return
            if self._reactor.seconds() > deadline:
                raise DemoFailed(f"{role.name} did not answer within {_START:g} s")
            await self._stopping.within(_POLL)

    async def _linked(self, deadline: float) -> None:
        """Wait until an event sent to hub 1 arrives at hub 2. Earlier events would count as missing."""
        self._watcher = Messenger(self._url(_HUB_2), rooms=["*"], reactor=self._reactor)
        self._watcher.on_record(self._arrived)
        self._watcher.connect()
        prober = Messenger(self._url(_HUB_1), reactor=self._reactor)
        prober.connect()
        try:
            while not self._all_linked and not self._stopping.requested:
                if self._reactor.seconds() > deadline:
                    raise DemoFailed(f"no event got from hub 1 to hub 2 within {_START:g} s")
                prober.send(_PROBE, room="")
                await self._stopping.within(_POLL)
        finally:
            await prober.close()

    # Showing

    def _arrived(self, event: bytes, room: bytes) -> None:
        if event == _PROBE:
            self._all_linked = True
            return
        self._ledger.seen(event)
        try:
            self._screen.event(Event.from_json(event), room.decode("utf-8", "replace"))
        except EventError as error:
            self._screen.note(f"an event that is not a v2 event arrived: {error}")

    def _describe(self) -> None:
        hub_1, hub_2, repeater = (f"localhost:{self._ports[name]}" for name in _PORTS)
        at = "" if self._ports[_HUB_1] == _PORTS[_HUB_1] else f" --hub {hub_1}"
        event = '{"key": "power", "value": "on", "affected-room": {"roomID": "ITB-1101"}}'
        title, line = self._screen.title, self._screen.line
        line()
        title("The Central Event System runs on this machine:")
        line(f"  hub 1      {hub_1}")
        line(f"  hub 2      {hub_2}, interconnected with hub 1")
        line(f"  repeater   {repeater}, brings events from outside to hub 1")
        line(f"  building   ITB with {_ROOMS} rooms; half of them send to hub 1, half to hub 2")
        line("  below      what a messenger on hub 2 sees that watches every room")
        line()
        title("Try in another terminal:")
        line(f"  {self._command} watch{at} ITB-1101")
        line(f"  {self._command} send{at} ITB-1101-D1 power on")
        line(f"  curl http://{hub_1}/status")
        line(f"  curl http://{hub_1}/interconnect")
        line(f"  curl -X POST -d '{event}' http://{repeater}/send")
        line()
        title("Ctrl-C stops everything.")
        line()

    def _summarize(self) -> None:
        ledger, missing = self._ledger, self._ledger.missing(self._reactor.seconds())
        counts = f"{ledger.sent_count} events sent, {ledger.seen_count} seen, {missing} missing"
        self._screen.title(f"--- {counts}{self._beside()}")

    def _conclude(self) -> None:
        ledger, entered = self._ledger, self._entered
        self._screen.line()
        self._screen.title(
            f"{ledger.sent_count} events sent ({entered[_HUB_1]} to hub 1, {entered[_HUB_2]} to hub 2), "
            f"{ledger.seen_count} seen on hub 2, {ledger.outstanding} missing{self._beside()}."
        )

    def _beside(self) -> str:
        twice, foreign = self._ledger.twice_count, self._ledger.foreign_count
        return (f", {twice} seen twice" if twice else "") + (f", {foreign} from elsewhere" if foreign else "")


def free_port(preferred: int) -> int:
    """The preferred TCP port on 127.0.0.1 if it is free, otherwise any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # Twisted's listeners set it too. A port that was just closed then counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen()
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoFailed("this machine has no free TCP port")
