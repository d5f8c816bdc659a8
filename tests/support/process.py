"""What a process of a role has: memory, descriptors, and lines in its log that should not be there."""

from __future__ import annotations

import os
import re

from tests.support.fleet import Role

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[")
"""What every line begins with: a traceback's do not, nor does what a peer has broken into lines."""

UNEXPECTED = re.compile(r"Traceback|Unhandled|unexpected error|failed$|#critical|#error")


def memory(role: Role) -> int:
    """Bytes that a process has in memory."""
    with open(f"/proc/{_pid(role)}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(role: Role) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{_pid(role)}/fd"))


def unexpected(log: str) -> list[str]:
    """Lines that should not be in a log."""
    return [line for line in log.splitlines() if not LINE.match(line) or UNEXPECTED.search(line)]


def _pid(role: Role) -> int:
    assert role.process is not None, f"{role.name} does not run"
    return role.process.pid
