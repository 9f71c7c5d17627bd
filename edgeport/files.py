"""Files that are whole or absent, hashes, and where edgeport keeps what it keeps."""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeport import scratch
from edgeport.errors import EdgeportError, UsageError

MOST_BYTES = 64_000_000  # of a document that is read whole


def cache_folder(name: str) -> Path:
    """A folder of edgeport's own cache ($EDGEPORT_CACHE, or edgeport under $XDG_CACHE_HOME), made if need be. Only the
    user has access to it. Raises UsageError where it cannot be written to, or is another user's.
    """
    root = os.environ.get("EDGEPORT_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeport"
    try:
        return private_folder(base / name)
    except UsageError as e:
        raise UsageError(f"{e} for edgeport's cache by $EDGEPORT_CACHE") from e


def data_folder() -> Path:
    """Where what is to last is kept: edgeport under $XDG_DATA_HOME. It may not be there yet."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "edgeport"


def writable_folder(path: Path) -> Path:
    """Makes the folder. Raises UsageError where it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as e:
        raise UsageError(f"cannot write to the folder {path}: {reason(e)}; choose another one") from e


def private_folder(path: Path) -> Path:
    """Makes a folder of edgeport's own to which nobody but the user has access, or makes it so. Raises UsageError where
    it cannot be made or written to, or is another user's, who could change what is read from it.
    """
    writable_folder(path)
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid():
        raise UsageError(f"the folder {path} belongs to another user (number {found.st_uid}); choose another one")
    if found.st_uid == os.geteuid() and found.st_mode & 0o077:
        path.chmod(0o700)
    return path


@contextlib.contextmanager
def whole_file(path: Path, private: bool = False) -> Iterator[Path]:
    """Yields an empty file beside `path` to write to, renamed to it when the block ends well and removed otherwise.

    Its name cannot be foreseen, so that it is no link of others'. private: for the user alone.
    """
    try:
        with scratch.file(path.parent, 0o600 if private else 0o666) as beside:
            yield beside
            _to_disk(beside)
            os.replace(beside, path)
    except OSError as e:
        raise EdgeportError(f"cannot write {path}: {reason(e)}") from e


def _to_disk(path: Path) -> None:
    """So that after a power cut, too, a file that has its name has its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str, private: bool = False) -> None:
    with whole_file(path, private) as beside:
        beside.write_text(text, encoding="utf-8")


def append_only(path: Path) -> int:
    """A descriptor of a log to write to, which is no link to another file. Raises EdgeportError."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as e:
        raise EdgeportError(f"cannot write the log {path}: {reason(e)}; it must be a plain file or absent") from e


def content(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All of a plain file. Raises OSError, also where it is a pipe or a device, or larger than that."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe that nobody writes to is no reason to wait
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it has more than {most_bytes // 1_000_000} MB")
    return data


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def storage_error(text: str) -> str | None:
    """What a library's text says of a disk that takes no more, in the system's own words, None if it says nothing."""
    words = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)]
    return next((word.lower() for word in words if word.lower() in text.lower()), None)


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
