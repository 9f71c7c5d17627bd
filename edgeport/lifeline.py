"""Ties a child process to this one: it ends when this one does, however that comes."""

import contextlib
import os
import resource
import threading
from collections.abc import Iterator

STDIN = 0
GONE = 1  # exit code


@contextlib.contextmanager
def held() -> Iterator[int]:
    """A descriptor to be a child's standard input, which ends with the block, or with this process."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def follow() -> None:
    """In the child: ends it when its standard input ends, whatever it is at. A crash of it leaves no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    while os.read(STDIN, 1):
        pass
    os._exit(GONE)
