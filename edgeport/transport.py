"""How files and commands reach a device. Commands are argument lists; nothing is pasted into a shell."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeport.errors import DeviceError

TAIL_LINES = 20


class Process:
    """A command that runs on the device, its standard output read line by line while it runs."""

    def __init__(self, argv: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as e:
            raise DeviceError(f"cannot run {argv[0]}: {e.strerror}") from e
        self._tail: list[str] = []
        self._reader = threading.Thread(target=self._keep_tail, daemon=True)
        self._reader.start()

    def lines(self, timeout: float) -> Iterator[str]:
        """Lines of standard output. Kills the command after `timeout` seconds, and if the reader stops early."""
        assert self._process.stdout is not None
        killer = threading.Timer(timeout, self._process.kill)
        killer.start()
        try:
            yield from self._process.stdout
        finally:
            killer.cancel()
            self._process.kill()
            self._process.wait()
            self._reader.join(timeout=1)

    @property
    def exit_code(self) -> int:
        """Of the ended command; minus the signal's number where a signal ended it."""
        return self._process.returncode

    def last_errors(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._tail)

    def _keep_tail(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._tail = [*self._tail, line.rstrip()][-TAIL_LINES:]


class Local:
    """This machine. Files are already in place, so putting one only names it."""

    def __init__(self, python: str) -> None:
        self.python = python

    def put(self, path: Path) -> str:
        return str(path.resolve())

    def start(self, argv: Sequence[str]) -> Process:
        return Process(argv)
