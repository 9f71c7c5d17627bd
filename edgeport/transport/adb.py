"""An Android phone behind adb, Android's own program, so that people's own set-up works: cable, Wi-Fi, several phones.

A phone has no Python: the first command that needs it unpacks the kit there (edgeport devices android-kit makes it).
"""

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from edgeport import files, scratch
from edgeport.catalog import Device
from edgeport.errors import ConnectError, DeviceError, LostConnectionError, UsageError
from edgeport.protocol import whole_number
from edgeport.transport.posix import GET_SECONDS, Posix
from edgeport.transport.process import GOODBYE_SECONDS, Done, Probe, Process, Remote, run
from edgeport.transport.shell import exit_code, quoted

CONNECT_SECONDS = 30.0  # adb's own server may have to start, and a phone on Wi-Fi to answer
TEMPORARY = "/data/local/tmp"  # where a phone lets the shell's user execute what he has written
WORKDIR = f"{TEMPORARY}/edgeport"
KIT, KIT_PYTHON, KIT_LOADER, KIT_SUMS = "android-arm64.tar", "bin/python3", "lib/ld-linux-aarch64.so.1", "SHA256SUMS"
ABI, PAGE_BYTES = "arm64-v8a", 16384
PROBES = (
    "getprop ro.product.cpu.abi",
    "getconf PAGESIZE 2>/dev/null || getconf PAGE_SIZE",
    "sed -n 's/^Seccomp:[^0-9]*//p' /proc/self/status",
    'echo "$(getprop ro.product.model), Android $(getprop ro.build.version.release)"',
)
# adb ends with 0 where the way to the phone broke: only what says how it ended has ended.
ENDED = "edgeport: ended with "
TELL_END = f'"$@"; code=$?; printf "\\n{ENDED}%d\\n" "$code" >&2; exit "$code"'
WHOLE = f'cd "$1" 2>/dev/null && cut -c67- {KIT_SUMS} | xargs sha256sum 2>/dev/null | cmp -s - {KIT_SUMS}'
UNPACK = f"""umask 077; mkdir -p "$3" && (cd "$3" && tar -xf "$2") && rm -rf "$1" && mv "$3" "$1" && {WHOLE} && exit
code=$?; rm -rf "$1" "$3"; exit "$code\""""
# How adb calls a phone that it cannot talk to, which step failed, and what to do.
REMEDIES = {
    "unauthorized": ("login", "unlock it and answer its question whether to allow USB debugging from this computer"),
    "authorizing": ("login", "unlock it and answer its question whether to allow USB debugging from this computer"),
    "offline": ("reachable", "it does not answer; unplug and plug it, or run 'adb reconnect offline'"),
    "no permissions": (
        "login",
        "this user may not use USB devices; run 'apt-get install android-sdk-platform-tools-common' and plug it again",
    ),
}
HOW_TO_ATTACH = (
    "enable its developer options (tap its build number seven times), USB debugging in them, and plug it in by a cable "
    "that carries data; 'adb devices' then lists it"
)


class Phone(msgspec.Struct, frozen=True):
    """One that adb knows of. state: "device" where it answers; about: what adb tells of its model."""

    serial: str
    state: str
    about: str


@contextlib.contextmanager
def connect(device: Device) -> Iterator["Adb"]:
    """Raises UsageError where several phones are attached and none is named, and ConnectError."""
    phone = _choose(device)
    if phone.state != "device":
        step, remedy = REMEDIES.get(phone.state, ("reachable", "unplug and plug it, or run 'adb reconnect'"))
        raise ConnectError(step, f"{device.name}: adb says {phone.state!r} of {phone.serial}: {remedy}")
    features = _adb("-s", phone.serial, "features").out.split()
    if "shell_v2" not in features:
        raise DeviceError(f"{device.name}: {phone.serial} tells no exit codes; edgeport needs Android 7 or newer")
    adb = Adb(device, phone.serial)
    try:
        yield adb
    finally:
        adb.close()


