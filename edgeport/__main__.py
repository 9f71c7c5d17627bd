"""Where the command line begins: signals are heard before anything is imported that takes its time."""

import sys
from typing import NoReturn

from edgeport import interrupts


def main() -> NoReturn:
    """Runs the command line and exits."""
    interrupts.listen()
    try:
        from edgeport import cli
    except BaseException:  # libraries turn an interrupted import into errors of their own
        if not interrupts.heard():
            raise
        sys.stderr.write(f"edgeport: {interrupts.name()}; nothing was written\n")
        interrupts.leave(interrupts.code())
    cli.main()


if __name__ == "__main__":
    main()
