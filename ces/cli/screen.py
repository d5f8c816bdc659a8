"""The terminal of a command: results on one stream, what there is to know on the other.

Owns writing, colour and width; does not know what is written. When the reader of the results goes away
(`ces watch | head`), it says so once and writes no more.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import TextIO

from twisted.logger import LogEvent, LogLevel, formatEvent

from ces.cli.line import BOLD, DIM, RESET, event_line, printable
from ces.model.event import Event

__all__ = ["Screen"]


class Screen:
    """Writes lines.

    reader_left: called when the results can no longer be written. least: the level from which `log` shows
    what it is told.
    """

    def __init__(
        self,
        out: TextIO,
        notes: TextIO,
        *,
        environ: Mapping[str, str],
        zone: tzinfo | None = None,
        reader_left: Callable[[], None] = lambda: None,
        least: LogLevel = LogLevel.warn,
    ) -> None:
        self._out = out
        self._notes = notes
        self._zone = zone
        self._colour = out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self.reader_left = reader_left
        self._least = least
        self._has_reader = True

    def line(self, text: str = "") -> None:
        """A result."""
        if not self._has_reader:
            return
        try:
            self._out.write(text + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._has_reader = False
            # What is still buffered must not fail once more when the interpreter flushes it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self.reader_left()

    def title(self, text: str) -> None:
        """A result that stands out."""
        self.line(f"{BOLD}{text}{RESET}" if self._colour else text)

    def aside(self, text: str) -> None:
        """A result that stands back."""
        self.line(f"{DIM}{text}{RESET}" if self._colour else text)

    def event(self, event: Event, room: str) -> None:
        """A result: an event."""
        width = shutil.get_terminal_size((160, 24)).columns if self._out.isatty() else sys.maxsize
        self.line(event_line(event, room, zone=self._zone, width=width, colour=self._colour))

    def note(self, text: str) -> None:
        """What there is to know beside the results: one sentence."""
        self._notes.write(f"ces: {printable(text)}\n")
        self._notes.flush()

    def log(self, event: LogEvent) -> None:
        """A log observer (twisted.logger), one line each."""
        if event["log_level"] >= self._least:
            text = formatEvent(event)
            failure = event.get("log_failure")
            if failure is not None:
                text = f"{text}: {failure.getErrorMessage()}"
            self.note(text)
