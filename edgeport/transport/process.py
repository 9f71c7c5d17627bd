"""Programs of this machine: those that measure here, and those that carry a command to a device."""

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from edgeport.errors import DeviceError

TAIL_LINES = 20
CHUNK_BYTES = 1 << 16
RUN_SECONDS = 60.0  # for a short command
GOODBYE_SECONDS = 3.0  # for what is asked to end by itself


class Done(msgspec.Struct, frozen=True):
    """How a short command ended. exit_code: minus the signal's number where a signal ended it."""

    exit_code: int
    out: str
    err: str


class Probe(msgspec.Struct, frozen=True):
    """One thing that must hold on a device before anything is sent there. text: what was found, or what to do."""

    name: str
    holds: bool
    text: str


def run(
    argv: Sequence[str], timeout: float = RUN_SECONDS, source: Path | None = None, into: IO[bytes] | None = None
) -> Done:
    """To its end, its input the file `source` or empty, its output kept or written to `into`. Raises DeviceError where
    it takes longer or cannot be run.
    """
    try:
        with open(source or os.devnull, "rb") as stdin:
            done = subprocess.run(
                argv,
                stdin=stdin,
                stdout=into or subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout,
                check=False,
                process_group=0,
            )
    except subprocess.TimeoutExpired as e:
        raise DeviceError(f"{argv[0]} did not end within {timeout:g} s") from e
    except OSError as e:
        raise DeviceError(f"cannot run {argv[0]}: {e.strerror}") from e
    return Done(done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace"))


class Process:
    """A command that runs on the device, its standard output read line by line while it runs.

    is_overdue: it was killed here, because no line came within the time that it had.
    """

    is_overdue = False

    def __init__(self, argv: Sequence[str], listens: bool = False, own_group: bool = False) -> None:
        """listens: it is written to; otherwise its standard input is empty. own_group: Ctrl-C does not reach it."""
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                process_group=0 if own_group else None,
            )
        except OSError as e:
            raise DeviceError(f"cannot run {argv[0]}: {e.strerror}") from e
        self._unread = b""
        self._tail: list[str] = []
        self._reader = threading.Thread(target=self._keep_tail, daemon=True)
        self._reader.start()

    def lines(self, timeout: float) -> Iterator[str]:
        """Lines of standard output. Kills the command after `timeout` seconds, and if the reader stops early."""
        deadline = time.monotonic() + timeout
        try:
            while (line := self.line(deadline - time.monotonic())) is not None:
                yield line
        finally:
            self.kill()

    def line(self, timeout: float) -> str | None:
        """The next line of standard output, None at its end. Kills the command if that takes over `timeout` seconds."""
        assert self._process.stdout is not None
        out, deadline = self._process.stdout.fileno(), time.monotonic() + timeout
        while b"\n" not in self._unread:
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.is_overdue = True
                self.kill()  # its output then ends
            chunk = os.read(out, CHUNK_BYTES)
            if not chunk:
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def write_line(self, line: str) -> None:
        """To its standard input. Says nothing where the command has ended: its output then ends too."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what could not be written is flushed again here
            self._process.stdin.close()

    def kill(self) -> None:
        """Ends the command, if it has not ended by itself, and waits for it."""
        self._process.kill()
        self._process.wait()
        self._reader.join(timeout=1)

    def ended_within(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def exit_code(self) -> int:
        """Of the ended command; minus the signal's number where a signal ended it."""
        return self._process.returncode

    @property
    def lost(self) -> bool:
        """Whether the way to the device broke, so that how the command ended, or whether it has, is not known."""
        return False

    def last_errors(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._tail)

    def _keep_tail(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._keep_line(line.rstrip())

    def _keep_line(self, line: str) -> None:
        self._tail = [*self._tail, line][-TAIL_LINES:]


class Remote(Process):
    """A program that carries a command to a device, out of reach of Ctrl-C. The command ends when its input does, which
    is how it is ended: to end the program here would leave it running there.
    """

    def __init__(self, argv: Sequence[str], listens: bool = False) -> None:
        super().__init__(argv, listens, own_group=True)

    def kill(self) -> None:
        if self._process.stdin:
            self.close_input()
            self.ended_within(GOODBYE_SECONDS)
        super().kill()
