"""Exports that are kept, each in a folder named by its content: the least recently used go, never one in use."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES, MOST = 5_000_000_000, 200

_held: dict[Path, int] = {}  # folders that this process uses, by their open descriptors


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """One process at a time looks for an export, adds one or removes some."""
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hold(folder: Path) -> Path:
    """Marks an export as used now, and in use until this process ends. Call it under the lock."""
    os.utime(folder)
    if folder not in _held:
        _held[folder] = os.open(folder, os.O_RDONLY)
        fcntl.flock(_held[folder], fcntl.LOCK_SH)
    return folder


def prune(cache: Path) -> None:
    """Removes what is too much and not in use. Call it under the lock."""
    folders = [path for path in cache.iterdir() if path.is_dir() and not path.name.startswith(".")]
    total = 0
    for n, folder in enumerate(sorted(folders, key=lambda path: -path.stat().st_mtime_ns), start=1):
        total += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if (n > MOST or total > MOST_BYTES) and not _in_use(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
