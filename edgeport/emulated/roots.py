"""The file systems of emulated devices: made of Debian's packages once, and kept in edgeport's cache."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgeport import debian_packages, files
from edgeport.emulated.kinds import ANDROID, PI, Kind
from edgeport.errors import UsageError
from edgeport.progress import Progress

FILES = Path(__file__).resolve().parent / "files"
CACHE = "virtual-devices"
BINFMT_RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
PROGRAMS = ("bin", "sbin")  # whose files are run


def make(device: Kind, progress: Progress) -> Path:
    """The device's root in edgeport's cache: made if what it is made of has changed since, or if there is none."""
    check_machine()
    root = files.cache_folder(CACHE) / f"{device.name}-{_recipe(device)}"
    if root.is_dir():
        return root
    step = f"make the emulated {device.name}"
    progress.started(step)
    beside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        debian_packages.unpack(device.packages, "arm64", beside)
        if device is ANDROID:
            _keep_only_busybox(beside)
        _compile_library(beside)
        _copy_files(device, beside)
        for name in ("dev", "proc", "sys", "tmp") if device is PI else ("dev", "proc", "sys"):
            (beside / name).mkdir(exist_ok=True)
        for path, target in device.links.items():
            (beside / path).unlink(missing_ok=True)
            (beside / path).symlink_to(target)
        for path, (mode, owner) in device.folders.items():
            (beside / path).mkdir(parents=True, exist_ok=True)
            (beside / path).chmod(mode)
            os.chown(beside / path, owner, owner)
        beside.chmod(0o755)
        with contextlib.suppress(FileExistsError, OSError):  # another one was quicker: its root is as good
            beside.rename(root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    progress.finished(step, device.description)
    return root


def _copy_files(device: Kind, root: Path) -> None:
    """Its own files over the root; an installation of edgeport may have lost that programs can be run."""
    source = FILES / device.name
    shutil.copytree(source, root, dirs_exist_ok=True)
    for path in source.rglob("*"):
        if path.is_file():
            (root / path.relative_to(source)).chmod(0o755 if path.parent.name in PROGRAMS else 0o644)


def check_machine() -> None:
    """Raises UsageError with what to do where no device can be emulated here."""
    if os.getuid() != 0:
        raise UsageError("emulated devices need root, for their mounts; run this as root")
    needed = {
        "adb": "adb",
        "unshare": "util-linux",
        "setpriv": "util-linux",
        "mount": "mount",
        "chroot": "coreutils",
        "ssh-keygen": "openssh-client",
    }
    for program, package in needed.items():
        if not shutil.which(program):
            raise UsageError(f"there is no {program} here; run 'apt-get install {package}'")
    if not BINFMT_RULE.exists():
        raise UsageError("QEMU for ARM programs is missing; run 'apt-get install qemu-user-static'")


def _recipe(device: Kind) -> str:
    """A hash of all that the root is made of."""
    told = hashlib.sha256(repr(device).encode())
    for path in sorted(p for p in (FILES / device.name).rglob("*") if p.is_file()):
        told.update(str(path.relative_to(FILES)).encode() + path.read_bytes())
    told.update(Path(debian_packages.__file__).read_bytes())
    return told.hexdigest()[:16]


def _keep_only_busybox(root: Path) -> None:
    """A phone has nothing below /usr, /bin and /lib."""
    busybox = (root / "usr/bin/busybox").read_bytes()
    shutil.rmtree(root)
    (root / "system/bin").mkdir(parents=True)
    (root / "system/bin/busybox").write_bytes(busybox)
    (root / "system/bin/busybox").chmod(0o755)


def _compile_library(root: Path) -> None:
    """As Python's package does when it is installed; compiled code is the same on every processor."""
    library = root / f"usr/lib/python3.{sys.version_info.minor}"
    if library.is_dir():
        options = ["-q", "-j0", "-s", str(root), "-x", "/test/|lib2to3"]
        command = [sys.executable, "-m", "compileall", *options, str(library)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
