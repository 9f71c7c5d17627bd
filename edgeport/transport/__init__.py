"""How files and commands reach a device: one file a transport, NAME.py with connect(device), found by its name.

Commands are argument lists; where a remote shell reads them, shell.quoted() alone makes its line.
"""

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from edgeport.catalog import Device
from edgeport.errors import UsageError, nearest
from edgeport.transport.local import Local
from edgeport.transport.process import RUN_SECONDS, Done, EndlessError, Probe, Process

__all__ = ["Done", "EndlessError", "Local", "Probe", "Process", "Transport", "open_transport"]


class Transport(Protocol):
    """The way to one device, open until its context ends. Every method raises DeviceError, LostConnectionError where
    the way there broke, and waits for nothing without end.

    python: the words that start Python there, ready to be followed by the agent's file. workdir: the device's folder
    for all that edgeport keeps there, with kit/ and sessions/ in it; session: the one in it for what is needed only
    while the transport is open, and removed at the end. Both are "" where nothing is sent.
    """

    @property
    def name(self) -> str: ...

    @property
    def python(self) -> tuple[str, ...]: ...

    @property
    def session(self) -> str: ...

    @property
    def workdir(self) -> str: ...

    def probes(self) -> Iterator[Probe]:
        """What must hold there before Python runs, one after the other; nothing for most."""
        ...

    def put(self, path: Path, keep: bool = False) -> str:
        """Where the file is on the device, under its hash, whole and verified. It is pushed only if it is not there.

        keep: for later sessions too; otherwise it is removed with the session.
        """
        ...

    def copied(self, path: Path) -> AbstractContextManager[str]:
        """Where a copy of the file is on the device that nobody else reads, removed when the block ends. The names of
        all such copies are of one length.
        """
        ...

    def get(self, source: str, destination: Path) -> None:
        """Copies a file of the device to this machine."""
        ...

    def folder(self) -> AbstractContextManager[str]:
        """A new, empty folder on the device, removed when the block ends."""
        ...

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        """listens: it is written to; otherwise its input is empty. The input ends when the way there breaks."""
        ...

    def run(self, argv: Sequence[str], timeout: float = RUN_SECONDS) -> Done:
        """A short command without input, to its end, whatever its exit code."""
        ...

    def close(self) -> None:
        """Ends all that goes through it, which then fails; from any thread. Its context does so by itself."""
        ...


def transport_names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("posix", "process", "shell"))


def open_transport(device: Device) -> AbstractContextManager[Transport]:
    """Connects. Raises UsageError for a device of an unknown transport or without an address."""
    if device.transport not in transport_names():
        known, close = ", ".join(transport_names()), nearest(device.transport, transport_names())
        raise UsageError(f"device {device.name!r}: unknown transport {device.transport!r}; there are {known}{close}")
    module = importlib.import_module(f"{__name__}.{device.transport}")
    found: AbstractContextManager[Transport] = module.connect(device)
    return found
