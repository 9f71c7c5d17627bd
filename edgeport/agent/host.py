"""The other end of standard input: whoever started this process, perhaps from another machine."""

import os
import queue
import threading
import time
from typing import Iterator, Optional

STDIN = 0
GRACE_SECONDS = 0.5  # for a request that is just being answered
GONE = 1  # exit code


class Host:
    """Lines of standard input. attached: when that ends, so does this process, whatever it is at, for the host has
    ended or cannot be reached any more; one that waits for a line ends in peace.

    It is read by a thread that sleeps in read(2): it takes nothing from what is timed.
    """

    def __init__(self, attached: bool) -> None:
        self._attached, self._reads, self._at_end = attached, False, False
        self._lines: queue.SimpleQueue[Optional[str]] = queue.SimpleQueue()
        if attached:
            self._read_on()

    def lines(self) -> Iterator[str]:
        """To the end of the input."""
        if not self._reads:
            self._read_on()
        yield from iter(self._lines.get, None)
        self._at_end = True

    def _read_on(self) -> None:
        self._reads = True
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        unread = b""
        # not sys.stdin: the interpreter cannot end while a thread holds its lock
        for data in iter(lambda: os.read(STDIN, 4096), b""):
            *whole, unread = (unread + data).split(b"\n")
            for line in whole:
                self._lines.put(line.decode(errors="replace"))
        self._lines.put(None)
        if self._attached:
            time.sleep(GRACE_SECONDS)
            if not self._at_end:
                os._exit(GONE)
