"""Shows the steps of long work: live with elapsed times on a terminal, plain lines anywhere else."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgeport import cleaning

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Steps:
    """A Progress that writes to a terminal or a file."""

    def __init__(self, file: TextIO, verbose: bool = True) -> None:
        self.console = Console(file=file, highlight=False)
        self._verbose, self._lock = verbose, threading.Lock()
        self._running: dict[str, tuple[float, str]] = {}
        self._waiting: set[str] = set()
        self._warnings: set[str] = set()
        self._live: Live | None = None

    def __enter__(self) -> "Steps":
        if self._verbose:
            self._show()
        return self

    def _show(self) -> None:
        """On a terminal, the steps that run, from now on."""
        if self.console.is_terminal and self._live is None:
            self._live = Live(get_renderable=self._rows, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def started(self, step: str) -> None:
        with self._lock:
            self._running[step] = (time.monotonic(), "")

    def advanced(self, step: str, note: str) -> None:
        with self._lock:
            began, _ = self._running.get(step, (time.monotonic(), ""))
            self._running[step] = (began, note)

    def waited(self, step: str, note: str) -> None:
        with self._lock:
            self._waiting.add(step)
        self.advanced(step, note)
        self._show()

    def finished(self, step: str, note: str = "") -> None:
        self._end(step, "✓", note)

    def failed(self, step: str) -> None:
        self._end(step, "✗", "failed")

    def warned(self, text: str) -> None:
        """Each text once: several devices and files may have the same to tell."""
        with self._lock:
            if text not in self._warnings:
                self._warnings.add(text)
                self._print(f"warning: {text}", "yellow")

    def _end(self, step: str, mark: str, note: str) -> None:
        with self._lock:
            began, _ = self._running.pop(step, (time.monotonic(), ""))
            if self._verbose:
                line = f"{mark} {cleaning.line(step):<22} {time.monotonic() - began:5.1f} s  {note}"
                self._print(line, "red" if mark == "✗" else "")

    def _print(self, text: str, style: str = "") -> None:
        self.console.print(Text(cleaning.text(text), style=style), soft_wrap=True)

    def _rows(self) -> Table:
        table = Table.grid(padding=(0, 1))
        now = time.monotonic()
        with self._lock:
            shown = self._running if self._verbose else self._running.keys() & self._waiting
            rows = [(step, self._running[step]) for step in shown]
        for step, (began, note) in rows:
            spin = SPINNER[int(now * 8) % len(SPINNER)]
            table.add_row(
                *map(Text, (f"{spin} {cleaning.line(step):<22}", f"{now - began:5.1f} s", cleaning.line(note)))
            )
        return table


@contextlib.contextmanager
def steps(verbose: bool) -> Iterator[Steps]:
    """Steps on a copy of standard error, which stays the user's while libraries' output goes to a log."""
    with os.fdopen(os.dup(2), "w", encoding="utf-8", buffering=1) as file, Steps(file, verbose) as shown:
        yield shown


def width(stream: Any) -> int:
    """Columns to fit tables into: the terminal's, or plenty where there is none."""
    return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 140
