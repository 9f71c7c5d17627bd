"""What an export's bytes depend on besides the network and the request: edgeport's own code, and the libraries."""

import contextlib
import functools
import hashlib
import importlib.metadata
from pathlib import Path

DISTRIBUTIONS = (
    *("edgeport", "torch", "onnx", "onnxscript", "onnxruntime"),
    *("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "numpy"),
)


@functools.cache
def of_own_code() -> str:
    """A hash of edgeport's own code that exports: what was made by another version of it is made anew."""
    root, digest = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(p for part in ("export", "graph", "formats") for p in (root / part).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def of_libraries() -> dict[str, str]:
    """Those that are installed, by distribution."""
    versions = {}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