def default_kit() -> Path:
    """Where edgeport devices android-kit leaves its file, unless it is told otherwise."""
    return files.cache_folder("kit") / KIT


def phones() -> list[Phone]:
    """All that adb knows of, in whatever state. Raises DeviceError where adb cannot be run."""
    found = []
    for line in _adb("devices", "-l").out.splitlines()[1:]:
        serial, _, rest = line.strip().partition(" ")
        if not rest or serial == "*":  # its server says that it starts
            continue
        state = "no permissions" if rest.strip().startswith("no permissions") else rest.split()[0]
        model = [word.removeprefix("model:") for word in rest.split() if word.startswith("model:")]
        found.append(Phone(serial, state, " ".join(model).replace("_", " ")))
    return found


class Adb(Posix):
    """One phone, by its serial number."""

    def __init__(self, device: Device, serial: str) -> None:
        super().__init__(device.name, device.workdir or WORKDIR)
        self._serial = serial
        self._kit = Path(device.android_kit) if device.android_kit else default_kit()
        self._python: tuple[str, ...] = ()
        self._started: list[Carried] = []

    @property
    def python(self) -> tuple[str, ...]:
        """By the kit's own loader, as the phone has another C library. The kit is unpacked if it is not there whole."""
        if not self._python:
            folder = self._unpacked_kit()
            environment = ["-u", "LD_PRELOAD", "-u", "LD_LIBRARY_PATH", f"TMPDIR={TEMPORARY}", f"HOME={self.session}"]
            loader = [f"{folder}/{KIT_LOADER}", "--inhibit-cache", "--library-path", f"{folder}/lib"]
            self._python = ("env", *environment, *loader, f"{folder}/{KIT_PYTHON}", "-I", "-S")
        return self._python

    def probes(self) -> Iterator[Probe]:
        """Whether the kit can run there: it asks more of a phone than Android promises."""
        abi, pages, seccomp, about = (self.run(["sh", "-c", script]).out.strip() for script in PROBES)
        yield Probe("ABI", abi == ABI, f"{about}, {abi}" if abi == ABI else f"{abi}; edgeport's kit needs {ABI}")
        size = whole_number(pages)
        fits = size is not None and size <= PAGE_BYTES
        most = f"the kit fits up to {PAGE_BYTES // 1024} KB"
        wanted = f"{size // 1024} KB" if size is not None and fits else f"{pages or 'unknown'}; {most}"
        yield Probe("pages", fits, wanted)
        done = self.run([*self.python, "-c", "import ctypes, sys; print(sys.version.split()[0])"])
        filtered = "no filter" if seccomp == "0" else f"mode {seccomp or 'unknown'}"
        killed = "; its seccomp filter ended it" if done.exit_code == -signal.SIGSYS else f"; {_why(done)}"
        instead = 'measure TFLite files with runner = "benchmark_model"'
        wrong = f"the kit's Python does not run there (exit code {done.exit_code}{killed}); {instead}"
        right = f"Python {done.out.strip()} by the kit's own loader (experimental), seccomp {filtered}"
        yield Probe("loader", not done.exit_code, wrong if done.exit_code else right)

    def close(self) -> None:
        self.forget_session(GOODBYE_SECONDS)
        for process in self._started:
            process.kill()

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        process = Carried(self._command(argv), listens)
        self._started = [*(p for p in self._started if not p.ended_within(0)), process]
        return process

    def get(self, source: str, destination: Path) -> None:
        with scratch.folder(destination.parent) as folder:  # adb makes a file of its own
            done = run(["adb", "-s", self._serial, "pull", source, f"{folder}/file"], GET_SECONDS)
            if done.exit_code:
                raise DeviceError(f"{self.name}: cannot read {source}: {_why(done)}")
            (folder / "file").replace(destination)

    def _command(self, argv: Sequence[str]) -> list[str]:
        line = quoted(["sh", "-c", TELL_END, "sh", *argv])
        return ["adb", "-s", self._serial, "shell", "-T", line]

    def _finished(self, done: Done) -> Done:
        words, told, code = done.err.rpartition(f"\n{ENDED}")
        ended = whole_number(code)
        if not told or ended is None:
            raise LostConnectionError(f"{self.name}: the connection was lost\n{done.err or done.out}".rstrip())
        return Done(exit_code(ended), done.out, words)

    def _send(self, path: Path, target: str, timeout: float) -> Done:
        done = run(["adb", "-s", self._serial, "push", str(path), target], timeout)
        if done.exit_code and self._serial not in [p.serial for p in phones() if p.state == "device"]:
            raise LostConnectionError(f"{self.name}: the connection was lost\n{_why(done)}")
        return Done(done.exit_code, "", _why(done))

    def _unpacked_kit(self) -> str:
        if not self._kit.is_file():
            raise DeviceError(
                f"{self.name}: a phone has no Python, and there is no kit for it in {self._kit}; run "
                "'edgeport devices android-kit', or measure TFLite files with runner = \"benchmark_model\""
            )
        folder = f"{self.workdir}/kit/python-{files.sha256(self._kit)[:16]}"
        if self.run(["sh", "-c", WHOLE, "sh", folder]).exit_code:
            packed = self.put(self._kit)
            part = f"{folder}.{secrets.token_hex(4)}.part"
            done = self.run(["sh", "-c", UNPACK, "sh", folder, packed, part])
            self._verified.discard(packed)
            self.run(["rm", "-f", "--", packed])
            if done.exit_code:
                full = f" or its disk full{self._free()}" if not done.err else f": {_why(done)}"
                raise DeviceError(f"{self.name}: {self._kit} cannot be unpacked there: it is damaged{full}")
        return folder


