"""A system clock for other processes, which the test sets (`tests/support/wallclock/sitecustomize.py`)."""

from __future__ import annotations

import os
import struct
from pathlib import Path


class Wall:
    """The system clock of every process that is started with `env`.

    :param folder: where to keep the file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.offset = 0.0
        """Seconds by which it differs from the real one."""
        self.step(0.0)

    @property
    def env(self) -> dict[str, str]:
        """What to add to the environment of a process."""
        here = str(Path(__file__).with_name("wallclock"))
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        return {"PYTHONPATH": path, "CES_TEST_CLOCK": str(self._file)}

    def step(self, seconds: float) -> None:
        """Set the clock on, or back, by so many seconds."""
        self.offset += seconds
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", self.offset))
