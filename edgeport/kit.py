"""What a device is handed: the agent in one file, and the runtimes' shared libraries."""

import fnmatch
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import platform
import re
import shutil
import sys
import zipfile
from pathlib import Path

import msgspec

from edgeport import files, scratch
from edgeport.errors import DeviceError
from edgeport.transport.process import run

FETCH_SECONDS = 900.0
NEWEST_GLIBC_MINOR = 45
AGENT = Path(__file__).parent / "agent"
# Distribution that holds a runtime, the package in it, and where its C library lies (a glob below the package).
RUNTIMES = {
    "litert": ("ai-edge-litert", "ai_edge_litert", "libLiteRt.so"),
    "onnxruntime": ("onnxruntime", "onnxruntime", "capi/libonnxruntime.so.*"),
}
# Which runtime runs a file, by its ending.
RUNTIME_OF = {".tflite": "litert", ".onnx": "onnxruntime"}


def runtime_of(path: Path) -> str:
    """Which runtime runs a file, by its ending in any case. The ending is one of RUNTIME_OF's."""
    return RUNTIME_OF[path.suffix.lower()]


class Library(msgspec.Struct, frozen=True):
    """A runtime's shared library and the version of the distribution that it came in."""

    path: Path
    version: str

    def oldest_libc(self) -> tuple[int, ...]:
        """The glibc that it needs, by the versions that its symbols name: the wheel's tag may promise less."""
        versions = {(int(a), int(b)) for a, b in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", self.path.read_bytes())}
        return max(versions, default=(0, 0))


@functools.cache
def agent_archive() -> Path:
    """The agent as one runnable zip file, named by its content, in edgeport's cache."""
    data = _zip_agent()
    path = files.cache_folder("kit") / f"agent-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if not path.is_file() or path.read_bytes() != data:  # what is about to run is what its name says
        with files.whole_file(path) as beside:
            beside.write_bytes(data)
    return path


@functools.cache
def library(runtime: str) -> Library:
    """The runtime's library as installed on this machine; the runtime itself is not imported."""
    distribution, package, pattern = RUNTIMES[runtime]
    spec = importlib.util.find_spec(package)
    roots = list(spec.submodule_search_locations or []) if spec else []
    found = sorted(p for root in roots for p in Path(root).glob(pattern))
    if not found:
        raise DeviceError(f"the runtime {runtime} is not installed here; run 'pip install {distribution}'")
    return Library(found[0], importlib.metadata.version(distribution))


def library_for(runtime: str, machine: str, wheels: Path | None = None) -> Library:
    """The same version's library for another machine (as uname -m calls it), from its wheel: of the folder `wheels`, or
    fetched by pip once and kept in edgeport's cache. Raises DeviceError.
    """
    here = library(runtime)
    if machine == platform.machine():
        return here
    distribution, package, pattern = RUNTIMES[runtime]
    folder = files.cache_folder("kit") / f"{distribution}-{here.version}-{machine}"
    found = sorted(folder.glob("*.so*")) if folder.is_dir() else []
    if not found:
        with scratch.folder() as download:
            wheel = _fetched(f"{distribution}=={here.version}", machine, wheels, download)
            found = [_extracted(wheel, f"{package}/{pattern}", files.writable_folder(folder))]
    return Library(found[0], here.version)


def _fetched(requirement: str, machine: str, wheels: Path | None, folder: Path) -> Path:
    """The wheel. Its library is plain C, the same for every Python: that of this Python will do."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    tags = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(17, NEWEST_GLIBC_MINOR + 1)]
    options = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *tags]
    source = [] if wheels is None else ["--no-index", f"--find-links={wheels}"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", *options, *source]
    done = run([*command, f"--dest={folder}", requirement], FETCH_SECONDS)
    found = list(folder.glob("*.whl"))
    if not found:
        said = "\n".join(f"  {line}" for line in done.err.splitlines() if line.startswith("ERROR")) or f"  {done.err}"
        where = f"in {wheels}" if wheels else "from the package index"
        by_hand = f"pip download {' '.join(options[:4])} --platform=manylinux_2_28_{machine} {requirement}"
        raise DeviceError(
            f"no wheel of {requirement} for {machine} {where}:\n{said}\n"
            f"  on a host with network run '{by_hand}', then give that folder as --wheels"
        )
    return found[0]


def _extracted(wheel: Path, pattern: str, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if fnmatch.fnmatch(name, pattern)]
            if not names:
                raise DeviceError(f"{wheel.name} holds no {pattern}")
            path = folder / Path(names[0]).name
            with files.whole_file(path) as beside, archive.open(names[0]) as source, beside.open("wb") as target:
                shutil.copyfileobj(source, target)
    except zipfile.BadZipFile as e:
        raise DeviceError(f"{wheel} is damaged: {e}") from e
    return path


def _zip_agent() -> bytes:
    """The same bytes for the same sources: sorted names, one fixed date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(AGENT.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"edgeport_agent/{source.name}"), source.read_bytes())
        archive.writestr(zipfile.ZipInfo("__main__.py"), "import runpy\nrunpy.run_module('edgeport_agent')\n")
    return buffer.getvalue()
