"""What a device is handed: the agent in one file, and the runtimes' shared libraries."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import zipfile
from pathlib import Path

import msgspec

from edgeport import files
from edgeport.errors import DeviceError

AGENT = Path(__file__).parent / "agent"
# Distribution that holds a runtime, the package in it, and where its C library lies (a glob below the package).
RUNTIMES = {
    "litert": ("ai-edge-litert", "ai_edge_litert", "libLiteRt.so"),
    "onnxruntime": ("onnxruntime", "onnxruntime", "capi/libonnxruntime.so.*"),
}
# Which runtime runs a file, by its ending.
RUNTIME_OF = {".tflite": "litert", ".onnx": "onnxruntime"}


class Library(msgspec.Struct, frozen=True):
    """A runtime's shared library and the version of the distribution that it came in."""

    path: Path
    version: str


@functools.cache
def agent_archive() -> Path:
    """The agent as one runnable zip file, named by its content, in edgeport's cache."""
    data = _zip_agent()
    path = files.cache_folder("kit") / f"agent-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if not path.exists():
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


def _zip_agent() -> bytes:
    """The same bytes for the same sources: sorted names, one fixed date."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sorted(AGENT.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"edgeport_agent/{source.name}"), source.read_bytes())
        archive.writestr(zipfile.ZipInfo("__main__.py"), "import runpy\nrunpy.run_module('edgeport_agent')\n")
    return buffer.getvalue()
