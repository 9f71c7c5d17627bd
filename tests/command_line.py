"""Runs edgeport's command line as users do, in processes of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

Edgeport = Callable[..., "Ended"]

EDGEPORT = (sys.executable, "-m", "edgeport.cli")
NETWORKS = Path(__file__).parent / "export" / "users_networks.py"
PATIENCE_S = 300  # a busy machine is no failure


class Ended(NamedTuple):
    """A command that has ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def edgeport(*arguments: object, code: int = 0, cwd: Path | None = None) -> Ended:
    """Runs a command that ends with this exit code, and without a traceback in any case."""
    done = subprocess.run(
        [*EDGEPORT, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return checked(Ended(done.returncode, done.stdout, done.stderr), code)


def network(name: str) -> str:
    """A factory of export/users_networks.py as users write it."""
    return f"{NETWORKS}:{name}"


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, as a shell starts it; nothing of it is left afterwards."""
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


def _hear_interrupts() -> None:
    """As in a terminal, wherever the tests run: a job in the background is deaf to Ctrl-C, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: subprocess.Popen[str], code: int) -> Ended:
    out, err = process.communicate(timeout=PATIENCE_S)
    return checked(Ended(process.returncode, out, err), code)


def group(leader: int) -> dict[int, str]:
    """The living processes of a process group: their numbers and command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it may end while it is looked at
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[2]) == leader:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def until(condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Waits for what has to come to pass; while the process runs, if one is given."""
    start = time.monotonic()
    while not condition():
        assert process is None or process.poll() is None, f"it ended too early: {process and process.communicate()}"
        assert time.monotonic() - start < PATIENCE_S, f"it did not come to pass: {what}"
        time.sleep(0.01)


def checked(command: Ended, *codes: int) -> Ended:
    """The command, if it ended with one of these exit codes and without a traceback."""
    assert "Traceback" not in command.err, command.err
    assert command.code in codes, command.err
    return command
