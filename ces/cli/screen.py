"""The terminal of a command: results go to one stream, notes to another.

Owns writing, colour and width. When the reader of the results closes its end (`ces watch | head`), the screen
reports it once and writes no more results.
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

    :param out: the stream for results.
    :param notes: the stream for notes.
    :param zone: the time zone of events; None means that of the machine.
    :param reader_left: called when results can no longer be written.
    :param least: the lowest level of log events that `log` shows.
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
        """Write a result."""
        if not self._has_reader:
            return
        try:
            self._out.write(text + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._has_reader = False
            # The interpreter flushes the buffer at exit, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self.reader_left()

    def title(self, text: str) -> None:
        """Write a result in bold."""
        self.line(f"{BOLD}{text}{RESET}" if self._colour else text)

    def aside(self, text: str) -> None:
        """Write a result in a dim colour."""
        self.line(f"{DIM}{text}{RESET}" if self._colour else text)

    def event(self, event: Event, room: str) -> None:
        """Write an event as a result."""
        width = shutil.get_terminal_size((160, 24)).columns if self._out.isatty() else sys.maxsize
        self.line(event_line(event, room, zone=self._zone, width=width, colour=self._colour))

    def note(self, text: str) -> None:
        """Write a note: one sentence that is not a result."""
        self._notes.write(f"ces: {printable(text)}\n")
        self._notes.flush()

    def log(self, event: LogEvent) -> None:
        """A log observer for twisted.logger. Writes each event as one note."""
        if event["log_level"] >= self._least:
            text = formatEvent(event)
            failure = event.get("log_failure")
            if failure is not None:
                text = f"{text}: {failure.getErrorMessage()}"
            self.note(text)
