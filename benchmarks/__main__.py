"""``python -m benchmarks``: measures, prints the table with the goals, and writes JSON, Markdown and a chart.

A round measures all rows, and each row measures every peer once, in an order that is turned round each time:
so no peer gains when the machine grows slower or faster. The result is the median of the rounds. With
``--before``, two hubs are measured next to each other, and the result is the median of the rounds' ratios.
The exit status is 1 when a goal was not met or a measurement failed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import ces
from benchmarks import growth, report, roles, throughput
from benchmarks.goals import HUB, Samples, judge, paired
from benchmarks.peers import BEFORE, HERE, LOAD_CORE, PEERS, SERVER_CORE, TICK, Missing, core, found
from benchmarks.throughput import SIZES, Numbers, Pace

RESULTS = HERE / "results"
OLD = "ces.2-before"
"""The hub of ``--before``."""

DISTURBED = 0.05
"""Share of one core used by other processes above which the report counts a measurement as disturbed."""

SHOWN = ("rate", "per_cpu", "server_cpu", "load_busy", "lost", "p50_ms", "p99_ms", "others")

EVERYONE = ("ces.2", "ces.1", "plain", "nats", "nats-ws", "mosquitto")

SOLO: dict[str, Callable[[Pace], Numbers]] = {
    "idle": lambda pace: growth.idle_memory(False, pace),
    "idle-tls": lambda pace: growth.idle_memory(True, pace),
    "growth": growth.growth,
    "subscribing": growth.subscribing,
    "leaving": growth.leaving,
    "messenger-receives": roles.messenger_receives,
    "messenger-sends": roles.messenger_sends,
    "repeater": roles.repeater,
    "messenger-imports": roles.messenger_imports,
}

ROWS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys([*throughput.LOADS, "latency"], EVERYONE),
    **dict.fromkeys(["fan-out", "1-to-1"], (*EVERYONE, "relay")),
    "hub-to-hub": ("ces.2", "ces.1", "plain"),
    **{f"size-{n}": ("ces.2", "ces.1", "nats", "relay") for n in SIZES},
    **dict.fromkeys(SOLO, (HUB,)),
}
"""The peers that each row measures."""

COMPARED = (*throughput.LOADS, "latency")
"""The rows in which ``--before`` adds a peer."""


def in_order(row: str, number: int, before: bool) -> tuple[str, ...]:
    """The peers of a row in the order of this round: turned round each time.

    :param before: whether the hub of ``--before`` is measured too, next to ours.
    """
    peers = ROWS[row]
    if before and row in COMPARED:
        peers = (HUB, OLD, *[peer for peer in peers if peer != HUB])
    return peers[::-1] if number % 2 else peers


def compare(samples: Samples, row: str) -> list[str]:
    """What to say of this hub and the one before: the median of the ratios of the rounds, and their range."""
    found = []
    for metric, name in (("per_cpu", "deliveries per CPU-second"), ("p50_ms", "p50"), ("p99_ms", "p99")):
        ratios = paired(samples, row, HUB, OLD, metric)
        if ratios and (row == "latency") == (metric != "per_cpu"):
            span = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds"
            found.append(f"{row}: {median(ratios):.2f} times the {name} of before ({span}).")
    return found


def measure(row: str, peer: str, pace: Pace) -> Numbers:
    """Take one sample. Adds ``others``, the share of a core that other processes used meanwhile."""
    before = _foreign()
    began = datetime.datetime.now()
    numbers = SOLO[row](pace) if row in SOLO else throughput.ROWS[row](peer, pace)
    lasted = (datetime.datetime.now() - began).total_seconds()
    return numbers | {"others": max(0.0, _foreign() - before) / lasted}


def _foreign() -> float:
    """CPU seconds that the machine has spent on processes other than this one and its ended children."""
    user, nice, system, _, _, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return (user + nice + system + irq + softirq) / TICK - sum(u.ru_utime + u.ru_stime for u in ours)


def about(rounds: int, pace: Pace, arguments: list[str]) -> dict[str, str]:
    """The machine, the versions, the date, and the command that repeats the run."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().split("\n")
            if "model name" in line
        ),
        "unknown",
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    virtual = ", virtual machine" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    packages = ("twisted", "autobahn", "klein", "msgspec", "websockets")
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu}, {os.cpu_count()} cores{virtual}, {memory:.0f} GiB of memory, "
        f"Linux {os.uname().release}",
        "software": f"Central Event System {ces.__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages),
        "beside it": ", ".join([_said("nats-server", "--version"), _said("mosquitto", "-h")]),
        "network": f"loopback, TCP congestion control {_congestion_control()}",
        "how": f"server on core {core(SERVER_CORE)}, load on core {core(LOAD_CORE)}; rounds: {rounds}, "
        f"peers in turn; {pace.seconds:g} s each after {pace.warm_up:g} s of warm-up; medians",
        "repeat it": "`" + " ".join(["python -m benchmarks", *arguments]) + "`",
    }


