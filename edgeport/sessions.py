"""Opens a device for measuring: connects, refuses what cannot run, and keeps the device for us alone meanwhile."""

import contextlib
import functools
import getpass
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgeport import kit
from edgeport.catalog import Device
from edgeport.errors import DeviceError, LostConnectionError
from edgeport.probe import System, abi_refusal, probe, python_refusal
from edgeport.progress import Progress
from edgeport.protocol import Busy, Held, Holder, Message, Waiting
from edgeport.runner import Runner, Served
from edgeport.transport import Process, Transport, open_transport

RENEW_SECONDS, SILENCE_SECONDS = 10.0, 40.0
ANSWER_SECONDS = 60.0  # for the agent to start on a slow device


class Access(msgspec.Struct, frozen=True):
    """How to come by a device. wait: seconds for another owner to end; wheels: a folder of runtimes' wheels for it."""

    wait: float = 0.0
    wheels: Path | None = None


@contextlib.contextmanager
def open_runner(device: Device, access: Access, progress: Progress) -> Iterator[Runner]:
    """A runner on the device, which is kept for it until the block ends. Raises UsageError and DeviceError."""
    with open_transport(device) as transport, hold(runner_on(device, transport, access), access.wait, progress) as held:
        yield held


def clean(device: Device, access: Access, progress: Progress) -> str:
    """Removes what edgeport keeps on a device, under its lock. Returns the folder where that was, "" if there is none.
    Raises DeviceError.
    """
    with open_transport(device) as transport:
        folder = transport.workdir
        if not folder:
            return ""
        with hold(runner_on(device, transport, access), access.wait, progress):
            done = transport.run(["rm", "-rf", "--", f"{folder}/kit"])
        if done.exit_code:
            raise DeviceError(f"{device.name}: cannot remove {folder}: {done.err.strip()}")
        transport.run(["rm", "-rf", "--", f"{folder}/sessions"])
        transport.run(["rmdir", "--", folder])  # unless something of the user's is in it
        return folder


def runner_on(device: Device, transport: Transport, access: Access) -> Runner:
    """Without the device's lock. Raises DeviceError for a system that the runtimes or the agent cannot run on."""
    runner = Runner(device.name, transport, sensors=device.sensors)
    if device.transport == "local":
        return runner
    system = probe(transport)
    for refusal in (abi_refusal(system), python_refusal(system, device.python)):
        if refusal:
            raise DeviceError(f"{device.name}: {refusal}")
    library = functools.partial(fitting_library, device=device.name, system=system, wheels=access.wheels)
    return msgspec.structs.replace(runner, library=library)


def fitting_library(runtime: str, *, device: str, system: System, wheels: Path | None) -> kit.Library:
    """Raises DeviceError where the device's glibc is older than the library needs."""
    library = kit.library_for(runtime, system.machine, wheels)
    needed = library.oldest_libc()
    if needed > system.libc:
        found, wanted = (".".join(map(str, version)) for version in (system.libc, needed))
        raise DeviceError(
            f"{device}: {runtime} {library.version} needs glibc {wanted} and the device has {found}; install a newer "
            "system on it (Debian 12, Raspberry Pi OS Bookworm or later)"
        )
    return library


def push_kit(runner: Runner, runtimes: Sequence[str], progress: Progress) -> int:
    """The agent and the runtimes' libraries, in place and verified. Returns how many bytes were pushed."""
    step, before = f"{runner.device} kit", getattr(runner.transport, "pushed_bytes", 0)
    progress.started(step)
    runner.agent()
    for runtime in runtimes:
        progress.advanced(step, f"{runtime} for this device")
        library = runner.library(runtime)
        progress.advanced(step, f"{library.path.name}, {library.path.stat().st_size / 1e6:.1f} MB")
        runner.transport.put(library.path, keep=True)
    pushed: int = getattr(runner.transport, "pushed_bytes", 0) - before
    progress.finished(step, f"{pushed / 1e6:.1f} MB pushed" if pushed else "already there, verified")
    return pushed


@contextlib.contextmanager
def hold(runner: Runner, wait: float, progress: Progress) -> Iterator[Runner]:
    """The runner with the device's lock, which a process on the device keeps while it hears from us."""
    transport, step = runner.transport, f"{runner.device} in use"
    options = [f"--owner={_owner()}", f"--wait={wait}", f"--silence={SILENCE_SECONDS}"]
    options += [f"--session={transport.session}"] if transport.session else []
    process = transport.start([*runner.agent(), "hold", *options], listens=True)
    served = Served(process, runner.device, f"taking the lock of {runner.device}", wait + ANSWER_SECONDS)

    def heard(message: Message) -> None:
        if isinstance(message, Waiting):
            progress.started(step)
            progress.waited(step, f"by {_since(message)}")

    keeper = _Keeper(process, runner.device)
    try:
        try:
            held = served.wait_for(Held, on_message=heard)
        except DeviceError:
            busy = served.messages.get(Busy)
            if busy is None:
                raise
            how = f"after {wait:g} s it still is" if wait else "wait for it with --wait SECONDS"
            raise DeviceError(f"{runner.device} is in use by {_since(busy)}; {how}") from None
        if served.messages.get(Waiting):
            progress.finished(step, "now ours")
        for text in held.refused:
            progress.warned(f"{runner.device}: {text}")
        keeper.start()
        yield msgspec.structs.replace(runner, still_ours=keeper.check)
    finally:
        keeper.end()


class _Keeper:
    """Tells the process on the device now and then that we live."""

    def __init__(self, process: Process, device: str) -> None:
        self._process, self._device = process, device
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raises LostConnectionError once the process has ended, for others may measure then."""
        if self._process.ended_within(0):
            why = self._process.last_errors()
            raise LostConnectionError(f"{self._device}: the connection was lost, and its lock with it\n{why}".rstrip())

    def end(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._process.close_input()
        self._process.ended_within(ANSWER_SECONDS)  # it cleans
        self._process.kill()

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            self._process.write_line("")


def _owner() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"


def _since(holder: Holder) -> str:
    """By our clock; the device's may be wrong."""
    began = time.strftime("%H:%M:%S", time.localtime(time.time() - holder.seconds))
    return f"{holder.owner} since {began} ({holder.seconds:.0f} s ago)"
