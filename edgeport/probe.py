"""What a device is, before anything is sent to it, and whether edgeport can run there."""

import msgspec

from edgeport.protocol import whole_number
from edgeport.transport import Transport

OLDEST_PYTHON = (3, 8)
SMALL_MACHINES = ("armv6l", "armv7l", "i686")  # where getconf is not there to ask
# $@ starts Python, whose C library is the one that counts: a phone's own is another. getconf tells the system's own
# word size; the kernel's, which uname tells, may be twice that.
SCRIPT = """
echo "machine=$(uname -m 2>/dev/null)"
echo "system=$(uname -s 2>/dev/null)"
echo "bits=$(getconf LONG_BIT 2>/dev/null)"
libc="$("$@" -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION"))' 2>/dev/null)"
case "$libc" in glibc*) ;; *) libc="$(getconf GNU_LIBC_VERSION 2>/dev/null)" ;; esac
echo "libc=$libc"
echo "python=$("$@" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)"
echo "modules=$("$@" -c 'import array, ctypes, fcntl, json, resource, select; print("all")' 2>/dev/null)"
"""


class System(msgspec.Struct, frozen=True):
    """machine: the kernel's (uname -m); bits: of the programs; libc: its glibc, (0, 0) if it has none; python: its
    version, () if it has none. modules: whether that Python has what the agent needs of the standard library.
    """

    machine: str
    system: str
    bits: int
    libc: tuple[int, ...]
    python: tuple[int, ...]
    modules: bool


def probe(transport: Transport) -> System:
    """One short command. Raises DeviceError."""
    done = transport.run(["sh", "-c", SCRIPT, "sh", *transport.python])
    told = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
    return System(
        machine=told.get("machine", ""),
        system=told.get("system", ""),
        bits=whole_number(told.get("bits", "")) or 0,
        libc=_version(told.get("libc", "").removeprefix("glibc ")),
        python=_version(told.get("python", "")),
        modules=told.get("modules") == "all",
    )


def abi_refusal(system: System) -> str | None:
    """Why no runtime exists for it, None where one may."""
    if system.bits == 32 or (not system.bits and system.machine in SMALL_MACHINES):
        return (
            f"its system is a 32-bit one (its kernel says {system.machine}, its programs {system.bits or 32} bits), "
            "and the runtimes are built for 64 bits; install a 64-bit one, such as Raspberry Pi OS 64-bit"
        )
    if system.system not in ("", "Linux"):
        return f"it runs {system.system}; edgeport measures on Linux"
    if not any(system.libc):
        return "it has no glibc, which the runtimes are built for (musl, as in Alpine Linux, is another library)"
    return None


def python_refusal(system: System, python: str) -> str | None:
    """Why the agent cannot run there, None where it can."""
    if not system.python:
        how = "run 'sudo apt-get install python3' on it, or set python in the device's file"
        return f"{python!r} does not run there, and the agent needs Python 3.8 or newer; {how}"
    if system.python < OLDEST_PYTHON:
        return f"its Python is {_dotted(system.python)}, the agent needs 3.8 or newer; set python in the device's file"
    if not system.modules:
        how = "run 'sudo apt-get install python3' on it"
        return f"its Python lacks parts of the standard library, as python3-minimal does; {how}"
    return None


def _version(text: str) -> tuple[int, ...]:
    """() for what is none."""
    parts = [whole_number(part) for part in text.split(".")]
    known = [part for part in parts if part is not None]
    return tuple(known) if len(known) == len(parts) else ()


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