class Carried(Remote):
    """By adb."""

    _ended: int | None = None

    @property
    def exit_code(self) -> int:
        return super().exit_code if self._ended is None else exit_code(self._ended)

    @property
    def lost(self) -> bool:
        return self._ended is None

    def _keep_line(self, line: str) -> None:
        code = whole_number(line.removeprefix(ENDED)) if line.startswith(ENDED) else None
        if code is not None:
            self._ended = code
        elif line:  # what ends it begins a line of its own, after an empty one
            super()._keep_line(line)


def _choose(device: Device) -> Phone:
    """The phone that the device's file or $ANDROID_SERIAL names, or the one that is there."""
    wanted, found = device.address or os.environ.get("ANDROID_SERIAL", ""), phones()
    if wanted and ":" in wanted and wanted not in [p.serial for p in found]:
        _adb("connect", wanted)  # one on the network; adb itself says nothing by its exit code
        found = phones()
    there = [p for p in found if p.serial == wanted] if wanted else found
    if len(there) == 1:
        return there[0]
    listed = "".join(f"\n  {p.serial:<24} {p.state:<14} {p.about}".rstrip() for p in found)
    if there:
        command = f"edgeport devices add NAME --like {device.name} --address {there[0].serial}"
        raise UsageError(f"{device.name}: several phones are attached; choose one, as by '{command}':{listed}")
    if wanted:
        known = f"; adb knows of:{listed}" if found else "; adb knows of none"
        raise ConnectError("reachable", f"{device.name}: no phone {wanted} is attached; {HOW_TO_ATTACH}{known}")
    raise ConnectError("reachable", f"{device.name}: no phone is attached; {HOW_TO_ATTACH}")


def _adb(*words: str) -> Done:
    try:
        return run(["adb", *words], CONNECT_SECONDS)
    except DeviceError as e:
        if isinstance(e.__cause__, FileNotFoundError):
            install = "install Android's platform tools (Debian: apt-get install adb)"
            raise DeviceError(f"there is no program adb here; {install}") from e
        raise


def _why(done: Done) -> str:
    lines = [line for line in f"{done.out}\n{done.err}".splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "failed" in line]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("adb: error: ").removeprefix("adb: ")
