"""Two ends of a session over a link that is cut again and again: a deterministic simulation.

Pure: no sockets, no clock. Each end is a `Session` with its outbox and the few lines that a link does with
them (`ces.link.protocol`). Between them run two ordered channels; a cut loses what is in them, and both ends
link again, unless the serving end has forgotten the session. Every record is numbered, so that a run can
say::

    within a session   what arrived is what was put, once and in order, less what a gap announced
    after forgetting   nothing is missing without a word; only what was unacknowledged may come twice

``python -m tests.stress.simulation RUNS SEED`` runs many and stops at the first that is wrong.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable

from ces.model.wire import Run
from ces.session.outbox import Outbox
from ces.session.session import Session

LIMIT = 5000
MESSAGE = 4
"""A batch goes out in messages of so many records."""
STEPS = 120
Message = tuple[str, object]


class Wrong(AssertionError):
    """What a simulation found wrong."""


class End:
    """One end: what the application put, what arrived, what was announced as lost.

    :param make: the session, which may be a faulty one.
    """

    def __init__(self, name: str, make: Callable[[Outbox], Session], outbox: Callable[[int], Outbox]) -> None:
        self.name = name
        self.outbox = outbox(LIMIT)
        self.session = make(self.outbox)
        self.sessions = make
        self.put_numbers: list[int] = []
        self.arrived: list[int] = []
        self.announced = 0
        self.maybe_gap = 0
        self.crashed: list[int] = []
        self.onward: deque[int] = deque()

    def put(self, runs: list[list[int]]) -> None:
        for numbers in runs:
            room = b"R%d" % (numbers[0] % 3)
            self.outbox.pending.append(Run(room, [b'%b\n{"n":%d}\n' % (room, n) for n in numbers]))
            self.put_numbers += numbers
        self.outbox.settle()

    def flush(self, send: Callable[[Message], None]) -> None:
        """As a link writes."""
        while self.session.waits:
            gap, runs = self.session.take(1500)
            if gap:
                send(("gap", gap))
            if not runs:
                break
            records = [record for run in runs for record in run.records]
            for start in range(0, len(records), MESSAGE):
                send(("records", records[start : start + MESSAGE]))
        self.outbox.settle()

    def take(self, message: Message, send: Callable[[Message], None]) -> None:
        """As a link reads."""
        kind, value = message
        if kind == "gap":
            assert isinstance(value, int)
            self.announced += value
        elif kind == "ack":
            assert isinstance(value, int)
            self.session.acknowledge(value)
        else:
            assert isinstance(value, list)
            self.onward += [int(record.split(b":")[1].rstrip(b"}\n")) for record in value]
            self.responsible()
            if self.session.took(len(value), sum(map(len, value))):
                self.acknowledge(send)

    def responsible(self) -> None:
        """What was read sits in the onward queue."""
        self.arrived += self.onward
        self.onward.clear()

    def acknowledge(self, send: Callable[[Message], None]) -> None:
        if self.session.unreported:
            send(("ack", self.session.report()))


class Simulation:
    """One run.

    :param faulty: makes an end's session, outbox and behaviour; by default as they are.
    """

    def __init__(
        self,
        seed: int,
        session: Callable[[Outbox], Session] = Session,
        outbox: Callable[[int], Outbox] = Outbox,
        end: Callable[[str, Callable[[Outbox], Session], Callable[[int], Outbox]], End] = End,
        forgets: bool = True,
    ) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.forgets = forgets and self.random.random() < 0.5
        self.ends = [end("dialling", session, outbox), end("serving", session, outbox)]
        self.wires: list[deque[Message]] = [deque(), deque()]  # towards each end
        self.linked = False
        self.number = 0
        self.ids = 0
        self.duplicates_allowed: list[set[int]] = [set(), set()]  # towards each end
        self.unsure: list[set[int]] = [set(), set()]  # what went down with a forgotten session

    def run(self) -> None:
        """:raises Wrong: when a promise was broken."""
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
        elif self.linked:
            self.cut()
        else:
            self.link()
        for end in self.ends:
            if end.outbox.bytes + end.session.kept > LIMIT + 300:
                raise Wrong(f"seed {self.seed}: {end.name} holds {end.outbox.bytes + end.session.kept} bytes")

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
        """What is under way is lost, from some place on."""
        for side in (0, 1):
            self.deliver(side, self.random.randrange(0, 3))
        self.linked = False
        for wire in self.wires:
            wire.clear()

    def link(self) -> None:
        """Dial: resume, or begin anew when the serving end has forgotten."""
        dialling, serving = (end.session for end in self.ends)
        self.linked = True
        known = serving.id and serving.id == dialling.id
        if known and self.forgets and self.random.random() < 0.3:
            self.forget()
            known = False
        if known:
            serving.resume(dialling.received)
            dialling.resume(serving.received)
            return
        self.ids += 1
        self.duplicates_allowed[1] |= unacknowledged(dialling)
        self.ends[1].session.restart(f"s{self.ids}")
        dialling.restart(f"s{self.ids}")
        if self.ids > 1:
            self.ends[0].maybe_gap += 1

    def forget(self) -> None:
        """The serving end's window has passed: what it kept for the other is gone, and said to be."""
        end = self.ends[1]
        left = end.session.take_all()
        numbers = {int(r.split(b":")[1].rstrip(b"}\n")) for run in left for r in run.records}
        self.unsure[0] |= numbers
        end.outbox.gap = 0

    def finish(self) -> None:
        """Let everything arrive."""
        for _ in range(400):
            if not self.linked:
                self.link()
            for side in (0, 1):
                self.flush(side)
                self.deliver(side, 1000)
                self.ends[side].acknowledge(self.send(side))
            if not any(self.wires) and not any(
                e.session.waits or e.session.unacknowledged for e in self.ends
            ):
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
            if receiver.crashed:
                raise Wrong(f"seed {self.seed}: acknowledged and lost: {receiver.crashed[:3]}")
            missing = [n for n in put if n not in seen and n not in self.unsure[side]]
            if len(missing) != sender.outbox.dropped:
                raise Wrong(
                    f"seed {self.seed}: {len(missing)} are missing at the {receiver.name} end,"
                    f" {sender.outbox.dropped} were counted"
                )
            if not self.unsure[side] and not receiver.maybe_gap and receiver.announced < len(missing):
                raise Wrong(f"seed {self.seed}: {len(missing)} missing, {receiver.announced} announced")
            if seen - set(put):
                raise Wrong(f"seed {self.seed}: something arrived that was never put")


def unacknowledged(session: Session) -> set[int]:
    """The numbers that an end would send again in a new session."""
    batches = [batch[3] for _, batch in session._kept] + [batch[3] for batch in session.again]
    return {
        int(record.split(b":")[1].rstrip(b"}\n"))
        for runs in batches
        for run in runs
        for record in run.records
    }


def main(arguments: list[str]) -> int:
    """Run many."""
    runs, seed = int(arguments[0]), int(arguments[1])
    for number in range(seed, seed + runs):
        Simulation(number).run()
    print(f"{runs} runs from seed {seed}: nothing lost, nothing twice, in order")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
