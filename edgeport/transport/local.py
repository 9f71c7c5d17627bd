"""This machine. Files are already in place, so putting one only names it."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeport import files, scratch
from edgeport.catalog import Device
from edgeport.errors import DeviceError
from edgeport.transport.process import RUN_SECONDS, Done, Probe, Process, run


@contextlib.contextmanager
def connect(device: Device) -> Iterator["Local"]:
    """With the Python that runs edgeport."""
    yield Local(sys.executable, device.name)


class Local:
    """python: the interpreter's path. -I and -S: nothing of the user's environment or of installed packages."""

    session, workdir = "", ""

    def __init__(self, python: str, name: str = "local") -> None:
        self.name, self.python = name, (python, "-I", "-S")

    def probes(self) -> Iterator[Probe]:
        yield from ()

    def put(self, path: Path, keep: bool = False) -> str:
        return str(path.resolve())

    @contextlib.contextmanager
    def copied(self, path: Path) -> Iterator[str]:
        with self.folder() as folder:
            target = Path(folder, f"model{path.suffix.lower()}")
            try:
                shutil.copyfile(path, target)
            except OSError as e:
                raise DeviceError(f"{self.name}: cannot copy {path}: {files.reason(e)}") from e
            yield str(target)

    def get(self, source: str, destination: Path) -> None:
        try:
            shutil.copyfile(source, destination)
        except OSError as e:
            raise DeviceError(f"{self.name}: cannot copy {source}: {files.reason(e)}") from e

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        with scratch.folder() as folder:
            yield str(folder)

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        return Process(argv, listens)

    def run(self, argv: Sequence[str], timeout: float = RUN_SECONDS) -> Done:
        return run(argv, timeout)

    def close(self) -> None:
        pass
