"""Starts and stops emulated devices."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from edgeport import files
from edgeport.emulated.inside import ADB_STATES, DEFAULT_DISK_MB, READY, READY_SECONDS, how_to_use
from edgeport.emulated.kinds import Kind
from edgeport.emulated.roots import CACHE, make
from edgeport.errors import EdgeportError, UsageError
from edgeport.progress import Progress

STOP_SECONDS = 10
PID, LOG = "pid", "log"


class Settings(NamedTuple):
    """folder: for what belongs to the device: keys, log, its file. port: of its server on 127.0.0.1, 0 for a free one.
    disk_mb: room for what is written to it. adb_state: how adb finds a phone.
    """

    folder: Path
    port: int = 0
    disk_mb: int = DEFAULT_DISK_MB
    adb_state: str = ADB_STATES[0]


def usual_folder(device: Kind) -> Path:
    """Where a device has its keys and its log, unless it is given another folder."""
    return files.cache_folder(CACHE) / "running" / device.name


def device_file(device: Kind, folder: Path) -> Path:
    """The file that names a running device to edgeport."""
    return folder / "devices" / f"emulated-{device.name}.toml"


def start(device: Kind, settings: Settings, progress: Progress) -> str:
    """Starts a device in the background. Returns how to use it."""
    folder = settings.folder
    command = _command(device, settings, progress)
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    (folder / PID).write_text(str(process.pid), encoding="utf-8")
    deadline = time.monotonic() + READY_SECONDS
    while not (folder / READY).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            words = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
            raise EdgeportError(f"the emulated {device.name} did not start:\n{words}")
        time.sleep(0.05)
    return how_to_use(device, folder)


def stay(device: Kind, settings: Settings, progress: Progress) -> int:
    """Runs a device until it ends, or this process does, however that happens. Returns an exit code."""
    command = [*_command(device, settings, progress), "--foreground"]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])  # noqa: S607
    (settings.folder / PID).write_text(str(process.pid), encoding="utf-8")

    def end(*_: object) -> None:
        process.kill()  # which ends the wait below

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return max(0, process.wait())


def stop(folder: Path) -> bool:
    """Ends the device that runs in the folder, and removes the folder. Returns whether one ran."""
    pid = _running(folder)
    if pid:
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while _running(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
    if (folder / PID).exists():
        shutil.rmtree(folder)
    return pid is not None


def _command(device: Kind, settings: Settings, progress: Progress) -> list[str]:
    """What starts the device in a folder that is new. Raises UsageError where it runs already."""
    folder, root = settings.folder, make(device, progress)
    if _running(folder):
        raise UsageError(
            f"the emulated {device.name} runs already, in {folder}; 'edgeport devices emulate {device.name} --stop' "
            "ends it"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    own = [sys.executable, "-P", "-m", "edgeport.emulated.inside", device.name]
    options = ["--folder", str(folder), "--root", str(root), "--disk-mb", str(settings.disk_mb)]
    return [*isolated, "--", *own, *options, "--port", str(settings.port), "--adb-state", settings.adb_state]


def _running(folder: Path) -> int | None:
    """The process whose end is the device's end; None if there is none (or another one has its number now)."""
    try:
        pid = int((folder / PID).read_text(encoding="utf-8"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(folder).encode() in command else None
