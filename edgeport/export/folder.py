"""A folder whose files change in one step: all of them or none, whenever the process is killed.

What is new is completed in a folder below it. In one step that is called COMPLETE, and from then on it is what the
folder holds: whoever reads or writes the folder next moves the files into place where their writer could not.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from edgeport import scratch
from edgeport.errors import ModelFileError
from edgeport.files import reason

COMPLETE = ".edgeport-complete"


@contextlib.contextmanager
def changing(folder: Path, last: str) -> Iterator[None]:
    """One process at a time changes the folder, after it has finished what a killed one could not. last: the name of
    the file that tells of the others. Raises OSError.
    """
    with scratch.locked(folder):
        if os.path.lexists(folder / COMPLETE):
            _move(folder, last)
        yield


def replace(folder: Path, fresh: Path, last: str) -> None:
    """Puts the files of the folder `fresh`, which lies in it, in place of those of the same names. Others stay. Call it
    while changing(). Raises OSError.
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
        with changing(folder, last):
            pass
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
