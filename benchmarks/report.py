"""Formats the results as Markdown and as an SVG chart. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.goals import Goal, Samples, Verdict, judge, lost, median

THROUGHPUT = {
    "fan-out": "1 publisher to 100 subscribers",
    "campus": "campus: 200 to 1000, 200 rooms",
    "20-to-20": "20 to 20, 20 rooms",
    "1-to-1": "1 to 1",
}

NAMES = {
    **THROUGHPUT,
    "latency": "latency, 1,000 events/s to 100",
    "hub-to-hub": "through two hubs, 1 to 1",
    "idle": "memory of an idle messenger",
    "idle-tls": "memory of an idle messenger, TLS",
    "growth": "speed kept beside 10,000 idle links and 100,000 rooms",
    "subscribing": "1,000 links subscribe to 1,000 rooms each",
    "leaving": "longest stall while a link with 100,000 rooms leaves",
    "messenger-receives": "messenger, typed events received per CPU-second",
    "messenger-sends": "messenger, typed events sent per CPU-second",
    "repeater": "repeater, records inserted per CPU-second",
    "messenger-imports": "import of ces.messenger",
}

CHART = "Deliveries per server CPU-second, millions (400-byte events)"

LEGEND = 200
"""Width of one entry of the chart's legend. A line has three."""

COLOURS = {
    "ces.2": "#0b6e4f",
    "ces.2-before": "#9a6fb0",
    "ces.1": "#6bbf8a",
    "plain": "#b0b0b0",
    "nats": "#2b5fa8",
    "nats-ws": "#8fb3e0",
    "mosquitto": "#d9822b",
}


def short(value: float | None, metric: str = "") -> str:
    """Format a number with a unit for its metric."""
    if value is None:
        return "-"
    if metric == "bytes_each":
        return f"{value / 1000:.1f} kB"
    if metric.endswith("_ms"):
        return f"{value:.2f} ms"
    if metric == "seconds":
        return f"{value:.2f} s"
    if metric == "bytes_per_s":
        return f"{value / 1e6:,.0f} MB/s"
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    if value >= 1e4:
        return f"{value / 1e3:.0f} k"
    return f"{value:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table. The first column is aligned left, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def name(row: str) -> str:
    """The title of a row."""
    return NAMES.get(row) or f"1 to 1, events of {int(row.removeprefix('size-')):,} bytes"


def rates(samples: Samples, rows: Sequence[str], titles: Mapping[str, str]) -> str:
    """A table of deliveries per server CPU-second.

    In brackets: deliveries per second, and the share of its core that the server used.
    """
    peers = [peer for peer in titles if any(peer in samples.get(row, {}) for row in rows)]
    lines = []
    for row in rows:
        cells = [name(row)]
        for peer in peers:
            per_cpu, rate, share = (median(samples, row, peer, m) for m in ("per_cpu", "rate", "server_cpu"))
            cell = "-" if rate is None else f"**{short(per_cpu)}** ({short(rate)}/s, {share:.0%})"
            gone = lost(samples, row, peer)
            cells.append(f"{cell} LOST {gone:,.0f}" if gone else cell)
        lines.append(cells)
    return table(["deliveries per server CPU-second", *(titles[peer] for peer in peers)], lines)


def plain(samples: Samples, row: str, metrics: Sequence[str], titles: Mapping[str, str]) -> str:
    """A table of some numbers of one row, with a column for each peer."""
    peers = [peer for peer in titles if peer in samples[row]]
    lines = [[m, *(short(median(samples, row, peer, m), m) for peer in peers)] for m in metrics]
    return table([name(row), *(titles[peer] for peer in peers)], lines)


def sizes(samples: Samples, titles: Mapping[str, str]) -> str:
    """A table of bytes of events per second for each event size."""
    rows = [row for row in samples if row.startswith("size-")]
    peers = [peer for peer in titles if any(peer in samples[row] for row in rows)]
    lines = [
        [name(row), *(short(median(samples, row, peer, "bytes_per_s"), "bytes_per_s") for peer in peers)]
        for row in rows
    ]
    return table(["bytes of events per second", *(titles[peer] for peer in peers)], lines)


def goals(verdicts: Sequence[Verdict], titles: Mapping[str, str]) -> str:
    """A table of the goals and what was reached."""
    return table(
        ["goal", "wanted", "reached", ""],
        [[*_goal(verdict.goal, verdict.value, titles), _word(verdict)] for verdict in verdicts],
    )


