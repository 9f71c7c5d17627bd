"""Which files tell of devices: edgeport's own, the user's, and those of a folder that they name or have trusted.

A device's file names commands and an ssh_config, which is as good as a program: what lies in the folder that somebody
happens to be in counts only after they said so, for that content.
"""

import hashlib
import importlib
import os
import shlex
import tomllib
from pathlib import Path

import msgspec

from edgeport import files, trust
from edgeport.errors import UsageError

FOLDER = "EDGEPORT_DEVICES"  # in the environment, as --devices
HERE = Path("devices")
BESIDE = ("ssh_config", "android_kit", "benchmark_model")  # keys that name a file, as seen from the device's
MOST_BYTES = 1_000_000


class DeviceFiles(msgspec.Struct, frozen=True):
    """Files by the names of their devices. counted: those that are used. untrusted: those of ./devices that are not.
    replaced: names of edgeport's own or the user's devices whose place was taken by a file of a folder.
    """

    counted: dict[str, Path]
    untrusted: dict[str, Path]
    replaced: tuple[str, ...]


def own_folder() -> Path:
    """Where the user's devices lie, whatever the current folder is."""
    return trust.config_folder() / "devices"


def shipped_folder() -> Path:
    """Where edgeport's own devices lie."""
    return Path(next(iter(importlib.import_module("edgeport.devices").__path__)))


def find(folder: Path | None = None) -> DeviceFiles:
    """folder: whose files count without further ado, in place of ./devices; $EDGEPORT_DEVICES names it too. A later
    file takes the place of an earlier one: edgeport's own, the user's, the folder's.
    """
    usual = {**_in(shipped_folder()), **_in(own_folder())}
    named = folder or (Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None)
    if named is not None and not named.is_dir():
        raise UsageError(f"there is no folder of devices {named}; give one by --devices or ${FOLDER}")
    others = {name: path for name, path in _in(named or HERE).items() if not _is_copy(path, usual.get(name))}
    untrusted = {} if named else {name: path for name, path in others.items() if not is_trusted(path)}
    taken = {name: path for name, path in others.items() if name not in untrusted}
    return DeviceFiles({**usual, **taken}, untrusted, tuple(name for name in taken if name in usual))


def notes(name: str, found: DeviceFiles) -> list[str]:
    """What whoever uses this device is to be told of its file."""
    told = []
    if name in found.untrusted and name in found.counted:
        told.append(f"{found.untrusted[name]} is not used: {how_to_trust(name)}")
    if name in found.replaced:
        told.append(f"the device {name} is that of {found.counted[name]}, in place of the usual one of that name")
    return told


def how_to_trust(name: str) -> str:
    word = shlex.quote(name)
    return (
        f"it lies in the current folder and you have not trusted what it holds; read it (edgeport devices show {word}),"
        f" then run 'edgeport devices trust {word}', or pass --devices {HERE}"
    )


def is_trusted(path: Path) -> bool:
    """Whether the user trusted this file, and those that it names, as they are now."""
    try:
        return trust.is_trusted(path, fingerprint(path))
    except OSError:  # what cannot be read has not been trusted
        return False


def fingerprint(path: Path) -> str:
    """Of a device's file with the files that it names. Raises OSError."""
    digest = hashlib.sha256(files.content(path, MOST_BYTES))
    for named in files_beside(path):
        digest.update(f"\0{files.sha256(named) if named.is_file() else 'absent'}".encode())
    return digest.hexdigest()


def files_beside(path: Path) -> list[Path]:
    """Those that a device's file names. Raises OSError."""
    try:
        raw = tomllib.loads(files.content(path, MOST_BYTES).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return []  # then it names none, and is no device
    named = [raw[key] for key in BESIDE if isinstance(raw.get(key), str) and raw[key]]
    return [beside(path, word) for word in named]


def beside(path: Path, named: str) -> Path:
    """A file that a device's file names."""
    return path.parent / Path(named).expanduser()


def _in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _is_copy(path: Path, usual: Path | None) -> bool:
    """Whether it is the file of that name, or holds just the same, as in a clone of edgeport."""
    try:
        return usual is not None and (path.samefile(usual) or fingerprint(path) == fingerprint(usual))
    except OSError:
        return False
