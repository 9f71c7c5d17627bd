"""Files that are whole or absent, hashes, and where edgeport keeps what it keeps."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeport.errors import EdgeportError, UsageError


def cache_folder(name: str) -> Path:
    """A folder of edgeport's own cache ($EDGEPORT_CACHE, or edgeport under $XDG_CACHE_HOME), made if need be."""
    root = os.environ.get("EDGEPORT_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeport"
    return writable_folder(base / name)


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


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, renamed to it when the block ends well and removed otherwise."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as e:
        raise EdgeportError(f"cannot write {path}: {reason(e)}") from e
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