def _word(verdict: Verdict) -> str:
    if verdict.value is None:
        return "not measured"
    return f"lost {verdict.lost:,.0f}" if verdict.lost else "met" if verdict.met else "NOT MET"


def _goal(goal: Goal, value: float | None, titles: Mapping[str, str]) -> list[str]:
    sign = "≥" if goal.at_least else "≤"
    if not goal.against:
        return [name(goal.row), f"{sign} {short(goal.limit, goal.metric)}", short(value, goal.metric)]
    metric = f", {goal.metric.removesuffix('_ms')}" if goal.metric.endswith("_ms") else ""
    what = f"{name(goal.row)}{metric}: {titles[goal.peer]} / {titles[goal.against]}"
    return [what, f"{sign} {goal.limit:g} x", "-" if value is None else f"{value:.2f} x"]


def markdown(results: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """The whole report, with the machine, the versions, the date, and the command that repeats the run."""
    samples: Samples = results["samples"]
    about = results["about"]
    verdicts = [v for v in judge(samples) if v.goal.row in samples]
    parts = [
        "# Measured",
        "\n".join(f"- {key}: {value}" for key, value in about.items()),
        *(f"**{note}**" for note in results["notes"]),
        goals(verdicts, titles),
    ]
    rows = [row for row in (*THROUGHPUT, "hub-to-hub") if row in samples]
    if rows:
        parts += [
            rates(samples, rows, titles),
            "In brackets: deliveries per second, and the share of its core that the server used.",
        ]
    if "latency" in samples:
        parts.append(plain(samples, "latency", ("p50_ms", "p99_ms", "max_ms"), titles))
    if any(row.startswith("size-") for row in samples):
        parts.append(sizes(samples, titles))
    return "\n\n".join(parts) + "\n"


def chart(samples: Samples, titles: Mapping[str, str]) -> str:
    """An SVG chart of deliveries per server CPU-second: a group of bars for each load."""
    rows = [row for row in THROUGHPUT if row in samples]
    peers = [peer for peer in titles if peer != "relay" and any(peer in samples[row] for row in rows)]
    bar, gap, left, top, height = 30, 44, 60, 100, 300
    group = bar * len(peers) + gap
    width = max(left + group * len(rows) + 20, left + 3 * LEGEND)
    values = {(row, peer): median(samples, row, peer, "per_cpu") or 0.0 for row in rows for peer in peers}
    most = max(values.values(), default=0.0) or 1.0
    step = next(s for s in (0.1e6, 0.2e6, 0.5e6, 1e6, 2e6, 5e6, 1e7, 1e9) if most / s <= 8)
    scale = height / most
    base = top + height
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{base + 50}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{base + 50}" fill="#fff"/>',
        f'<text x="{left}" y="22" font-size="15">{CHART}</text>',
    ]
    for number in range(int(most / step) + 1):
        y = base - number * step * scale
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{number * step / 1e6:g}</text>')
    for number, peer in enumerate(peers):
        x, under = left + number % 3 * LEGEND, 36 + number // 3 * 20
        out.append(f'<rect x="{x}" y="{under}" width="12" height="12" fill="{COLOURS[peer]}"/>')
        out.append(f'<text x="{x + 17}" y="{under + 10}">{escape(titles[peer])}</text>')
    for place, row in enumerate(rows):
        start = left + gap // 2 + place * group
        for number, peer in enumerate(peers):
            value = values[row, peer]
            x, tall = start + number * bar, value * scale
            out.append(
                f'<rect x="{x:.0f}" y="{base - tall:.1f}" width="{bar - 4}" height="{tall:.1f}" '
                f'fill="{COLOURS[peer]}"/>'
            )
            label = f"{value / 1e6:.2f}" if value else "-"
            out.append(
                f'<text x="{x + bar / 2 - 2:.0f}" y="{base - tall - 5:.1f}" font-size="10" '
                f'text-anchor="middle">{label}</text>'
            )
        middle = start + bar * len(peers) / 2
        out.append(
            f'<text x="{middle:.0f}" y="{base + 20}" text-anchor="middle">{escape(THROUGHPUT[row])}</text>'
        )
    return "\n".join([*out, "</svg>", ""])
