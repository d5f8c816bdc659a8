"""`ces reload`: tells a hub or a repeater to read its files again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import ces

__all__ = ["CannotReload", "reload"]

_ROLES = (b"ces-hub", b"ces-repeater")


class CannotReload(ces.Error):
    """Nobody was told; one sentence says why."""


def reload(pidfile: str) -> int:
    """Send SIGHUP to the process whose pid file this is.

    :return: its process id.
    :raises CannotReload: when there is no such process. One that is neither hub nor repeater is left alone:
        it may have got the number of one that has died, and SIGHUP would end it.
    """
    try:
        pid = int(Path(pidfile).read_text(encoding="ascii"))
    except OSError as error:
        raise CannotReload(f"pid file {pidfile}: {error.strerror}") from None
    except ValueError:
        raise CannotReload(
            f"pid file {pidfile}: expected a process id, as twistd --pidfile writes it"
        ) from None
    if pid <= 1 or _is_another(pid):
        raise CannotReload(f"process {pid} is neither a hub nor a repeater: {pidfile} is out of date")
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise CannotReload(f"process {pid} cannot be told: {error.strerror}") from None
    return pid


def _is_another(pid: int) -> bool:
    """Whether a process is surely not one of ours, as far as this system shows it."""
    with suppress(OSError):
        return not any(role in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for role in _ROLES)
    return False
