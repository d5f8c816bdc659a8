"""A deterministic simulation of whole topologies: real hubs, repeaters and messengers under faults.

Everything is real but the network, the clock and the processes (`tests.support.world`). A seed makes a
`Scenario`: who is there, and a list of steps in rounds. Events are sent while connections are cut, stalled,
delayed, refused and replaced, and while processes sleep, die and come back. After each round the faults end,
and all must be linked and come to rest. In the end the history of every event is judged
(`tests.support.history`): what is lost, twice, out of order or nowhere, although the promise does not allow
it.

A scenario is data. When one fails, steps are left out as long as it still fails: that is its shortest form.

``python -m tests.stress.topologies SEEDS SEED`` runs so many seeds, from `SEED` on, and stops at the first
that fails. ``--processes N`` runs them in so many processes, by default one for each processor. ``--all``
goes on after a failure, and ``--without cut,sleep`` leaves out kinds of faults.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost

from ces.config.link import LinkSettings
from ces.hub.settings import HubSettings
from ces.link.link import Link
from ces.repeater.settings import RepeaterSettings
from tests.stress.actors import (
    LEFT,
    HubRole,
    MessengerRole,
    OutsideRole,
    Publisher,
    RepeaterRole,
    Role,
    SinkRole,
)
from tests.stress.scenario import FAULTS, PLENTY, ROOMS, Draft, Scenario, Step, hub_of, shortest
from tests.support.history import ALL, NONE, ROOM, Finding, History
from tests.support.world import Answer, Cable, Endless, Gate, Process, Server, World, world

TWIN = "twin"
"""The end of the name of a hub that has the node id of another one."""

REST = 500.0
"""Seconds after the last fault within which all must be linked and at rest."""

LOOK = 5.0
"""Seconds between two looks at whether all is at rest."""

GRACE = 2.0
"""Seconds that pass between rest and the next round."""

CALLS = 40
"""A process at rest has at most this many delayed calls."""

KEPT = 50
"""Garbage is collected after so many runs."""

ERROR, RESTLESS = "error", "restless"
"""What is found beside the kinds of `tests.support.history`. ERROR: an exception that nobody expected.
RESTLESS: not all is linked and at rest in time.
"""


class Simulation:
    """One run of a scenario. `run` returns what was found.

    over: nothing is started any more. struck: how many faults have found a connection that was open.
    """

    def __init__(self, scenario: Scenario, world: World) -> None:
        self.scenario = scenario
        self.world = world
        self.history = History()
        self.found: list[Finding] = []
        self.link_settings, self.hub_settings, self.repeater_settings = _settings(
            scenario.buffer, scenario.total, scenario.idle, scenario.hubs
        )
        world.window = self.link_settings.session_window
        world.parted = lambda one, other: self.history.part(self._known(one), self._known(other), world.now)
        self.roles: dict[str, Role] = {}
        for name in scenario.hubs:
            addresses = [address for hub, address in scenario.links if hub == name]
            self.roles[name] = HubRole(self, name, name in scenario.fixed, addresses)
        for hub in dict.fromkeys(hub for _, hub in scenario.repeaters):
            self.roles[f"s{hub}"] = SinkRole(self, f"s{hub}")
        for name, hub in scenario.repeaters:
            self.roles[name] = RepeaterRole(self, name, hub)
        for name, hub, rooms in scenario.messengers:
            self.roles[name] = MessengerRole(self, name, hub, rooms)
        for name, repeater in scenario.outsides:
            self.roles[name] = OutsideRole(self, name, repeater)
        self.twins: list[HubRole] = []
        self.over = False
        self.struck = 0
        self._trouble: set[object] = set()
        """The processes and pairs that a fault of this round has struck."""
        self._born: list[Publisher | SinkRole] = []
        self._names: list[tuple[Role, str]] = []
        self._away: dict[str, Server | None] = {}
        """What listens at addresses at which a proxy answers now."""

    def hub(self, name: str) -> HubRole:
        role = self.roles[name]
        assert isinstance(role, HubRole)
        return role

    def _known(self, name: str) -> str:
        role = self.roles.get(name)
        return role.known if role is not None else name

    def of_node(self, node: str) -> str:
        """The name in the history of a process, given its node id."""
        role = self.roles.get(node.partition(".")[0])
        return role.known if role is not None and role.node == node else node

    # -- who is there ----------------------------------------------------------------------------------------

    def serve(self, address: str, server: Server | None) -> None:
        """Listen at an address, or no more; a proxy that answers there now goes on."""
        if address in self._away:
            self._away[address] = server
        elif server is None:
            self.world.servers.pop(address, None)
        else:
            self.world.servers[address] = server

    def born(self, role: Role) -> None:
        """A process has started that sends or receives: tell the history how it is reached."""
        self._names.append((role, role.known))
        for other, name in list(self._names):
            self._connect(other, name, role, role.known)
            if name != role.known:
                self._connect(role, role.known, other, name)
        if isinstance(role, MessengerRole):
            hub = role.hub
            self.history.client(role.node, hub, self.world.now)
            if self.scenario.total == PLENTY:
                self.history.limit(hub, role.node, self.scenario.buffer)
                self.history.limit(role.node, hub, self.scenario.buffer)

    def _connect(self, sender: Role, source: str, receiver: Role, destination: str) -> None:
        """Say how events of one process get to another."""
        if source == destination:
            return
        route = self.history.route
        if isinstance(receiver, MessengerRole):
            first: list[str] = []
            hub = ""
            if isinstance(sender, MessengerRole):
                hub = sender.hub
            elif isinstance(sender, OutsideRole):
                first, hub = [sender.repeater], dict(self.scenario.repeaters)[sender.repeater]
            if hub == receiver.hub:
                route(source, destination, *first, hub, order=ROOM if first else ALL)
            elif hub and frozenset((hub, receiver.hub)) in self.scenario.linked:
                route(source, destination, *first, hub, receiver.hub, order=ROOM)
        elif isinstance(receiver, SinkRole) and isinstance(sender, MessengerRole):
            repeaters = [name for name, hub in self.scenario.repeaters if f"s{hub}" == receiver.name]
            if f"s{sender.hub}" == receiver.name:
                order = ROOM if len(repeaters) == 1 else NONE
                route(source, destination, sender.hub, repeaters, order=order)

    # -- what happens ----------------------------------------------------------------------------------------

    def run(self) -> list[Finding]:
        """Run it; what was found."""
        try:
            for role in self.roles.values():
                role.start()
            if self._rest():
                for number, steps in enumerate(self.scenario.rounds):
                    if not self._round(number, steps):
                        break
                else:
                    self._last()
        except Endless as error:
            self.found.append(Finding(ERROR, "", str(error)))
        for failure in self.world.failures[:3]:
            self.found.append(Finding(ERROR, "", failure))
        return self.found + self.history.findings()

    def replaced(self, role: HubRole, link: Link) -> None:
        """A hub has a new connection to another one. If that is a twin of the one that it was linked to, and
        that one was in trouble, the twin has taken its place: it cannot be told from one "that is started
        again".
        """
        peer = getattr(link.connection, "transport", None)
        name = peer.cable.other(peer).process.name if peer is not None else ""
        if name.endswith(TWIN):
            original = name.removesuffix(TWIN)
            pair = frozenset((original, role.name))
            if pair in self._trouble or original in self._trouble or role.name in self._trouble:
                self.history.part(original, role.name, self.world.now)

    def _round(self, number: int, steps: tuple[Step, ...]) -> bool:
        world, start = self.world, self.world.now
        self._trouble.clear()
        for at, what, *args in steps:
            world.at(start + at, None, getattr(self, f"_do_{what}"), *args)
        world.run(start + (steps[-1][0] if steps else 0.0) + 0.1)
        return self._rest()

    def _last(self) -> None:
        """Every publisher sends a last event to every room; then all stop in good order."""
        for role in list(self.roles.values()):
            if isinstance(role, Publisher):
                for room in ROOMS:
                    self.world.at(self.world.now, role.process, role.send, room, 1, 0)
        if not self._rest():
            return
        self.over = True
        for role in reversed(self.roles.values()):
            role.stop()
        self.world.run(self.world.now + 30)
        for role in self.roles.values():
            if role.running:
                self.found.append(Finding(RESTLESS, role.name, f"{role.node} does not stop"))

    def _rest(self) -> bool:
        """End the faults, and let time pass until all is linked and at rest; whether that is so."""
        world = self.world
        for address in list(self._away):
            self._there(address)
        end = world.now + REST
        world.run(world.now + 1)
        while reason := self._restless():
            if world.now >= end:
                self.found.append(Finding(RESTLESS, reason[0], f"{reason[0]} is not at rest: {reason[1]}"))
                return False
            world.run(world.now + LOOK)
        world.run(world.now + GRACE)
        for role in self.roles.values():
            role.tally()
            if role.process.calls > CALLS:
                calls = [call.function for call in self.world.calls(role.process)]
                self.found.append(Finding(LEFT, role.name, f"{role.node} has at rest the calls {calls}"))
        self.history.quiet(world.now)
        return True

    def _restless(self) -> tuple[str, str] | None:
        for role in self.roles.values():
            if not role.running and not role.stopping:
                role.start()
            if not role.running or role.stopping:
                return role.name, "it does not run"
            if role.process.asleep:
                return role.name, "it sleeps"
        if self.world.now == 0:
            return "", "it begins"
        if any(twin.running for twin in self.twins):
            return "", "a hub has the node id of another one"
        for role in self.roles.values():
            reason = role.restless()
            if reason is not None:
                return role.name, reason
        for cable in self.world.open:
            if not cable.answered and not (cable.works and cable.empty):
                return "", "a connection is not at rest"
        return None

    def _cables(self, client: str, address: str) -> list[Cable]:
        cable = self.world.cables.get((client, address))
        if cable is None or cable not in self.world.open:
            return []
        self.struck += 1
        self._trouble.add(frozenset((client, hub_of(address))))
        return [cable]

    def _do_send(self, name: str, room: str, times: int, pad: int) -> None:
        role = self.roles[name]
        assert isinstance(role, Publisher)
        self._as(role, role.send, room, times, pad)

    def _as(self, role: Role, do: Callable[..., None], *args: object) -> None:
        """Do something in the process of a role, if it runs."""
        if role.running and not role.stopping:
            self.world.at(self.world.now, role.process, self._if_running, role, do, args)

    def _if_running(self, role: Role, do: Callable[..., None], args: tuple[object, ...]) -> None:
        if role.running and not role.stopping:
            do(*args)

    def _do_rooms(self, name: str, create: bool, rooms: tuple[str, ...]) -> None:
        role = self.roles[name]
        assert isinstance(role, MessengerRole)
        self._as(role, role.change, create, rooms)

    def _do_flap(self, name: str, rooms: int, times: int, pause: float) -> None:
        role = self.roles[name]
        assert isinstance(role, MessengerRole)
        names = tuple(f"F{n}" for n in range(rooms))
        for turn in range(times):
            for late, create in ((0.0, True), (pause / 2, False)):
                self.world.at(
                    self.world.now + turn * pause + late, None, self._as, role, role.change, create, names
                )

    def _do_many(self, name: str, rooms: int, size: int) -> None:
        role = self.roles[name]
        assert isinstance(role, MessengerRole)
        self._as(role, role.change, True, tuple(f"{n:-<{size}}" for n in range(rooms)))

    def _do_cut(self, client: str, address: str, how: str, up: float, down: float) -> None:
        for cable in self._cables(client, address):
            if how == "reset":
                cable.cut((up, down), (0.0, 0.0), ConnectionLost)
            elif how == "end":
                cable.cut((1.0, 1.0), (0.0, 0.0), ConnectionDone)
            elif how == "late":
                cable.cut((1.0, 1.0), (12.0 * up, 12.0 * down), ConnectionLost)
            else:
                cable.silence(how != "down", how != "up")

    def _do_stall(self, client: str, address: str, direction: str, seconds: float) -> None:
        for cable in self._cables(client, address):
            for pipe in (cable.up, cable.down):
                if direction in ("both", "up" if pipe is cable.up else "down"):
                    pipe.stall(seconds)

    def _do_delay(self, client: str, address: str, direction: str, delay: float, seconds: float) -> None:
        for cable in self._cables(client, address):
            for pipe in (cable.up, cable.down):
                if direction in ("both", "up" if pipe is cable.up else "down"):
                    pipe.delay = pipe.latency + delay
                    self.world.at(self.world.now + seconds, None, setattr, pipe, "delay", pipe.latency)

    def _do_answer(self, address: str, status: int, seconds: float) -> None:
        world = self.world
        if address in self._away:
            return
        spoke = {client for (client, there), cable in world.cables.items() if there == address}

        def answer(path: str, client: Process) -> Any:
            if status == -1:
                return Answer(0)  # closes once the handshake has come
            if status == -2:
                return None
            # "After an answer of the 400 class [...] the dialling side dials once more without it, unless
            # that server has spoken ces.2 before": then a link may speak ces.1, which promises less.
            starts = self.roles[client.name].starts if client.name in self.roles else 2
            fresh = client.name not in spoke or starts > 1
            return Answer(503 if fresh and (status < 300 or 400 <= status < 500) else status)

        before = world.servers.get(address)
        self._away[address] = before
        world.servers[address] = Gate(Process(world, f"proxy of {address}", 1), answer)
        world.at(world.now + seconds, None, self._there, address)

    def _there(self, address: str) -> None:
        """A proxy has its upstream again."""
        if address in self._away:
            self.serve_again(address, self._away.pop(address))

    def serve_again(self, address: str, server: Server | None) -> None:
        """Nothing answers in its stead any more."""
        self.world.servers.pop(address, None)
        self.serve(address, server)

    def _do_close(self, client: str, address: str, here: int, there: int) -> None:
        for cable in self._cables(client, address):
            for end, code in ((cable.dialling, here), (cable.serving, there)):
                if code and not end.gone and hasattr(end.protocol, "end"):
                    self.world.at(self.world.now, end.process, end.protocol.end, code, "test")

    def _do_sleep(self, name: str, seconds: float) -> None:
        self._trouble.add(name)
        if self.roles[name].running:
            self.roles[name].process.sleep(seconds)

    def _do_restart(self, name: str, how: str, seconds: float) -> None:
        self._trouble.add(name)
        role = self.roles[name]
        if how == "stop":
            role.stop()
            seconds += 10
        else:
            role.kill(how == "reset")
        self.world.at(self.world.now + seconds, None, role.start)

    def _do_wall(self, name: str, seconds: float) -> None:
        self.roles[name].process.set_clock(seconds)

    def _do_dial(self, name: str, address: str) -> None:
        role = self.hub(name)
        if address not in role.addresses:
            role.addresses.append(address)
        self._as(role, role.dial, address)

    def _do_twin(self, name: str, other: str, seconds: float) -> None:
        role = self.hub(name)
        if role.running:
            twin = HubRole(self, f"{name}{TWIN}", True, [other], role.node)
            self.twins.append(twin)
            twin.start()
            self.world.at(self.world.now + seconds, None, twin.kill, False)


_SETTINGS: dict[tuple[int, int, float, tuple[str, ...]], Any] = {}


def _settings(
    buffer: int, total: int, idle: float, hubs: tuple[str, ...]
) -> tuple[LinkSettings, HubSettings, dict[str, RepeaterSettings]]:
    """The settings of a scenario; to make them takes as long as much of a run."""
    key = buffer, total, idle, hubs
    if key not in _SETTINGS:
        links = {"link_buffer": buffer, "buffer_limit": total}
        own = {"spool_bytes": buffer, "target_buffer": buffer, "idle_ttl": idle}
        _SETTINGS[key] = (
            LinkSettings(**links),
            HubSettings(**links),
            {hub: RepeaterSettings(hub=f"ws://{hub}", **links, **own) for hub in hubs},
        )
    return _SETTINGS[key]  # type: ignore[no-any-return]


# -- many seeds ----------------------------------------------------------------------------------------------


def play(scenario: Scenario) -> list[Finding]:
    """Run a scenario; what was found."""
    with world(scenario.seed) as made:
        return Simulation(scenario, made).run()


def describe(scenario: Scenario, findings: list[Finding]) -> str:
    """A failing seed in its shortest form."""
    what = findings[0].what
    short = shortest(scenario, lambda fewer: any(finding.what == what for finding in play(fewer)))
    lines = [f"seed {scenario.seed}: {findings[0]}", str(short)]
    lines += [f"  found: {finding}" for finding in play(short)]
    return "\n".join(lines)


def run_seeds(
    seeds: Iterable[int], faults: Iterable[str] | None = None
) -> Iterator[tuple[Scenario, list[Finding]]]:
    """Run seeds; those that fail, with what was found."""
    with collected_rarely() as collect:
        for seed in seeds:
            scenario = Draft(seed, faults).scenario()
            findings = play(scenario)
            if findings:
                yield scenario, findings
            collect()


@contextmanager
def collected_rarely() -> Iterator[Callable[[], None]]:
    """Collect garbage after each `KEPT` runs only: it takes a third of a run otherwise."""
    runs = 0

    def collect() -> None:
        nonlocal runs
        runs += 1
        if runs % KEPT == 0:
            gc.collect()

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield collect
    finally:
        gc.collect()
        if enabled:
            gc.enable()


def _block(first: int, seeds: int, faults: tuple[str, ...] | None, every: bool) -> list[str]:
    """Run a block of seeds; the descriptions of those that fail."""
    failed = []
    for scenario, findings in run_seeds(range(first, first + seeds), faults):
        failed.append(describe(scenario, findings))
        if not every:
            break
    return failed


def main(arguments: list[str]) -> int:
    """Run many seeds. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.topologies")
    parser.add_argument("seeds", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--all", action="store_true", help="go on after a seed that fails")
    parser.add_argument("--without", default="", help="kinds of faults that do not happen, with commas")
    options = parser.parse_args(arguments)
    left_out = options.without.split(",")
    faults = tuple(name for name in FAULTS if name not in left_out)
    size = 200
    blocks = range(options.seed, options.seed + options.seeds, size)
    sizes = [min(size, options.seed + options.seeds - first) for first in blocks]
    failed = 0
    began = time.monotonic()
    with ProcessPoolExecutor(options.processes) as pool:
        again = [faults] * len(blocks), [options.all] * len(blocks)
        for reports in pool.map(_block, blocks, sizes, *again):
            for report in reports:
                print(report, flush=True)
            failed += len(reports)
            if failed and not options.all:
                pool.shutdown(cancel_futures=True)
                break
    rate = options.seeds / (time.monotonic() - began)
    if not failed:
        print(f"{options.seeds} topologies from seed {options.seed}: nothing lost, nothing twice, in order,")
        print(f"nothing nowhere; {rate:.0f} a second")
    else:
        print(f"{failed} of {options.seeds} topologies from seed {options.seed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
