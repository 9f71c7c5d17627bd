"""Programs of this machine: those that measure here, and those that carry a command to a device."""

import contextlib
import os
import select
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO

import msgspec

from edgeport.errors import DeviceError

TAIL_LINES = 20
CHUNK_BYTES = 1 << 16
MOST_LINE_BYTES = 64 << 20  # the times of millions of runs
MOST_RUN_BYTES = 16 << 20  # of a short command
TAIL_CHARACTERS = 4096
MOST_ERRORS = 64 << 20
RUN_SECONDS = 60.0  # for a short command
GOODBYE_SECONDS = 3.0  # for what is asked to end by itself


class EndlessError(DeviceError):
    """A command writes more than it may."""


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
    argv: Sequence[str],
    timeout: float = RUN_SECONDS,
    source: Path | None = None,
    into: IO[bytes] | None = None,
    most: int = MOST_RUN_BYTES,
) -> Done:
    """To its end, its input the file `source` or empty, its output kept or written to `into`. Raises DeviceError where
    it takes longer, writes more than `most` bytes, or cannot be run.
    """
    try:
        with open(source or os.devnull, "rb") as stdin:
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
            )
    except OSError as e:
        raise DeviceError(f"cannot run {argv[0]}: {e.strerror}") from e
    with process:
        try:
            out, err = _outputs(argv[0], process, time.monotonic() + timeout, into, most)
            process.wait()
        except TimeoutError as e:
            raise DeviceError(f"{argv[0]} did not end within {timeout:g} s") from e
        finally:
            process.kill()
    return Done(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def _outputs(
    program: str, process: subprocess.Popen[bytes], deadline: float, into: IO[bytes] | None, most: int
) -> tuple[bytes, bytes]:
    """All that it writes to both streams; the first goes to `into` where that is given."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err, left = BytesIO(), BytesIO(), most
    sinks: dict[int, IO[bytes]] = {process.stdout.fileno(): into or out, process.stderr.fileno(): err}
    while sinks:
        ready = select.select(list(sinks), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise TimeoutError
        for stream in ready:
            chunk = os.read(stream, CHUNK_BYTES)
            left -= len(chunk)
            if left < 0:
                raise EndlessError(f"{program} wrote more than {most / 1e6:.0f} MB, and was ended")
            if not chunk:
                del sinks[stream]
            else:
                sinks[stream].write(chunk)
    return out.getvalue(), err.getvalue()


class Process:
    """A command that runs on the device, its standard output read line by line while it runs.

    is_overdue: it was killed here, because no line came within the time that it had. is_endless: because it wrote more
    than MOST_ERRORS characters to standard error.
    """

    is_overdue = is_endless = False

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
        self._unread = bytearray()
        self._searched = 0  # of what is unread, up to where there is no end of a line
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
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
        """The next line of standard output, None at its end. Kills the command if that takes over `timeout` seconds.

        Raises EndlessError for a line of more than MOST_LINE_BYTES.
        """
        assert self._process.stdout is not None
        out, deadline = self._process.stdout.fileno(), time.monotonic() + timeout
        while (end := self._unread.find(b"\n", self._searched)) < 0:
            self._searched = len(self._unread)
            if self._searched > MOST_LINE_BYTES:
                self.kill()
                raise EndlessError(f"it wrote a line of more than {MOST_LINE_BYTES >> 20} MiB, and was ended")
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.is_overdue = True
                self.kill()  # its output then ends
            chunk = os.read(out, CHUNK_BYTES)
            if not chunk:
                return None
            self._unread += chunk
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        self._searched = 0
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
        """A line that is longer than TAIL_CHARACTERS counts as several."""
        assert self._process.stderr is not None
        written = 0
        while line := self._process.stderr.readline(TAIL_CHARACTERS):
            written += len(line)
            if written > MOST_ERRORS:
                self.is_endless = True
                self._process.kill()
                return
            self._keep_line(line.rstrip())

    def _keep_line(self, line: str) -> None:
        self._tail.append(line)


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
