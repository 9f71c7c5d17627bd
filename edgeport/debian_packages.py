"""Debian's packages for another architecture, as files: fetched and checked by apt, unpacked without being installed.

apt works on folders of its own with this machine's configured sources and keys, so the mirror, the proxy and the
signatures are those that the machine trusts anyway, and nothing of the machine's own packages changes. No root needed.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgeport.errors import EdgeportError

TOOLS = ("apt-get", "dpkg-deb", "tar")
TIMEOUT_SECONDS = 900
# Debian has merged these into /usr; packages still hold files below the old names.
MERGED = ("bin", "sbin", "lib")


def unpack(packages: Sequence[str], architecture: str, root: Path) -> None:
    """Unpacks the packages and all that they depend on below root; their scripts do not run.

    Raises EdgeportError with the words of the program that failed.
    """
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise EdgeportError(f"there is no {missing[0]} here: Debian's packages are fetched on a Debian system")
    with tempfile.TemporaryDirectory(prefix="edgeport-apt-") as folder:
        debs = _fetch(packages, architecture, Path(folder))
        (root / "usr").mkdir(parents=True, exist_ok=True)
        for name in MERGED:
            (root / "usr" / name).mkdir()
            (root / name).symlink_to(f"usr/{name}")
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda deb: _unpack_one(deb, root), debs))


def _fetch(packages: Sequence[str], architecture: str, folder: Path) -> list[Path]:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    status = folder / "status"
    status.touch()  # nothing is installed, so that everything depended on is fetched
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
        "Dir::Cache": folder / "cache",
        "Dir::State": folder / "state",
        "Dir::State::status": status,
    }
    apt = ["apt-get", "--quiet=2", *(f"--option={key}={value}" for key, value in settings.items())]
    _run([*apt, "update"])
    _run([*apt, "--yes", "--download-only", "install", *packages])
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _unpack_one(deb: Path, root: Path) -> None:
    tar = deb.with_suffix(".tar")
    with tar.open("wb") as f:
        _run(["dpkg-deb", "--fsys-tarfile", deb], stdout=f)
    _run(["tar", "--extract", "--preserve-permissions", "--keep-directory-symlink", "-C", root, "-f", tar])
    tar.unlink()


def _run(argv: Sequence[str | Path], stdout: Any = subprocess.DEVNULL) -> None:
    try:
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.CalledProcessError as e:
        words = e.stderr.decode(errors="replace").strip().splitlines()[-5:]
        raise EdgeportError(f"{argv[0]} failed: " + "\n  ".join(words)) from e
    except subprocess.TimeoutExpired as e:
        raise EdgeportError(f"{argv[0]} did not end within {TIMEOUT_SECONDS} s") from e
