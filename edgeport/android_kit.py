"""Makes what a phone needs to run edgeport's agent: a small Python and its C library, from Debian's packages for ARM.

EXPERIMENTAL: it has run on an emulated phone, not yet on a real one. A phone has no Python and another C library than
the runtimes' wheels are made for; so the kit brings both, and starts Python through the C library's own loader, which
Android lets the adb shell's user do. Nothing on the phone changes but one folder below /data/local/tmp.

Needs a Debian system (or a container of one) with network access to its packages, and no root.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from edgeport import debian_packages, elf, files
from edgeport.errors import EdgeportError
from edgeport.progress import Progress
from edgeport.transport.adb import KIT_PYTHON, KIT_SUMS, PAGE_BYTES

PACKAGES = ("python3-minimal", "libpython3-stdlib", "libffi8", "libgcc-s1", "libstdc++6")
LIBRARIES = "usr/lib/aarch64-linux-gnu"
# What Python, its ctypes and the runtimes name as needed; the loader is a program too.
NEEDED = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libexpat.so.1",
    "libffi.so.8",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libz.so.1",
)
# The standard library's compiled modules that the agent uses, itself or through others.
EXTENSIONS = ("_ctypes", "_json", "_queue", "mmap", "resource")
# Of the standard library's other modules, those that a device has no use for.
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "distutils", "pydoc_data"}
LIMIT_BYTES = 25_000_000


def make(output: Path, progress: Progress) -> None:
    """Makes the kit. Raises EdgeportError, also where Debian's packages cannot be had here."""
    step = "android kit"
    progress.started(step)
    files.writable_folder(output.parent)
    with tempfile.TemporaryDirectory(prefix="edgeport-kit-") as folder:
        debian, kit = Path(folder, "debian"), Path(folder, "kit")
        progress.advanced(step, "Python for ARM from Debian's packages")
        debian_packages.unpack(PACKAGES, "arm64", debian)
        gather(debian, kit, progress)
        check(kit)
        write(kit, output)
    progress.finished(step, f"{output.stat().st_size / 1e6:.1f} MB")


def gather(debian: Path, kit: Path, progress: Progress) -> None:
    """The kit's files: bin/python3, lib/*.so and the standard library where Python looks for it beside itself."""
    library = next((debian / "usr/lib").glob("python3.*"))
    inside = kit / "lib" / library.name
    for folder in (kit / "bin", inside / "lib-dynload"):
        folder.mkdir(parents=True)
    shutil.copy(debian / "usr/bin" / library.name, kit / KIT_PYTHON)
    for name in NEEDED:
        shutil.copy(debian / LIBRARIES / name, kit / "lib" / name)
    for name in EXTENSIONS:
        for found in (library / "lib-dynload").glob(f"{name}.*.so"):
            shutil.copy(found, inside / "lib-dynload")
    shutil.copy(library / "os.py", inside)  # the file by which Python knows its own folder
    _zip_library(library, kit / "lib" / f"{library.name.replace('.', '')}.zip", progress)


def check(kit: Path) -> None:
    """Raises EdgeportError where a phone's kernel could not map a file, or where the kit has grown too large."""
    for path in (p for p in kit.rglob("*") if p.is_file() and elf.is_elf(p)):
        data = path.read_bytes()
        if elf.machine(data) != "aarch64" or elf.load_alignment(data) < PAGE_BYTES:
            found = f"{elf.machine(data)}, aligned to {elf.load_alignment(data)} bytes"
            raise EdgeportError(f"{path.relative_to(kit)} is {found}; a phone needs aarch64 and {PAGE_BYTES}")
    size = sum(p.stat().st_size for p in kit.rglob("*") if p.is_file())
    if size > LIMIT_BYTES:
        raise EdgeportError(f"the kit has {size / 1e6:.1f} MB; it should stay below {LIMIT_BYTES / 1e6:.0f} MB")


def write(kit: Path, output: Path) -> None:
    """One tar file, the same for the same content, with the hash of every file in it."""
    paths = sorted(p for p in kit.rglob("*") if p.is_file())
    sums = "".join(f"{files.sha256(p)}  {p.relative_to(kit)}\n" for p in paths).encode()
    output.parent.mkdir(parents=True, exist_ok=True)
    with files.whole_file(output) as beside, tarfile.open(beside, "w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, KIT_SUMS, sums, 0o644)
        for path in paths:
            executable = path.parent.name == "bin" or path.name.startswith("ld-")
            _add(tar, str(path.relative_to(kit)), path.read_bytes(), 0o755 if executable else 0o644)


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _zip_library(library: Path, target: Path, progress: Progress) -> None:
    """Compiled, so that a phone need not at every start: by a Python of the same version, as the format is its own."""
    python = _same_python(library.name.removeprefix("python"))
    if python:
        skipped = "|".join(f"/{name}/" for name in sorted(LEFT_OUT))
        compiler = [python, "-m", "compileall", "-q", "-b", "-s", str(library), "-x", skipped, str(library)]
        subprocess.run(compiler, check=True, stdout=subprocess.DEVNULL)
    else:
        progress.warned("no Python of Debian's version is here to compile its library: it starts slowly")
    suffix = ".pyc" if python else ".py"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(library.rglob(f"*{suffix}")):
            name = path.relative_to(library)
            if not LEFT_OUT.intersection(name.parts):
                archive.writestr(zipfile.ZipInfo(str(name)), path.read_bytes(), zipfile.ZIP_DEFLATED)


def _same_python(version: str) -> str | None:
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    return shutil.which(f"python{version}")
