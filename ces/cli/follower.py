"""`python -m ces.cli.follower ARGUMENTS`: twistd that ends when its parent does.

Its standard input is a pipe from the parent that nobody writes to: when it ends, the parent is gone,
however that came about, and the process terminates itself as SIGTERM would. It leaves the parent's process
group, so that Ctrl-C reaches the parent alone, which then ends its children in order.
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
    """Run twistd with this process's arguments, following the parent."""
    os.setpgid(0, 0)
    threading.Thread(target=follow, daemon=True).start()
    from twisted.scripts.twistd import run

    cast("Callable[[], None]", run)()


if __name__ == "__main__":
    main()
