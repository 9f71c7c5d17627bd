"""The one place where words become a line that a shell reads."""

import shlex
from collections.abc import Sequence

from edgeport.errors import DeviceError


def quoted(argv: Sequence[str]) -> str:
    """The line with which a POSIX shell, or fish, runs these words, whatever is in them, and ends as they do.

    The command runs below a shell and not in its place, so that one that a signal ends is told as 128 + its number
    (POSIX.1-2017, XCU 2.8.2). Raises DeviceError for a word with a NUL, which no command can be given.
    """
    for word in argv:
        if "\0" in word:
            raise DeviceError(f"the name {word!r} holds a NUL, which no command can be given")
    return f"exec sh -c {shlex.quote(f'{shlex.join(argv)}; exit $?')}"


def exit_code(code: int) -> int:
    """What the shell told of a command: minus the signal's number where a signal ended it."""
    return 128 - code if 128 < code < 255 else code
