"""edgeport's command line in a process of its own, to be interrupted."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

EDGEPORT = (sys.executable, "-m", "edgeport.cli")
PATIENCE_S = 60


class Ended(NamedTuple):
    """A command that has ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """In a process group of its own, as a shell starts it; nothing of it is left afterwards."""
    process = subprocess.Popen(
        [*EDGEPORT, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_interrupts,  # noqa: PLW1509  it only sets a signal's handler
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(process: subprocess.Popen[str], code: int) -> Ended:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
    assert process.returncode == code, f"{out}\n{err}"
    return Ended(process.returncode, out, err)


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for what has to come to pass."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < PATIENCE_S, f"it did not come to pass: {what}"
        time.sleep(0.02)


def _hear_interrupts() -> None:
    """As in a terminal, wherever the tests run: a job in the background is deaf to Ctrl-C, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
