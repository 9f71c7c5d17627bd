"""Sends what libraries print, from Python or from C, to a log instead of to the user."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgeport import files


@contextlib.contextmanager
def kept_in(log: Path) -> Iterator[None]:
    """Inside the block, file descriptors 1 and 2 are the log. What the user is to see needs a descriptor of its own."""
    handle = files.append_only(log)
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    try:
        _flush()
        for fd in saved:
            os.dup2(handle, fd)
        yield
    finally:
        _flush()
        for fd, original in saved.items():
            os.dup2(original, fd)
            os.close(original)
        os.close(handle)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
