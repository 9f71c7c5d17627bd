"""Temporary files and folders that end with the process that makes them; what one leaves that is killed, the next one
removes.

Each has a name of edgeport's own that cannot be foreseen, and a lock (flock(2)) that the kernel holds for its process
until that ends, however it ends. What has such a name, belongs to the user and is locked by nobody is abandoned.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ENDING = "tmp"  # of what the next process may remove without a thought

_cleaned: set[Path] = set()  # where this process has removed what was abandoned


@contextlib.contextmanager
def folder(parent: Path | None = None, ending: str = ENDING) -> Iterator[Path]:
    """A new, empty folder, removed when the block ends. parent: of the system's folder for temporary files unless
    given. ending: of its name; another one is for what remove_abandoned() is to be told of. Raises OSError.
    """
    place = parent or Path(tempfile.gettempdir())
    _clean_once(place)
    path, lock = _made(place, ending, _make_folder)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def file(parent: Path, mode: int = 0o666) -> Iterator[Path]:
    """A new, empty file, removed when the block ends unless it has another name by then. Raises OSError."""
    _clean_once(parent)
    path, lock = _made(parent, ENDING, lambda path: os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def remove_abandoned(parent: Path, ending: str = ENDING, before: Callable[[Path], object] = lambda path: None) -> None:
    """Removes what processes left there that were killed. before: is called with the path of each, first.

    It follows no links, and leaves what belongs to others or is in use.
    """
    name = re.compile(rf"\.edgeport-[0-9a-f]{{16}}\.{ending}")
    with contextlib.suppress(OSError):  # a folder that may be written to, but not listed
        for path in [Path(entry) for entry in os.scandir(parent) if name.fullmatch(entry.name)]:
            _remove_if_abandoned(path, before)


@contextlib.contextmanager
def locked(parent: Path) -> Iterator[None]:
    """One process at a time changes what is in a folder. File systems that have no locks are taken as they are."""
    handle = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _clean_once(parent: Path) -> None:
    place = Path(os.path.abspath(parent))
    if place not in _cleaned:
        _cleaned.add(place)
        remove_abandoned(place)


def _made(parent: Path, ending: str, make: Callable[[Path], int]) -> tuple[Path, int]:
    """The path and its lock. Made once more where another process took it for abandoned before it was locked."""
    while True:
        path = parent / f".edgeport-{secrets.token_hex(8)}.{ending}"
        handle = make(path)
        _lock(handle)
        if _is_at(handle, path):
            return path, handle
        os.close(handle)


def _make_folder(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # taken for abandoned
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _lock(handle: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks, where nothing is ever taken for abandoned
        fcntl.flock(handle, fcntl.LOCK_EX)


def _is_at(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _remove_if_abandoned(path: Path, before: Callable[[Path], object]) -> None:
    with contextlib.suppress(OSError):  # in use, another user's, a link, or gone meanwhile
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            found = os.fstat(handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if found.st_uid == os.geteuid() and _is_at(handle, path):
                before(path)
                _remove(path, found.st_mode)
        finally:
            os.close(handle)


def _remove(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        shutil.rmtree(path, ignore_errors=True)
    elif stat.S_ISREG(mode):
        path.unlink()
