"""A folder as edgeport export leaves it, of a file of one operator."""

import json
from pathlib import Path
from typing import Any

from small_models import small_onnx

from edgeport import files
from edgeport.export.manifest import MANIFEST
from edgeport.records import SCHEMA


def export(folder: Path, name: str = "small", source: str = "s", **change: Any) -> Path:
    """An export's folder of one file, of which the manifest says what is changed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = small_onnx(folder / "small.fp32.onnx")
    facts = {"samples": 1, "max_absolute_error": 0.0, "max_relative_error": 0.0, "sqnr_db": None, "top1_agreement": 1.0}
    named = {"file": path.name, "format": "onnx", "precision": "fp32", "sha256": files.sha256(path)}
    artifact = {**named, "size_bytes": 1, "inputs": [], "outputs": [], "verification": facts, **change}
    model = {"name": name, "source": source, "arguments": {}, "parameters": 1, "weights": None, "weights_sha256": ""}
    samples = {"source": "s", "samples": 1, "sha256": "0" * 64}
    manifest = {"schema": SCHEMA, "model": model, "target": "x86", "calibration": samples, "versions": {}}
    (folder / MANIFEST).write_text(json.dumps({**manifest, "artifacts": [artifact]}))
    return folder
