"""Inspects the process of a role: its memory, its descriptors, and unexpected lines in its log."""

from __future__ import annotations

import os
import re

from tests.support.fleet import Role

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[")
"""The beginning of every log line. A traceback does not match, and neither do lines that a peer injects."""

UNEXPECTED = re.compile(r"Traceback|Unhandled|unexpected error|failed$|#critical|#error")


def memory(role: Role) -> int:
    """The resident memory of a process, in bytes."""
    with open(f"/proc/{_pid(role)}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(role: Role) -> int:
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{_pid(role)}/fd"))


def unexpected(log: str) -> list[str]:
    """The lines of a log that should not be there."""
    return [line for line in log.splitlines() if not LINE.match(line) or UNEXPECTED.search(line)]


def _pid(role: Role) -> int:
    assert role.process is not None, f"{role.name} does not run"
    return role.process.pid
