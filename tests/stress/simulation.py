"""A deterministic simulation of the two ends of a session whose connection is cut repeatedly.

Pure: no sockets, no clock. Each end is a `SendQueue`, the receiving half of a `Session`, and the few
operations that a link does on them (`ces.link.link`). Two ordered channels connect the ends. A cut loses what
is in the channels. The ends then resume the session, or begin a new one if the serving end has forgotten it.
Every record is numbered, so that a run can check::

    within a session   every record arrives once and in order, except those announced by a gap
    after forgetting   no loss is silent; only unacknowledged records may arrive twice

``python -m tests.stress.simulation RUNS SEED`` runs many simulations and stops at the first fault.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable

from ces.model.wire import Run
from ces.session.queue import Batch, SendQueue
from ces.session.session import Session

LIMIT = 5000
MESSAGE = 4
"""Number of records in a message."""
STEPS = 120
Message = tuple[str, object]


class Wrong(AssertionError):
    """The simulation has found a fault."""


class End:
    """One end: what the application has put, what has arrived, and what was announced as lost.

    :param queue: makes the send queue, which may be a faulty one.
    """

    def __init__(self, name: str, queue: Callable[[int], SendQueue]) -> None:
        self.name = name
        self.queue = queue(LIMIT)
        self.session = Session()
        self.put_numbers: list[int] = []
        self.arrived: list[int] = []
        self.announced = 0
        self.maybe_gap = 0
        self.onward: deque[int] = deque()

    def put(self, runs: list[list[int]]) -> None:
        for numbers in runs:
            room = b"R%d" % (numbers[0] % 3)
            self.queue.pending.append(Run(room, [b'%b\n{"n":%d}\n' % (room, n) for n in numbers]))
            self.put_numbers += numbers
        self.queue.settle()

    def begin(self, id: str) -> None:
        """A new session."""
        self.queue.restart(True)
        self.session = Session(id)

    def resume(self, received: int) -> None:
        """The session goes on; the other end has received so many records in it."""
        self.queue.resume(received)
        self.session.report()  # the hello said it

    def flush(self, send: Callable[[Message], None]) -> None:
        """Write as a link does."""
        while self.queue.waits:
            gap, runs = self.queue.take(1500)
            if gap:
                send(("gap", gap))
            if not runs:
                break
            records = [record for run in runs for record in run.records]
            for start in range(0, len(records), MESSAGE):
                send(("records", records[start : start + MESSAGE]))
        self.queue.settle()

    def take(self, message: Message, send: Callable[[Message], None]) -> None:
        """Read as a link does."""
        kind, value = message
        if kind == "gap":
            assert isinstance(value, int)
            self.announced += value
        elif kind == "ack":
            assert isinstance(value, int)
            self.queue.acknowledge(value)
        else:
            assert isinstance(value, list)
            self.onward += [int(record.split(b":")[1].rstrip(b"}\n")) for record in value]
            self.responsible()
            if self.session.took(len(value), sum(map(len, value))):
                self.acknowledge(send)

    def responsible(self) -> None:
        """Take responsibility for what was read: it is in the onward queue."""
        self.arrived += self.onward
        self.onward.clear()

    def acknowledge(self, send: Callable[[Message], None]) -> None:
        if self.session.unreported:
            send(("ack", self.session.report()))


class Simulation:
    """One run.

    :param queue, end: make the parts of each end. Tests pass faulty ones.
    :param forgets: whether the serving end may forget the session.
    """

    def __init__(
        self,
        seed: int,
        queue: Callable[[int], SendQueue] = SendQueue,
        end: Callable[[str, Callable[[int], SendQueue]], End] = End,
        forgets: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.forgets = forgets and self.random.random() < 0.5
        self.ends = [end("dialling", queue), end("serving", queue)]
        self.wires: list[deque[Message]] = [deque(), deque()]  # towards each end
        self.linked = False
        self.number = 0
        self.ids = 0
        self.duplicates_allowed: list[set[int]] = [set(), set()]  # towards each end
        self.unsure: list[set[int]] = [set(), set()]  # lost with a forgotten session

    def run(self) -> None:
        """Run the simulation.

        :raises Wrong: when it finds a fault.
        """
        try:
            self.link()
            for _ in range(STEPS):
                self.step()
            self.finish()
        except Wrong:
            raise
        except (AssertionError, ValueError, IndexError) as error:
            raise Wrong(f"seed {self.seed}: {type(error).__name__}: {error}") from error
        self.check()

    def step(self) -> None:
        side = self.random.randrange(2)
        what = self.random.random()
        if what < 0.35:
            self.put(side)
        elif what < 0.6:
            self.flush(side)
        elif what < 0.85:
            self.deliver(side, self.random.randrange(1, 4))
        elif what < 0.9:
            self.ends[side].acknowledge(self.send(side))
        elif what < 0.92:
            self.ends[side].queue.evict(LIMIT)  # too much waits for all links together
        elif self.linked:
            self.cut()
        else:
            self.link()
        for end in self.ends:
            held = end.queue.settled_bytes + end.queue.in_flight_bytes
            if held > LIMIT + 300:
                raise Wrong(f"seed {self.seed}: {end.name} holds {held} bytes")

    def put(self, side: int) -> None:
        runs = []
        for _ in range(self.random.randrange(1, 4)):
            count = self.random.randrange(1, 6)
            runs.append(list(range(self.number, self.number + count)))
            self.number += count
        self.ends[side].put(runs)

    def send(self, side: int) -> Callable[[Message], None]:
        return self.wires[1 - side].append if self.linked else lambda message: None

    def flush(self, side: int) -> None:
        if self.linked:
            self.ends[side].flush(self.send(side))

    def deliver(self, side: int, count: int) -> None:
        for _ in range(min(count, len(self.wires[side]))):
            self.ends[side].take(self.wires[side].popleft(), self.send(side))

    def cut(self) -> None:
        """Cut the connection. Messages in the channels are lost from a random place on."""
        for side in (0, 1):
            self.deliver(side, self.random.randrange(0, 3))
        self.linked = False
        for wire in self.wires:
            wire.clear()

    def link(self) -> None:
        """Dial. Resumes the session, or begins a new one if the serving end has forgotten it."""
        dialling, serving = self.ends
        self.linked = True
        known = serving.session.id and serving.session.id == dialling.session.id
        if known and self.forgets and self.random.random() < 0.3:
            self.forget()
            known = False
        if known:
            serving.resume(dialling.session.received)
            dialling.resume(serving.session.received)
            return
        self.ids += 1
        for end in self.ends:
            end.begin(f"s{self.ids}")
        self.duplicates_allowed[1] |= numbers(dialling.queue.retransmit)
        if self.ids > 1:
            dialling.maybe_gap += 1

    def forget(self) -> None:
        """The session window of the serving end has passed. It drops the session's records and its gap."""
        end = self.ends[1]
        self.unsure[0] |= numbers([(0, 0, 0, end.queue.take_all())])
        end.queue.gap = 0

    def finish(self) -> None:
        """Deliver everything."""
        for _ in range(400):
            if not self.linked:
                self.link()
            for side in (0, 1):
                self.flush(side)
                self.deliver(side, 1000)
                self.ends[side].acknowledge(self.send(side))
            if not any(self.wires) and not any(e.queue.waits or e.queue.unacknowledged for e in self.ends):
                return
        raise Wrong(f"seed {self.seed}: it never comes to rest")

    def check(self) -> None:
        """Compare what was put with what arrived."""
        for side in (0, 1):
            sender, receiver = self.ends[1 - side], self.ends[side]
            arrived, put = receiver.arrived, sender.put_numbers
            again = self.duplicates_allowed[side]
            seen: set[int] = set()
            last = -1
            for number in arrived:
                if number in seen and number not in again:
                    raise Wrong(f"seed {self.seed}: {number} arrived twice at the {receiver.name} end")
                if number not in seen and number < last:
                    raise Wrong(f"seed {self.seed}: {number} arrived after {last}")
                seen.add(number)
                last = max(last, number)
            missing = [n for n in put if n not in seen and n not in self.unsure[side]]
            if len(missing) != sender.queue.dropped:
                raise Wrong(
                    f"seed {self.seed}: {len(missing)} are missing at the {receiver.name} end,"
                    f" {sender.queue.dropped} were counted"
                )
            if not self.unsure[side] and not receiver.maybe_gap and receiver.announced < len(missing):
                raise Wrong(f"seed {self.seed}: {len(missing)} missing, {receiver.announced} announced")
            if seen - set(put):
                raise Wrong(f"seed {self.seed}: something arrived that was never put")


def numbers(batches: list[Batch]) -> set[int]:
    """The numbers of the records in these batches."""
    return {
        int(record.split(b":")[1].rstrip(b"}\n"))
        for _, _, _, runs in batches
        for run in runs
        for record in run.records
    }


def main(arguments: list[str]) -> int:
    """Run many simulations."""
    runs, seed = int(arguments[0]), int(arguments[1])
    for number in range(seed, seed + runs):
        Simulation(number).run()
    print(f"{runs} runs from seed {seed}: nothing lost, nothing twice, in order")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
