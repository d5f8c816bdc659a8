"""`python -m ces.cli.follower ARGUMENTS`: runs twistd and ends it when the parent process ends.

Standard input is a pipe from the parent, which never writes to it. The end of the pipe means that the parent
is gone; this process then sends itself SIGTERM. It leaves the parent's process group, so that Ctrl-C reaches
only the parent, which ends its children in order.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import cast


def follow(descriptor: int = 0) -> None:
    """Wait for the end of the pipe, then ask this process to terminate."""
    while os.read(descriptor, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run twistd with this process's arguments."""
    os.setpgid(0, 0)
    threading.Thread(target=follow, daemon=True).start()
    from twisted.scripts.twistd import run

    cast("Callable[[], None]", run)()


if __name__ == "__main__":
    main()
