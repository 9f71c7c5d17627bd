"""A folder whose files change in one step: all of them or none, whenever the process is killed.

What is new is completed in a folder below it. In one step that is called COMPLETE, and from then on it is what the
folder holds: whoever reads or writes the folder next moves the files into place where their writer could not.
"""

import contextlib
import os
from pathlib import Path

from edgeport import scratch
from edgeport.errors import ModelFileError
from edgeport.files import reason

COMPLETE = ".edgeport-complete"


def replace(folder: Path, fresh: Path, last: str) -> None:
    """Puts the files of the folder `fresh`, which lies in it, in place of those of the same names. Others stay. Call it
    under scratch.locked(). last: the name of the file that tells of the others. Raises OSError, and then nothing is
    changed.
    """
    for name in os.listdir(fresh):
        if (folder / name).is_dir():
            raise IsADirectoryError(0, "a folder is where this file is to be", str(folder / name))
    fresh.rename(folder / COMPLETE)
    _move(folder, last)


def settle(folder: Path, last: str) -> None:
    """Finishes the change of a folder whose writer was killed in the midst of it. Raises ModelFileError where it cannot
    be finished.
    """
    if not os.path.lexists(folder / COMPLETE):
        return
    try:
        with scratch.locked(folder), contextlib.suppress(FileNotFoundError):  # another process finished it
            _move(folder, last)
    except OSError as e:
        raise ModelFileError(
            f"{folder / COMPLETE} holds files of an export that was killed, which cannot be moved into place: "
            f"{reason(e)}; make {folder} writable, or remove that folder and export again"
        ) from e


def _move(folder: Path, last: str) -> None:
    complete = os.open(folder / COMPLETE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in sorted(os.listdir(complete), key=lambda name: name == last):
            os.replace(name, folder / name, src_dir_fd=complete)
    finally:
        os.close(complete)
    os.rmdir(folder / COMPLETE)