def _congestion_control() -> str:
    """The kernel's TCP congestion control. One with its own timers (bbr) costs each server differently."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def _said(program: str, option: str) -> str:
    try:
        done = subprocess.run([found(program), option], capture_output=True, text=True, check=False)
    except Missing:
        return f"{program}: not installed"
    return (done.stdout or done.stderr).split("\n")[0]


class Rounds:
    """The results of all rounds.

    samples: the numbers of each round, by row and peer.
    notes: remarks for the report.
    failed: number of measurements that failed although the server is installed.
    disturbed: number of measurements during which other processes used the machine.
    """

    def __init__(self, rows: list[str]) -> None:
        self.samples: dict[str, dict[str, list[Numbers]]] = {row: {} for row in rows}
        self.notes: dict[str, None] = {}
        self.failed = self.disturbed = 0

    def once(self, row: str, peer: str, pace: Pace) -> None:
        """Measure one peer in one row."""
        try:
            numbers = measure(row, peer, pace)
        except Missing as missing:
            self.notes[f"{missing}."] = None
            return
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            self.failed += 1
            self.notes[f"{row}, {peer}: failed: {error}"] = None
            print(f"{row:20} {peer:10} failed: {error}", flush=True)
            return
        self.samples[row].setdefault(peer, []).append(numbers)
        self.disturbed += numbers["others"] > DISTURBED
        told = [metric for metric in SHOWN if metric in numbers] if "rate" in numbers else list(numbers)
        shown = [f"{metric} {report.short(numbers[metric], metric)}" for metric in told]
        print(f"{row:20} {peer:10}", *shown, flush=True)

    def said(self) -> list[str]:
        """The notes for the report, with one about disturbed measurements."""
        share = f"{DISTURBED:.0%} of a core"
        company = f"Other processes used more than {share} during {self.disturbed} of the measurements."
        return [*self.notes, company] if self.disturbed else list(self.notes)


def main(arguments: list[str]) -> int:
    """Run the benchmarks. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default 3)")
    parser.add_argument("--only", default="", help=f"rows to measure, separated by commas: {', '.join(ROWS)}")
    parser.add_argument(
        "--quick", action="store_true", help="only check that everything runs; the numbers mean nothing"
    )
    parser.add_argument(
        "--before",
        default="",
        metavar="PATH",
        help="another checkout of this project; its hub is measured too, with ces.2",
    )
    parser.add_argument(
        "--hubs", action="store_true", help="measure this hub and the one of --before, no other peer"
    )
    given = parser.parse_args(arguments)
    if given.before:
        os.environ[BEFORE] = str(Path(given.before).resolve(strict=True))
    rows = [row for row in given.only.split(",") if row] or list(ROWS)
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; the rows are {', '.join(ROWS)}")
    if given.rounds < 1:
        parser.error("at least one round is needed")
    pace = Pace(0.5, 0.3, 0.03) if given.quick else Pace()
    times = 1 if given.quick else given.rounds
    os.sched_setaffinity(0, {core(LOAD_CORE)})
    titles = {peer.name: peer.title for peer in PEERS.values()}
    rounds = Rounds(rows)
    for number in range(times):
        for row in rows:
            peers = in_order(row, number, bool(given.before))
            for peer in [peer for peer in peers if not given.hubs or peer in (HUB, OLD)]:
                rounds.once(row, peer, pace)
    notes = [note for row in COMPARED for note in compare(rounds.samples, row)]
    notes += ["A quick run: the numbers mean nothing."] * given.quick + rounds.said()
    results = {"about": about(times, pace, arguments), "notes": notes, "samples": rounds.samples}
    text = report.markdown(results, titles)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "latest.md").write_text(text)
    (RESULTS / "latest.svg").write_text(report.chart(rounds.samples, titles))
    print(f"\n{text}\nWritten: {RESULTS}/latest.json, latest.md, latest.svg")
    met = all(verdict.met for verdict in judge(rounds.samples) if verdict.goal.row in rows)
    return 0 if (met or given.quick) and not rounds.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
